"""The entropy model of latents against docs/FORMAT.md in Python integers, symbol by symbol."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from inrcodec.coding import entropy
from inrcodec.latents.costs import Costs
from inrcodec.models import LatentPyramid, Parameters, layers
from inrcodec.models.entropy_model import EntropyModel
from inrcodec.models.layers import ROWS_PER_UNIT, WEIGHT_UNIT, check_exact, integer_weights
from inrcodec.models.wavelet import Level, levels_of

STEP_INDEX = -21
CASES = [
    (EntropyModel((1, 2), (2, 2), hidden=3), (9, 7)),
    (EntropyModel((1, 2), (2, 2), hidden=3), (1, 5)),
    (EntropyModel((1,), (3,), hidden=4), (19,)),
    (EntropyModel((2,), (3, 3), hidden=3), (10, 6)),
    (EntropyModel((1,), (1, 2, 3), hidden=2), (3, 5, 6)),
    (EntropyModel((1, 2), (2, 2), hidden=3, divided=2), (13, 11)),
    (EntropyModel((1, 2), (2, 2), hidden=3, divided=4), (1, 5)),
    (EntropyModel((1,), (3,), hidden=4, divided=1), (19,)),
    (EntropyModel((1,), (1, 2, 3), hidden=2, divided=3), (3, 5, 6)),
]


def random_weights(model: EntropyModel) -> Parameters:
    """Return float weights, biases too, for which rows are spread over much of the tables."""
    generator = torch.Generator().manual_seed(7)
    return {
        name: value + (3.0 if "head" in name else 0.3) * torch.randn(value.shape, generator=generator) / 3
        for name, value in model.initialize(generator).items()
    }


def random_magnitudes(model: EntropyModel, levels: tuple[Level, ...], batch: int = 1) -> list[Tensor]:
    """Return zeros mostly, and some large ones."""
    random = np.random.default_rng(8)
    shapes = [(batch, sum(model.groups) * level.bands, *level.half) for level in levels]
    return [torch.from_numpy(np.floor(random.exponential(0.8, shape) ** 3).astype(np.float64)) for shape in shapes]


def rows_of(flags: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows of outputs in quarter units, each counted from the first of its table."""
    flag_rows = (flags + entropy.EVEN_FLAG).clamp(0, entropy.FLAG_ROWS - 1)
    return flag_rows, (scales + entropy.UNIT_MAGNITUDE).clamp(0, entropy.MAGNITUDE_ROWS - 1)


def exact_rows(
    model: EntropyModel,
    weights: Parameters,
    magnitudes: list[Tensor],
    levels: tuple[Level, ...],
    step_indices: tuple[int, ...] | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Return the rows of all passes. step_indices: of each signal."""
    exact = {name: value.double() for name, value in integer_weights(weights).items()}
    step_indices = step_indices or (STEP_INDEX,) * len(magnitudes[0])
    condition = torch.tensor([32.0 * index + 768 for index in step_indices], dtype=torch.float64)
    return [rows_of(flags, scales) for _, flags, scales in model.passes(exact, magnitudes, levels, condition)]


# The specification


def logarithm(magnitude: int) -> int:
    a = magnitude + 1
    e = a.bit_length() - 1
    return min((256 * (e * 2**e + a - 2**e)) // 2**e, 2**15)


def naive_rows(
    model: EntropyModel, weights: Parameters, magnitudes: list[Tensor], levels: tuple[Level, ...]
) -> list[dict[tuple[int, ...], tuple[int, int]]]:
    """Return the rows of flag and magnitude of every pass by (level, channel and band, *place)."""
    tables = {name: value.tolist() for name, value in integer_weights(weights).items()}
    known = [level[0].long().tolist() for level in magnitudes]
    dimensions, depth = len(levels[0].grid), len(levels)
    t = 32 * STEP_INDEX + 768
    result = []

    def symbol(level: int, channel: int, place: tuple[int, ...]) -> int:
        """Return m of a symbol, 0 outside."""
        if not all(0 <= p < size for p, size in zip(place, levels[level].half, strict=True)):
            return 0
        found = known[level][channel]
        for p in place:
            found = found[p]
        return logarithm(int(found))

    def activation(x: int) -> int:
        y = min(max(x // 1024, -(2**15)), 2**15)
        return y // 8 if y < 0 else y

    for level in reversed(range(depth)):
        bands = levels[level].bands
        axes = levels[min(level + 1, depth - 1)].axes
        binary = list(itertools.product((0, 1), repeat=len(axes)))
        order = [o for half in binary[: len(binary) // 2] for o in (half, tuple(1 - bit for bit in half))]
        offsets = [tuple(o[axes.index(a)] if a in axes else 0 for a in range(dimensions)) for o in order]
        stride = tuple(2 if a in axes else 1 for a in range(dimensions))
        phase_grid = tuple(-(-n // s) for n, s in zip(levels[level].half, stride, strict=True))
        for phase, group, part in itertools.product(range(len(offsets)), range(len(model.groups)), range(len(offsets))):
            # A phase comes in one part, or in as many as there are phases, which stand in it as these in the level.
            belonging = [
                cell
                for cell in itertools.product(*(range(size) for size in phase_grid))
                if phase >= model.divided
                or all(c % s == o for c, s, o in zip(cell, stride, offsets[part], strict=True))
            ]
            if not belonging or (phase >= model.divided and part > 0):
                continue
            name = f"{bands}.{len(offsets)}.{phase}.{group}"
            start = bands * sum(model.groups[:group])
            own = range(start, start + bands * model.groups[group])

            def at(number: int, cell: tuple[int, ...], offsets=offsets, stride=stride) -> tuple[int, ...]:
                return tuple(c * s + o for c, s, o in zip(cell, stride, offsets[number], strict=True))

            def inputs(
                cell: tuple[int, ...],
                level=level,
                bands=bands,
                own=own,
                phase=phase,
                grid=phase_grid,
                at=at,
                part=part,
                stride=stride,
                offsets=offsets,
            ):
                outside = not all(0 <= c < size for c, size in zip(cell, grid, strict=True))
                values = [symbol(level, channel, at(p, cell)) for p in range(phase) for channel in own]
                values += [symbol(level, channel, at(phase, cell)) for channel in range(own.start)]
                for above in (1, 2):
                    place = cell
                    if above == 2 and level + 2 < depth:
                        place = tuple(c // 2 if a in levels[level + 2].axes else c for a, c in enumerate(cell))
                    there = level + above < depth and levels[level + above].bands == bands
                    values += [symbol(level + above, channel, place) if there else 0 for channel in own]
                if part:
                    its_part = offsets.index(tuple(c % s for c, s in zip(cell, stride, strict=True)))
                    values += [symbol(level, channel, at(phase, cell)) if its_part < part else 0 for channel in own]
                return [0] * len(values) if outside else values

            def bias(table: list[list[int]], unit: int, level=level) -> int:
                return table[level][unit] * 256 + t * table[-2][unit] + t * t // 256 * table[-1][unit]

            rows = {}
            for cell in belonging:
                if not all(p < size for p, size in zip(at(phase, cell), levels[level].half, strict=True)):
                    continue
                taps = list(itertools.product((-1, 0, 1), repeat=dimensions))
                around = [inputs(tuple(c + o for c, o in zip(cell, tap, strict=True))) for tap in taps]
                h = []
                for unit in range(model.hidden):
                    total = bias(tables[f"{name}.input_bias"], unit)
                    kernels = tables[f"{name}.input"][unit]
                    if part:
                        total += bias(tables[f"{name}.part{part}_bias"], unit)
                        kernels = kernels + tables[f"{name}.part{part}"][unit]
                    for channel, kernel in enumerate(kernels):
                        for tap, values in zip(taps, around, strict=True):
                            weight = kernel
                            for offset in tap:
                                weight = weight[offset + 1]
                            total += weight * values[channel]
                    h.append(activation(total))
                mixed = [
                    256 * tables[f"{name}.hidden_bias"][0][unit]
                    + sum(w * x for w, x in zip(tables[f"{name}.hidden"][unit], h, strict=True))
                    for unit in range(model.hidden)
                ]
                h = [x + activation(y) for x, y in zip(h, mixed, strict=True)]
                outputs = [
                    (sum(w * x for w, x in zip(row, h, strict=True)) + bias(tables[f"{name}.head_bias"], unit) + 2**15)
                    // 2**16
                    for unit, row in enumerate(tables[f"{name}.head"])
                ]
                for number, channel in enumerate(own):
                    flag, scale = outputs[number], outputs[number + len(own)]
                    place = (level, channel, *at(phase, cell))
                    rows[place] = (min(max(flag + 40, 0), 80), min(max(scale + 8, 0), 63))
            result.append(rows)
    return result


@pytest.mark.parametrize(("model", "shape"), CASES)
def test_the_integer_network_is_the_specified_one(model: EntropyModel, shape: tuple[int, ...]) -> None:
    weights, levels = random_weights(model), levels_of(shape, model.levels)
    magnitudes = random_magnitudes(model, levels)
    specified = naive_rows(model, weights, magnitudes, levels)
    exact = {name: value.double() for name, value in integer_weights(weights).items()}
    condition = torch.tensor([32.0 * STEP_INDEX + 768], dtype=torch.float64)
    seen = set()
    passes = list(model.passes(exact, magnitudes, levels, condition))
    for (place, flags, scales), rows in zip(passes, specified, strict=True):
        numbers = torch.arange(magnitudes[place.level].numel()).reshape(magnitudes[place.level].shape)[place.index]
        assert numbers.shape == flags.shape == scales.shape and len(rows) == numbers.numel()
        flag_rows, scale_rows = rows_of(flags, scales)
        for number, flag, scale in zip(numbers.flatten(), flag_rows.flatten(), scale_rows.flatten(), strict=True):
            where = np.unravel_index(int(number), magnitudes[place.level].shape)[1:]
            key = (place.level, *map(int, where))
            assert rows[key] == (int(flag), int(scale)), key
            seen.add(rows[key])
    if math.prod(shape) > 10:
        assert len(seen) > 8  # else this would show little


@pytest.mark.parametrize(("model", "shape"), CASES)
def test_points_are_computed_block_by_block(
    model: EntropyModel, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, levels = random_weights(model), levels_of(shape, model.levels)
    magnitudes = random_magnitudes(model, levels, batch=2)
    whole = exact_rows(model, weights, magnitudes, levels)
    monkeypatch.setattr(layers, "_BLOCK", 5)
    for one, other in zip(exact_rows(model, weights, magnitudes, levels), whole, strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_sums_of_the_largest_weights_are_exact() -> None:
    """Where they nearly reach 2^53, float64 still holds every one."""
    model = EntropyModel((1,), (2,), hidden=2)
    levels = levels_of((7,), model.levels)
    sign = torch.Generator().manual_seed(1)
    weights = {
        name: (2.0**14 - 2**-10) * (torch.randint(0, 2, shape, generator=sign) * 2.0 - 1)
        for name, shape in model.shapes().items()
    }
    magnitudes = [torch.full((1, level.bands, *level.half), 2.0**31 - 1, dtype=torch.float64) for level in levels]
    found = exact_rows(model, weights, magnitudes, levels)
    for (flags, scales), rows in zip(found, naive_rows(model, weights, magnitudes, levels), strict=True):
        assert sorted(zip(flags.flatten().tolist(), scales.flatten().tolist(), strict=True)) == sorted(rows.values())


# The two ways of running


@pytest.mark.parametrize(("model", "shape"), CASES)
def test_integers_say_what_floats_do(model: EntropyModel, shape: tuple[int, ...]) -> None:
    weights, levels = random_weights(model), levels_of(shape, model.levels)
    weights = {name: torch.round(value * WEIGHT_UNIT) / WEIGHT_UNIT for name, value in weights.items()}
    magnitudes = random_magnitudes(model, levels, batch=2)
    exact = exact_rows(model, weights, magnitudes, levels)
    condition = torch.full((2,), STEP_INDEX / 8 + 3)
    floats = model.passes(weights, [level.float() for level in magnitudes], levels, condition)
    for (flag_rows, scale_rows), (_, flags, scales) in zip(exact, floats, strict=True):
        float_flag_rows, float_scale_rows = rows_of(ROWS_PER_UNIT * flags, ROWS_PER_UNIT * scales)
        assert bool(((flag_rows - float_flag_rows).abs() < 1).all())
        assert bool(((scale_rows - float_scale_rows).abs() < 1).all())


@pytest.mark.parametrize(("model", "shape"), CASES)
def test_signals_of_a_batch_do_not_mix(model: EntropyModel, shape: tuple[int, ...]) -> None:
    weights, levels = random_weights(model), levels_of(shape, model.levels)
    magnitudes = random_magnitudes(model, levels, batch=3)
    whole = exact_rows(model, weights, magnitudes, levels, (STEP_INDEX - 9, STEP_INDEX, STEP_INDEX + 9))
    alone = exact_rows(model, weights, [level[1:2] for level in magnitudes], levels)
    for (flags, scales), (own_flags, own_scales) in zip(whole, alone, strict=True):
        assert torch.equal(flags[1:2], own_flags) and torch.equal(scales[1:2], own_scales)


# Order


@pytest.mark.parametrize(("model", "shape"), CASES)
def test_every_symbol_is_coded_once_from_coarse_to_fine(model: EntropyModel, shape: tuple[int, ...]) -> None:
    levels = levels_of(shape, model.levels)
    magnitudes = random_magnitudes(model, levels)
    condition = torch.zeros(1)
    visits = [torch.zeros_like(level) for level in magnitudes]
    order = []
    for place, flags, scales in model.passes(
        model.initialize(torch.Generator().manual_seed(0)), [m.float() for m in magnitudes], levels, condition
    ):
        visits[place.level][place.index] += 1
        order.append(place.level)
        assert flags.shape == scales.shape == visits[place.level][place.index].shape
    assert all(bool((level == 1).all()) for level in visits)
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize(("model", "shape"), CASES)
def test_no_distribution_depends_on_the_symbol_or_a_later_one(model: EntropyModel, shape: tuple[int, ...]) -> None:
    """All symbols from one pass on are replaced: no distribution until then may change."""
    weights, levels = random_weights(model), levels_of(shape, model.levels)
    magnitudes = random_magnitudes(model, levels)
    exact = {name: value.double() for name, value in integer_weights(weights).items()}
    condition = torch.zeros(1, dtype=torch.float64)
    places = [place for place, _, _ in model.passes(exact, magnitudes, levels, condition)]
    before = exact_rows(model, weights, magnitudes, levels)
    influential = 0
    for number in range(len(places)):
        changed = [level.clone() for level in magnitudes]
        for place in places[number:]:
            changed[place.level][place.index] = 37 - changed[place.level][place.index].clamp(max=30)
        after = exact_rows(model, weights, changed, levels)
        same = [torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(before, after, strict=True)]
        assert all(same[: number + 1])
        influential += not all(same)
    assert influential > len(places) / 3


def test_magnitudes_may_be_filled_in_while_the_passes_go_on() -> None:
    """As a decoder does: distributions are the same as if all symbols had been known."""
    model, shape = CASES[0]
    weights, levels = random_weights(model), levels_of(shape, model.levels)
    magnitudes = random_magnitudes(model, levels)
    exact = {name: value.double() for name, value in integer_weights(weights).items()}
    condition = torch.tensor([32.0 * STEP_INDEX + 768], dtype=torch.float64)
    known = [torch.zeros_like(level) for level in magnitudes]
    all_known = iter(exact_rows(model, weights, magnitudes, levels))
    for place, flags, scales in model.passes(exact, known, levels, condition):
        for rows, other in zip(rows_of(flags, scales), next(all_known), strict=True):
            assert torch.equal(rows, other)
        known[place.level][place.index] = magnitudes[place.level][place.index]


# Costs


def test_costs_are_what_coding_costs() -> None:
    """Up to the rounding of the tables, for symbols they do not hold too rare for 16 bits."""
    flags, scales = np.meshgrid(np.arange(entropy.FLAG_ROWS), np.arange(entropy.MAGNITUDE_ROWS))
    flags, scales = flags.ravel(), scales.ravel()
    costs = Costs.of(
        torch.from_numpy((flags - entropy.EVEN_FLAG) / 4), torch.from_numpy((scales - entropy.UNIT_MAGNITUDE) / 4)
    )
    zeros = np.zeros(len(flags), np.int64)
    flag_bits = [entropy.code_length(zeros + flag, flags + entropy.FLAG_ROW) for flag in (0, 1)]
    close = {"rtol": 0.01, "atol": 0.02}
    np.testing.assert_allclose(costs(torch.zeros(len(flags))).numpy(), flag_bits[0], **close)
    for magnitude in (1, 2, 3, 7, 40):
        rest = entropy.code_length(zeros + magnitude - 1, scales + entropy.MAGNITUDE_ROW)
        found = costs(torch.full((len(flags),), float(magnitude))).numpy()
        common = rest < 8
        assert common.sum() > 100
        np.testing.assert_allclose(found[common], (flag_bits[1] + 1 + rest)[common], **close)


def test_costs_are_those_of_probabilities() -> None:
    """Over all symbols they sum to one; the mean magnitude rises with the scale."""
    magnitudes = torch.arange(1, 20_000, dtype=torch.float64)
    for log_odds, scale in itertools.product((-3.0, 0.0, 2.5), (-1.5, 0.0, 4.0, 9.0)):
        costs = Costs.of(torch.tensor(log_odds, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64))
        each = torch.exp2(-costs(magnitudes))  # of one sign
        zero = torch.exp2(-costs(torch.zeros((), dtype=torch.float64)))
        assert float(zero) == pytest.approx(1 / (1 + math.exp(log_odds)))
        assert float(zero + 2 * each.sum()) == pytest.approx(1)
        mean = float((magnitudes * each).sum() / each.sum())
        assert mean == pytest.approx(1 / (1 - math.exp(-(2**-scale))))


def test_costs_have_slopes() -> None:
    flags, scales = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    magnitudes = torch.tensor([0.0, 1.0, 2.0, 5.0, 100.0])
    assert torch.autograd.gradcheck(lambda f, s: Costs.of(f, s)(magnitudes), (flags, scales))


# Weights


def test_at_first_every_symbol_is_probably_as_likely_zero_as_not() -> None:
    model, shape = CASES[0]
    weights = model.initialize(torch.Generator().manual_seed(0))
    assert {name: tuple(value.shape) for name, value in weights.items()} == model.shapes()
    again = model.initialize(torch.Generator().manual_seed(0))
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    levels = levels_of(shape, model.levels)
    for flags, scales in exact_rows(model, weights, [0 * m for m in random_magnitudes(model, levels)], levels):
        assert float((flags - entropy.EVEN_FLAG).abs().max()) <= 2
        assert float((scales - entropy.UNIT_MAGNITUDE).abs().max()) <= 2


def test_weights_are_rounded_to_their_unit() -> None:
    weights = {"a": torch.tensor([0.3, -1.0, 12345.678]), "b": torch.zeros(0, 2) + 1}
    rounded = integer_weights({"a": weights["a"]})
    assert rounded["a"].dtype == torch.int32
    assert rounded["a"].tolist() == [307, -1024, round(float(weights["a"][2].double()) * 1024)]


@pytest.mark.parametrize("value", [2.0**14, -(2.0**14), math.inf, math.nan])
def test_weights_too_large_for_exact_sums(value: float) -> None:
    with pytest.raises(ValueError, match="entropy model"):
        integer_weights({"a": torch.tensor([value, 0.0])})


@pytest.mark.parametrize(("inputs", "exact"), [(1 << 12, True), ((1 << 12) + 1, False)])
def test_sums_of_a_part_are_added_to_those_of_its_phase(inputs: int, exact: bool) -> None:
    """Each alone is half of what float64 holds exactly."""
    largest = torch.full((1, inputs), layers.LARGEST_WEIGHT - 1, dtype=torch.int32)
    weights = {"1.2.0.0.input": largest, "1.2.0.0.part1": -largest}
    for name, value in weights.items():
        check_exact({"1.2.0.0.input": largest[:, :1], name: value})
    if exact:
        check_exact(weights)
    else:
        with pytest.raises(ValueError, match=r"1\.2\.0\.0\.part1 of the entropy model are too many"):
            check_exact(weights)


@pytest.mark.parametrize(("name", "inputs"), [("input", 1 << 13), ("hidden", 1 << 13), ("head", 1 << 12)])
def test_sums_of_too_many_weights_are_refused(name: str, inputs: int) -> None:
    """What a head sees are sums of two activations."""
    largest = torch.full((1, inputs + 1), layers.LARGEST_WEIGHT - 1, dtype=torch.int32)
    check_exact({f"1.2.0.0.{name}": largest[:, 1:]})
    with pytest.raises(ValueError, match=f"{name} of the entropy model are too many"):
        check_exact({f"1.2.0.0.{name}": largest})


@pytest.mark.parametrize("hidden", [0, -1, 2.0, "3", True, (1 << 12) + 1])
def test_impossible_widths(hidden: object) -> None:
    with pytest.raises(ValueError, match="hidden"):
        EntropyModel.of(LatentPyramid(2, 3), hidden)  # type: ignore[arg-type]


def test_levels_of_the_same_bands_share_their_weights() -> None:
    deep, deeper = EntropyModel((1, 2), (3, 3)), EntropyModel((1, 2), (5, 5))
    assert set(deep.shapes()) == set(deeper.shapes())
    for name, shape in deeper.shapes().items():
        grown = replace(deep, levels=(5, 5)).shapes()[name]
        assert shape == grown
        if name.endswith("bias"):
            assert shape[0] == (1 if "hidden_bias" in name else 5 + 2)
        else:
            assert shape == deep.shapes()[name]

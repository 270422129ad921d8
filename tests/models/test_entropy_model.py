"""The entropy model of latents in Python's integers, symbol by symbol, and what its costs stand for."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from latent_oracles import bands_of, cell_of, every_pass, has_parts, in_units, is_at, parabola, phases_of, place_of
from torch import Tensor

from inrcodec.coding import entropy
from inrcodec.latents.costs import Costs
from inrcodec.models import LatentClip, LatentPyramid, Parameters
from inrcodec.models.entropy_model import EntropyModel, _logarithm
from inrcodec.models.exact import ACTIVATION_UNIT, LARGEST_ACTIVATION
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
    (EntropyModel((1, 2), (4, 4), hidden=3, divided=4), (21, 18)),
    (EntropyModel((1,), (3,), hidden=4, divided=1), (19,)),
    (EntropyModel((1,), (1, 2, 3), hidden=2, divided=3), (3, 5, 6)),
    (EntropyModel((2,), (2, 2, 1), hidden=2, divided=3), (5, 6, 3)),
]
BARE = [*((model, shape, 0) for model, shape in CASES), (*CASES[0], 1), (*CASES[7], 2)]


def random_weights(model: EntropyModel) -> Parameters:
    """Return weights, biases too, for which outputs are spread over much of the tables."""
    generator = torch.Generator().manual_seed(7)
    weights = model.initialize(generator)
    for name, value in weights.items():
        if name.endswith("bias") or "flags" in name or "scales" in name:
            weights[name] = value + 0.5 * torch.randn(value.shape, generator=generator)
        else:
            weights[name] = 2 * value + 4 * torch.randn(value.shape, generator=generator) / math.prod(value.shape[1:])
    return weights


def random_magnitudes(model: EntropyModel, levels: Sequence[Level], bare: int = 0, batch: int = 1) -> list[Tensor]:
    """Return the magnitudes of every pass: zeros mostly, and some large ones."""
    random = np.random.default_rng(8)
    shapes = [(batch, place.channels, *place.shape) for place in replace(model.order, bare=bare).places(levels)]
    return [torch.from_numpy(np.floor(random.exponential(0.8, shape) ** 3)).float() for shape in shapes]


def outputs(
    model: EntropyModel,
    weights: Parameters,
    magnitudes: Sequence[Tensor],
    levels: Sequence[Level],
    bare: int = 0,
    step_index: int = STEP_INDEX,
) -> list[tuple[Tensor, Tensor]]:
    """Return flags and scales of every pass. A pass's magnitudes are known only after it, as to a decoder."""
    order, left = replace(model.order, bare=bare), iter(magnitudes)
    found = []
    ready = model.ready(weights, step_index)
    for place, flags, scales in model.passes(ready, levels, order, lambda: next(left), magnitudes[0]):
        assert place == order.places(levels)[len(found)]
        assert flags.shape == scales.shape == magnitudes[len(found)].shape
        found.append((flags, scales))
    assert next(left, None) is None
    return found


# The specification


def logarithm(magnitude: int) -> int:
    a = magnitude + 1
    e = a.bit_length() - 1
    return min((128 * (e * 2**e + a - 2**e)) // 2**e, 2047)


def naive_outputs(
    model: EntropyModel, weights: Parameters, magnitudes: Sequence[Tensor], levels: Sequence[Level], bare: int
) -> list[list[tuple[int, int]]]:
    """Return flags and scales of every pass, symbol by symbol, in units of 1 / 128 of an activation."""
    tables = {name: value.numpy() for name, value in weights.items()}
    order, depth = replace(model.order, bare=bare), len(levels)
    known = [each[0].long().numpy() for each in order.merge(magnitudes, levels)]
    taps = list(itertools.product((-1, 0, 1), repeat=len(levels[0].grid)))

    def symbol(level: int, channel: int, place: tuple[int, ...]) -> int:
        """Return the logarithm of a magnitude, 0 outside."""
        if not all(0 <= p < size for p, size in zip(place, levels[level].half, strict=True)):
            return 0
        return logarithm(int(known[level][(channel, *place)]))

    result = []
    for (level, phase, group, part), latents in every_pass(order, levels):
        bands, phases = bands_of(order, level), phases_of(order, level)
        name = f"{bands}.{len(phases)}.{phase}.{group}"
        start = bands * sum(model.groups[:group])
        own = range(start, start + bands * model.groups[group])
        grid = [n if o is None else -(-n // 2) for n, o in zip(levels[level].half, phases[0], strict=True)]
        in_parts = has_parts(order, level, phase, group)

        def inputs(cell: tuple[int, ...]) -> list[int]:
            # Bound here, as they are for this pass only.
            values = [symbol(level, c, place_of(cell, phases[p])) for p in range(phase) for c in own]  # noqa: B023
            values += [symbol(level, c, place_of(cell, phases[phase])) for c in range(own.start)]  # noqa: B023
            for above in (1, 2):
                there = level + above < depth and bands_of(order, level + above) == bands  # noqa: B023
                place = cell
                if above == 2 and there:
                    split = levels[level + 2].axes  # noqa: B023
                    place = tuple(c // 2 if axis in split else c for axis, c in enumerate(cell))
                values += [symbol(level + above, c, place) if there else 0 for c in own]  # noqa: B023
            if part:  # noqa: B023
                (its_part,) = (number for number, offsets in enumerate(phases) if is_at(cell, offsets))  # noqa: B023
                seen = its_part < part  # noqa: B023
                values += [symbol(level, c, place_of(cell, phases[phase])) if seen else 0 for c in own]  # noqa: B023
            if not all(0 <= c < size for c, size in zip(cell, grid, strict=True)):  # noqa: B023
                return [0] * len(values)
            return values

        kernel = in_units(tables[f"{name}.input.weight"], 128)
        bias = parabola(tables[f"{name}.input.bias"], level, STEP_INDEX)
        if part:
            kernel = np.concatenate([kernel, in_units(tables[f"{name}.part{part}.weight"], 128)], 1)
            bias = bias + parabola(tables[f"{name}.part{part}.bias"], level, STEP_INDEX)
        found: dict[tuple[int, ...], tuple[list[int], list[int]]] = {}
        rows = []
        for channel, *place in latents:
            cell = cell_of(place, phases[phase])
            assert not in_parts or is_at(cell, phases[part])
            if cell not in found:
                sums = list(map(int, bias))
                for tap in taps:
                    around = inputs(tuple(c + t for c, t in zip(cell, tap, strict=True)))
                    weight = kernel[(slice(None), slice(None), *(t + 1 for t in tap))]
                    for unit in range(model.hidden):
                        sums[unit] += sum(int(w) * x for w, x in zip(weight[unit], around, strict=True))
                first = [min(max(total // 128, 0), 2047) for total in sums]
                mixing = in_units(tables[f"{name}.hidden.weight"], 128).tolist()
                sums = in_units(tables[f"{name}.hidden.bias"], 1 << 14).tolist()
                for unit, row in enumerate(mixing):
                    sums[unit] += sum(w * x for w, x in zip(row, first, strict=True))
                last = [x + min(max(total // 128, 0), 2047) for x, total in zip(first, sums, strict=True)]
                heads = []
                for head in ("flags", "scales"):
                    rest = parabola(tables[f"{name}.{head}.bias"], level, STEP_INDEX).tolist()
                    matrix = in_units(tables[f"{name}.{head}.weight"], 128).tolist()
                    heads.append(
                        [
                            total + sum(w * x for w, x in zip(row, last, strict=True))
                            for row, total in zip(matrix, rest, strict=True)
                        ]
                    )
                found[cell] = (heads[0], heads[1])
            flags, scales = found[cell]
            rows.append((flags[channel - own.start], scales[channel - own.start]))
        result.append(rows)
    return result


@pytest.mark.parametrize(("model", "shape", "bare"), BARE)
def test_the_network_is_the_specified_one(model: EntropyModel, shape: tuple[int, ...], bare: int) -> None:
    weights, levels = random_weights(model), levels_of(shape, model.levels)
    magnitudes = random_magnitudes(model, levels, bare)
    specified = naive_outputs(model, weights, magnitudes, levels, bare)
    seen = set()
    for (flags, scales), expected in zip(outputs(model, weights, magnitudes, levels, bare), specified, strict=True):
        units = [(128 * each).flatten().tolist() for each in (flags, scales)]
        assert list(zip(*units, strict=True)) == expected
        seen |= {flag // (128 * 32) for flag, _ in expected}
    if math.prod(shape) > 10:
        assert len(seen) > 6  # else this would show little


@given(st.integers(0, 2**24 - 2))
def test_magnitudes_are_seen_by_their_logarithm(magnitude: int) -> None:
    assert _logarithm(torch.tensor([float(magnitude)])).tolist() == [logarithm(magnitude)]


def test_the_logarithm_of_magnitudes_has_a_slope() -> None:
    """It is linear between powers of two; its gradient is not rounded, and passes its end."""
    magnitudes = torch.tensor([0.0, 1.0, 2.0, 3.0, 6.0, 7.0, 100.0, 2.0**20]).requires_grad_()
    (slopes,) = torch.autograd.grad(_logarithm(magnitudes).sum(), magnitudes)
    assert slopes.tolist() == [128, 64, 64, 32, 32, 16, 2, 128 / 2**20]
    before = magnitudes.detach().clone()
    _logarithm(before)
    assert torch.equal(before, magnitudes)


def test_large_magnitudes_have_the_largest_logarithm() -> None:
    huge = torch.tensor([2.0**15, 2.0**16, 2.0**31, 2.0**40])
    assert _logarithm(huge).tolist() == [15 * ACTIVATION_UNIT, *[LARGEST_ACTIVATION] * 3]


@pytest.mark.parametrize(("model", "shape"), CASES)
def test_signals_of_a_batch_do_not_mix(model: EntropyModel, shape: tuple[int, ...]) -> None:
    weights, levels = random_weights(model), levels_of(shape, model.levels)
    magnitudes = random_magnitudes(model, levels, batch=3)
    together = outputs(model, weights, magnitudes, levels)
    alone = outputs(model, weights, [each[1:2] for each in magnitudes], levels)
    for (flags, scales), (own_flags, own_scales) in zip(together, alone, strict=True):
        assert torch.equal(flags[1:2], own_flags) and torch.equal(scales[1:2], own_scales)


# Order


@pytest.mark.parametrize(("model", "shape", "bare"), BARE)
def test_no_distribution_depends_on_the_symbol_or_a_later_one(
    model: EntropyModel, shape: tuple[int, ...], bare: int
) -> None:
    """All symbols from one pass on are replaced: no distribution until then may change."""
    weights, levels = random_weights(model), levels_of(shape, model.levels)
    magnitudes = random_magnitudes(model, levels, bare)
    before = outputs(model, weights, magnitudes, levels, bare)
    influential, tried = 0, range(0, len(magnitudes), 1 + len(magnitudes) // 25)
    for number in tried:
        changed = [*magnitudes[:number], *(37 - each.clamp(max=30) for each in magnitudes[number:])]
        after = outputs(model, weights, changed, levels, bare)
        same = [torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(before, after, strict=True)]
        assert all(same[: number + 1])
        influential += not all(same)
    assert influential > len(tried) / 3


# Training


def test_training_computes_the_same_numbers_and_every_weight_is_learned() -> None:
    model, shape = EntropyModel((1, 2), (2, 2), hidden=8, divided=2), (40, 37)
    weights, levels = random_weights(model), levels_of(shape, model.levels)
    magnitudes = random_magnitudes(model, levels)
    plain = outputs(model, weights, magnitudes, levels)
    learned = {name: value.requires_grad_() for name, value in weights.items()}
    seen = [each.requires_grad_() for each in magnitudes]
    found = outputs(model, learned, seen, levels)
    for (flags, scales), (own_flags, own_scales) in zip(plain, found, strict=True):
        assert torch.equal(flags, own_flags) and torch.equal(scales, own_scales)
    total = sum(flags.square().sum() + scales.square().sum() for flags, scales in found)
    gradients = torch.autograd.grad(total, [*learned.values(), *seen[:-1]], create_graph=True)
    for name, gradient in zip(learned, gradients, strict=False):
        assert bool(gradient.isfinite().all()) and bool(gradient.any()), name
    again = torch.autograd.grad(sum(each.sum() for each in gradients[len(learned) :]), list(learned.values()))
    assert all(bool(each.isfinite().all()) for each in again) and any(bool(each.any()) for each in again)


# Costs


def test_costs_are_what_coding_costs() -> None:
    """Up to the rounding of the tables, for symbols they do not hold too rare for 16 bits."""
    flags, scales = np.meshgrid(np.arange(entropy.FLAG_ROWS), np.arange(entropy.MAGNITUDE_ROWS))
    flags, scales = flags.ravel(), scales.ravel()
    costs = Costs.of(
        torch.from_numpy((flags - entropy.EVEN_FLAG) * ACTIVATION_UNIT / 4),
        torch.from_numpy((scales - entropy.UNIT_MAGNITUDE) * ACTIVATION_UNIT / 4),
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
        units = ACTIVATION_UNIT * torch.tensor([log_odds, scale], dtype=torch.float64)
        costs = Costs.of(*units)
        each = torch.exp2(-costs(magnitudes))  # of one sign
        zero = torch.exp2(-costs(torch.zeros((), dtype=torch.float64)))
        assert float(zero) == pytest.approx(1 / (1 + math.exp(log_odds)))
        assert float(zero + 2 * each.sum()) == pytest.approx(1)
        mean = float((magnitudes * each).sum() / each.sum())
        assert mean == pytest.approx(1 / (1 - math.exp(-(2**-scale))))


def test_costs_have_slopes() -> None:
    flags, scales = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    magnitudes = torch.tensor([0.0, 1.0, 2.0, 5.0, 100.0])
    assert torch.autograd.gradcheck(
        lambda f, s: Costs.of(ACTIVATION_UNIT * f, ACTIVATION_UNIT * s)(magnitudes), (flags, scales)
    )


# Weights


def test_at_first_every_symbol_is_probably_as_likely_zero_as_not() -> None:
    model, shape = CASES[0]
    weights = model.initialize(torch.Generator().manual_seed(0))
    assert {name: tuple(value.shape) for name, value in weights.items()} == model.shapes()
    again = model.initialize(torch.Generator().manual_seed(0))
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    levels = levels_of(shape, model.levels)
    for flags, scales in outputs(model, weights, [0 * m for m in random_magnitudes(model, levels)], levels):
        assert float(flags.abs().max()) <= ACTIVATION_UNIT / 2
        assert float(scales.abs().max()) <= ACTIVATION_UNIT / 2


LAYERS = ["input", "part1", "hidden", "flags", "scales"]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("tensor", ["weight", "bias"])
@pytest.mark.parametrize("value", [1e4, -1e4, math.inf, math.nan])
def test_weights_with_inexact_sums_are_refused(layer: str, tensor: str, value: float) -> None:
    model = CASES[5][0]
    if layer == "part1" and tensor == "weight":
        value *= -1
    weights = random_weights(model)
    model.ready(weights, STEP_INDEX)
    name = "hidden.bias" if (layer, tensor) == ("hidden", "bias") else f"{layer}.{tensor}"
    weights[f"3.4.0.0.{name}"].view(-1)[0] = value
    with pytest.raises(ValueError, match=rf"3\.4\.0\.0\.({layer}|part1) are .* too large for exact sums"):
        model.ready(weights, STEP_INDEX)


def test_sums_of_a_part_are_added_to_those_of_its_phase() -> None:
    """Each alone is just within the bound."""
    model = EntropyModel((1,), (1,), hidden=1, divided=1)
    weights = {name: torch.zeros(shape) for name, shape in model.shapes().items()}
    weights["1.2.0.0.input.weight"].view(-1)[0] = 40.0
    model.ready(weights, 0)
    weights["1.2.0.0.part1.weight"].view(-1)[0] = -24.0
    model.ready(weights, 0)
    weights["1.2.0.0.part1.weight"].view(-1)[0] = -25.0
    with pytest.raises(ValueError, match=r"1\.2\.0\.0\.part1 are"):
        model.ready(weights, 0)


def test_heads_see_sums_of_two_activations() -> None:
    model = EntropyModel((1,), (1,), hidden=1)
    weights = {name: torch.zeros(shape) for name, shape in model.shapes().items()}
    weights["1.2.0.0.hidden.weight"][:] = 64.0
    weights["1.2.1.0.flags.weight"][:] = -32.0
    model.ready(weights, 0)
    weights["1.2.1.0.flags.weight"][:] = -33.0
    with pytest.raises(ValueError, match=r"1\.2\.1\.0\.flags are"):
        model.ready(weights, 0)


def test_the_bound_holds_at_every_step_that_is_asked_for() -> None:
    """Biases depend on the step."""
    model = EntropyModel((1,), (1,), hidden=1)
    weights = {name: torch.zeros(shape) for name, shape in model.shapes().items()}
    weights["1.2.0.0.input.bias"][-1] = 8.0
    model.ready(weights, 0)
    with pytest.raises(ValueError, match=r"1\.2\.0\.0\.input are"):
        model.ready(weights, -120)


@pytest.mark.parametrize("hidden", [0, -1, 2.0, "3", True, (1 << 12) + 1])
def test_impossible_widths(hidden: object) -> None:
    with pytest.raises(ValueError, match="hidden"):
        EntropyModel.of(LatentPyramid(2, 3), hidden)  # type: ignore[arg-type]


def test_levels_of_the_same_bands_share_their_weights() -> None:
    deep, deeper = EntropyModel((1, 2), (3, 3)), EntropyModel((1, 2), (5, 5))
    assert set(deep.shapes()) == set(deeper.shapes())
    for name, shape in deeper.shapes().items():
        if name.endswith("bias") and "hidden" not in name:
            assert shape[0] == 5 + 2
        else:
            assert shape == deep.shapes()[name]


def test_kinds_of_pictures_have_weights_of_their_own() -> None:
    model = EntropyModel.of(LatentClip(3, 3, (2, 2), prediction=4, divided=2), 3)
    one = model.of_kind("intra")
    assert one == EntropyModel.of(LatentPyramid(2, 3, (2, 2), divided=2), 3)
    assert set(model.shapes()) == {f"{kind}.{name}" for kind in ("intra", "inter") for name in one.shapes()}

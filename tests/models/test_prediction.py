"""Predictions and what is decoded with them, against networks in NumPy's integers, bit by bit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import lifting
import numpy as np
import pytest
import torch
from latent_oracles import (
    activated,
    bands_of,
    centred,
    convolved,
    has_parts,
    in_units,
    is_at,
    parabola,
    phases_of,
    place_of,
)
from torch import Tensor

from inrcodec.models import Grid, LatentPyramid, Parameters
from inrcodec.models.latent import following, quantization_step
from inrcodec.models.order import Order, Place
from inrcodec.models.wavelet import Level

PLANE = LatentPyramid(2, 3, (3, 2), prediction=4)
LINE = LatentPyramid(1, 1, (2,), prediction=3)
BOX = LatentPyramid(3, 2, (1, 2, 2), prediction=2)
CASES = [
    (PLANE, Grid.open((9, 14))),
    (PLANE, Grid((8, 12), (False, True))),
    (PLANE, Grid.open((1, 5))),
    (LINE, Grid.open((21,))),
    (LINE, Grid.open((1,))),
    (BOX, Grid.open((3, 6, 5))),
    (replace(PLANE, divided=2), Grid.open((18, 15))),
    (replace(PLANE, divided=4), Grid.open((1, 5))),
    (replace(PLANE, levels=(4, 4), divided=3), Grid.open((23, 18))),
    (replace(LINE, divided=1), Grid.open((21,))),
    (replace(BOX, divided=8), Grid.open((3, 12, 5))),
    (PLANE.transform(1), Grid.open((9, 14))),
    (PLANE.transform(2 + 3 * 17), Grid.open((9, 14))),
]


def random_parameters(field: LatentPyramid, seed: int = 4) -> Parameters:
    """Return parameters with heads and biases, which `initialize` leaves at zero."""
    generator = torch.Generator().manual_seed(seed)
    parameters = field.initialize(generator)
    for name, value in parameters.items():
        spread = 0.3 if "head" in name or "bias" in name else 8 / math.prod(value.shape[1:])
        parameters[name] = value + spread * torch.randn(value.shape, generator=generator)
    return parameters


def random_symbols(field: LatentPyramid, grid: Grid, batch: int = 1, means: int = 40) -> list[Tensor]:
    """Return the coarsest means, and small details for every pass, of which a few are large."""
    generator = torch.Generator().manual_seed(5)

    def draw(largest: int, *shape: int) -> Tensor:
        return torch.randint(-largest, largest + 1, (batch, *shape), generator=generator).float()

    details = [draw(4, place.channels, *place.shape) for place in field.places(grid)]
    for each in details:
        each[torch.rand(each.shape, generator=generator) < 0.02] *= 300
    return [draw(means, *field.means_shape(grid)), *details]


def random_values(field: LatentPyramid, grid: Grid, batch: int = 1, seed: int = 6) -> Tensor:
    return torch.rand((batch, field.out_features, *grid.shape), generator=torch.Generator().manual_seed(seed))


def decoded(field: LatentPyramid, parameters: Parameters, symbols: list[Tensor], grid: Grid, step_index: int) -> Tensor:
    ready = field.ready(parameters, step_index)
    return field.decode(ready, symbols[0], grid, step_index, following(symbols[1:]))


# The networks, written out

F = np.float32
"""Rounds: what is not an integer is computed by single operations of float32."""


@dataclass(frozen=True)
class Shown:
    """A reference: means [C, *half] and details [C, bands, *half] of every level, finest first."""

    means: list[np.ndarray]
    details: list[np.ndarray]

    @classmethod
    def of(cls, mixed: np.ndarray, levels: Sequence[Level], closed: Sequence[bool]) -> "Shown":
        """Take apart values in the colours of latents, [C, *grid]."""
        bands, low = [], mixed
        for level in levels:
            low, *high = lifting.split(low, level.axes, closed)
            bands.append(high)
        means = [low]
        for high, level in zip(bands[:0:-1], levels[:0:-1], strict=True):
            low, _ = lifting.join([low, *high], level.axes, closed, level.grid)
            means.insert(0, low)
        return cls(means, [np.stack(high, 1) for high in bands])


@dataclass(frozen=True)
class Networks:
    """What a signal's level is decoded with."""

    field: LatentPyramid
    theta: dict[str, np.ndarray]
    step_index: int
    level: int
    half: tuple[int, ...]
    references: Sequence[Shown] = ()

    @property
    def order(self) -> Order:
        return self.field.order

    @property
    def phases(self) -> list[tuple[int | None, ...]]:
        return phases_of(self.order, self.level)

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(n if o is None else -(-n // 2) for n, o in zip(self.half, self.phases[0], strict=True))

    @property
    def magnified(self) -> int:
        return 2 ** max(0, math.ceil((-56 - self.step_index) / 8))

    @property
    def gain(self) -> float:
        halvings = sum(min(splits, self.level + 1) for splits in self.order.splits)
        unit = 8 / 2.0 ** (halvings // 2) / (math.sqrt(2) if halvings % 2 else 1.0)
        return quantization_step(self.step_index) * unit * self.magnified

    def condition(self) -> int:
        """The step index that networks are told."""
        return max(self.step_index, -56)

    def seen(self, values: np.ndarray, largest: int = 1280) -> np.ndarray:
        """Return what networks see of values in quantization steps."""
        return np.floor(values * F(self.gain * 256)).clip(-largest, largest).astype(np.int64)

    def at_phase(self, wide: np.ndarray, phase: int) -> np.ndarray:
        """Return the values at a phase of a grid [..., *even]."""
        slices = [slice(offset, None, None if offset is None else 2) for offset in self.phases[phase]]
        return wide[(..., *slices)]

    def widened(self, values: np.ndarray, mode: str) -> np.ndarray:
        """Continue odd axes of [..., *half] by one sample, so that all phases have the same grid."""
        ends = [(0, n % 2 if o is not None else 0) for n, o in zip(self.half, self.phases[0], strict=True)]
        return np.pad(values, [(0, 0)] * (values.ndim - len(ends)) + ends, mode)  # type: ignore[call-overload]

    def details(self, wide: np.ndarray, coded: np.ndarray) -> np.ndarray:
        """Return details [C, bands, *half]. wide: means [C, *even]. coded: symbols [C, bands, *half]."""
        order = self.order
        known = self.widened(np.zeros(coded.shape, F), "constant")
        coded = self.widened(coded, "constant")
        for phase in range(len(self.phases)):
            for group in order.coded_groups(self.level):
                channels = range(order.members(group).start, order.members(group).stop)
                features = self.features(phase, group, channels, wide, known)
                parts = self.phases if has_parts(order, self.level, phase, group) else [(None,) * len(self.half)]
                for part, offsets in enumerate(parts):
                    points = [
                        cell
                        for cell in np.ndindex(*self.grid)
                        if is_at(cell, offsets)
                        and all(p < n for p, n in zip(place_of(cell, self.phases[phase]), self.half, strict=True))
                    ]
                    prediction = self.predict(phase, group, part, features, channels, known)
                    for cell in points:
                        place = place_of(cell, self.phases[phase])
                        spot = (slice(channels.start, channels.stop), slice(None), *place)
                        known[spot] = prediction[(..., *cell)] + coded[spot]
        return known[(..., *(slice(0, size) for size in self.half))]

    def name(self, phase: int, group: int) -> str:
        return f"prediction.{bands_of(self.order, self.level)}.{len(self.phases)}.{phase}.{group}"

    def features(self, phase: int, group: int, channels: range, wide: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Return the sums of the first layer, in activations, at the grid of a phase."""
        name, own = self.name(phase, group), slice(channels.start, channels.stop)
        weight = self.theta[f"{name}.means.weight"]
        size = len(channels)
        means = np.zeros(weight.shape, np.int64)
        for out in range(len(weight)):
            for channel in range(size):
                of_channel = weight[out, channel::size]
                means[out, channel::size] = np.array(centred(of_channel.ravel().tolist())).reshape(of_channel.shape)
        seen = np.concatenate(
            [
                self.seen(self.at_phase(wide[own], each), 1280 << 10 if self.magnified > 1 else 1280)
                for each in range(len(self.phases))
            ]
        )
        low, high = (seen % 1024, seen // 1024) if self.magnified > 1 else (seen, None)
        sums = convolved(low, means, "edge")
        before = [self.at_phase(known[own], each) for each in range(phase)]
        before += [self.at_phase(known[self.order.members(other)], phase) for other in range(group)]
        if before:
            shown = np.concatenate([self.seen(each).reshape(-1, *self.grid) for each in before])
            sums = sums + convolved(shown, in_units(self.theta[f"{name}.details.weight"], 128), 1)
        bias = parabola(self.theta[f"{name}.means.bias"], self.level, self.condition())
        sums = self.of_inputs(sums, bias)
        if high is not None:
            sums = sums + self.of_inputs(convolved(high, means, "edge"), 0) * F(1024)
        if self.references:
            weight = in_units(self.theta[f"{name}.reference.weight"], 128)
            total, first = np.zeros(sums.shape, np.int64), 0
            step = F(1 / quantization_step(self.step_index))
            for reference in self.references:
                theirs = self.widened(reference.means[self.level][own] * step, "edge")
                away = [self.seen(self.at_phase(wide[own] - theirs, each)) for each in range(len(self.phases))]
                there = self.widened(reference.details[self.level][own] * step, "constant")
                shown_there = [
                    self.seen(self.at_phase(there, each)).reshape(-1, *self.grid) for each in range(len(self.phases))
                ]
                for inputs, padding in ((np.concatenate(away), "edge"), (np.concatenate(shown_there), 1)):
                    total += convolved(inputs, weight[:, first : first + len(inputs)], padding)
                    first += len(inputs)
            sums = sums + self.of_inputs(total, 0)
        return sums

    def of_inputs(self, sums: np.ndarray, bias: np.ndarray | int) -> np.ndarray:
        """Return sums of inputs in units of activations. bias: in units of those sums."""
        whole = sums + 2 * (bias if isinstance(bias, int) else bias.reshape(-1, *[1] * len(self.grid)))
        assert int(np.abs(whole).max()) < 2**24
        return (whole / 256).astype(F)

    def predict(
        self, phase: int, group: int, part: int, features: np.ndarray, channels: range, known: np.ndarray
    ) -> np.ndarray:
        """Return the predictions [C, bands, *grid] that a part of a phase has at its points."""
        name, own = self.name(phase, group), slice(channels.start, channels.stop)
        ones = [1] * len(self.grid)
        if part:
            seen = self.seen(self.at_phase(known[own], phase)).reshape(-1, *self.grid)
            sums = convolved(seen, in_units(self.theta[f"{name}.part{part}.weight"], 128), 1)
            bias = parabola(self.theta[f"{name}.part{part}.bias"], self.level, self.condition())
            features = features + self.of_inputs(sums, bias)
        hidden = convolved(activated(features), in_units(self.theta[f"{name}.hidden.weight"], 128), 1)
        hidden = hidden + in_units(self.theta[f"{name}.hidden.bias"], 1 << 14).reshape(-1, *ones)
        hidden = activated(hidden / 128)
        outputs = np.tensordot(in_units(self.theta[f"{name}.head.weight"], 128), hidden, 1)
        prediction = (outputs / 128).astype(F) * F(1 / (128 * self.gain))
        for number, reference in enumerate(self.references):
            rows = slice(number * len(prediction), (number + 1) * len(prediction))
            share = np.tensordot(in_units(self.theta[f"{name}.share.weight"][rows], 128), hidden, 1)
            bias = in_units(self.theta[f"{name}.share.bias"][self.level, rows], 1 << 14)
            share = ((share + bias.reshape(-1, *ones)) / 2**14).astype(F) + F(1 / len(self.references))
            there = reference.details[self.level][own] * F(1 / quantization_step(self.step_index))
            there = self.at_phase(self.widened(there, "constant"), phase).reshape(-1, *self.grid)
            prediction = prediction + share * there
        assert prediction.dtype == F
        return prediction.reshape(len(channels), -1, *self.grid)


def specified(
    field: LatentPyramid,
    parameters: Parameters,
    symbols: Sequence[Tensor],
    grid: Grid,
    step_index: int,
    signals: Sequence[Tensor] = (),
) -> np.ndarray:
    """Return what one signal decodes to, in quantization steps: [C, *grid.shape]."""
    theta = {name: value.numpy() for name, value in parameters.items()}
    levels, channels = field.levels_of(grid), field.out_features
    references = [Shown.of(mixed(values[0].numpy()), levels, grid.periodic) for values in signals]
    low = symbols[0][0].numpy()
    if references:
        total = sum((each.means[-1] for each in references[1:]), references[0].means[-1])
        low = low + total * F(1 / (len(references) * quantization_step(step_index)))
    details = [each[0].numpy() for each in field.order.merge(symbols[1:], levels)]
    wide = None
    for index in reversed(range(len(levels))):
        level = levels[index]
        networks = Networks(field, theta, step_index, index, level.half, references)
        if wide is None:
            wide = networks.widened(low, "edge")
        coded = details[index].reshape(channels, -1, *level.half)
        found = networks.details(wide, coded)
        low, wide = lifting.join([low, *found.swapaxes(0, 1)], level.axes, grid.periodic, level.grid)
    assert low.dtype == F
    return low


def mixed(values: np.ndarray) -> np.ndarray:
    """Return the latents' channels of values in [0, 1], of the first hue."""
    values = values - F(0.5)
    if len(values) != 3:
        return values
    matrix = (np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])).astype(F)
    return np.stack([values[0] * row[0] + values[1] * row[1] + values[2] * row[2] for row in matrix])


@pytest.mark.parametrize(("field", "grid"), CASES)
@pytest.mark.parametrize(("step_index", "means"), [(-40, 40), (-3, 9), (-100, 5000)])
def test_signals_decode_to_the_specified_ones(field: LatentPyramid, grid: Grid, step_index: int, means: int) -> None:
    parameters, symbols = random_parameters(field), random_symbols(field, grid, 2, means)
    found = decoded(field, parameters, symbols, grid, step_index)
    for signal in range(2):
        own = [each[signal : signal + 1] for each in symbols]
        assert np.array_equal(found[signal].numpy(), specified(field, parameters, own, grid, step_index))


@pytest.mark.parametrize("means", [300, 10**7])
@pytest.mark.parametrize("step_index", [-55, -56, -57, -64, -65, -120])
def test_fine_signals_are_seen_magnified(step_index: int, means: int) -> None:
    """And as exactly where they are so large that they are clipped."""
    field, grid = replace(LINE, divided=1), Grid.open((21,))
    parameters, symbols = random_parameters(field), random_symbols(field, grid, 1, means)
    found = decoded(field, parameters, symbols, grid, step_index)
    assert np.array_equal(found[0].numpy(), specified(field, parameters, symbols, grid, step_index))


@pytest.mark.parametrize(
    ("grid", "divided", "step_index", "channels"),
    [
        (Grid.open((9, 14)), 0, -30, 3),
        (Grid.open((9, 14)), 3, -90, 3),
        (Grid((8, 12), (False, True)), 3, -30, 1),
        (Grid((8, 12), (False, True)), 0, -90, 3),
        (Grid.open((1, 3)), 3, -30, 3),
    ],
)
def test_signals_with_references_decode_to_the_specified_ones(
    grid: Grid, divided: int, step_index: int, channels: int
) -> None:
    field = replace(PLANE, out_features=channels, references=2, divided=divided)
    parameters = random_parameters(field)
    signals = [random_values(field, grid, seed=seed) for seed in (1, 2)]
    seeing = field.with_references(signals, grid)
    symbols = random_symbols(seeing, grid)
    found = decoded(seeing, parameters, symbols, grid, step_index)
    expected = specified(field, parameters, symbols, grid, step_index, signals)
    assert np.array_equal(found[0].numpy(), expected)


# What holds whatever the networks are


def with_references(grid: Grid, batch: int = 1, width: int = 4) -> LatentPyramid:
    field = replace(PLANE, references=2, divided=3, prediction=width)
    return field.with_references([random_values(field, grid, batch, seed) for seed in (1, 2)], grid)


@pytest.mark.parametrize(
    ("field", "grid", "step_index"),
    [
        *((field, grid, -20) for field, grid in CASES),
        (CASES[6][0], CASES[6][1], -90),
        (with_references(Grid.open((9, 14))), Grid.open((9, 14)), -20),
    ],
)
def test_no_prediction_depends_on_the_symbol_or_a_later_one(field: LatentPyramid, grid: Grid, step_index: int) -> None:
    """All symbols from one pass on are replaced: no prediction until then may change."""
    ready, symbols = field.ready(random_parameters(field), step_index), random_symbols(field, grid, means=400)

    def predictions(given: list[Tensor]) -> list[Tensor]:
        found: list[Tensor] = []

        def choose(place: Place, prediction: Tensor) -> Tensor:
            assert prediction.shape[1:] == (place.channels, *place.shape)
            found.append(prediction)
            return given[len(found)]

        field.decode(ready, given[0], grid, step_index, choose)
        return found

    before = predictions(symbols)
    influential, tried = 0, range(1, len(symbols), 1 + len(symbols) // 20)
    for number in tried:
        after = predictions([*symbols[:number], *(7 - each for each in symbols[number:])])
        same = [torch.equal(one, other) for one, other in zip(before, after, strict=True)]
        assert all(same[:number])
        influential += not all(same)
    if math.prod(grid.shape) > 10:
        assert influential >= sum(symbols[number].numel() > 0 for number in tried) / 4


@pytest.mark.parametrize(("field", "grid"), [*CASES, (with_references(Grid.open((9, 14)), 2), Grid.open((9, 14)))])
@pytest.mark.parametrize("step_index", [-90, -20])
def test_exact_symbols_reproduce_the_signal(field: LatentPyramid, grid: Grid, step_index: int) -> None:
    """Whatever the predictions are: a symbol is then what they miss."""
    values = random_values(field, grid, 2)
    if field.order.bare:  # what has no chroma can do without
        values = values[:, :1].expand(-1, 3, *grid.shape)
    step = quantization_step(step_index)
    means, *targets = (each / step for each in field.analyse(values, grid))
    left = iter(targets)
    found = field.decode(
        field.ready(random_parameters(field), step_index),
        means - field.predicted_means(step_index),
        grid,
        step_index,
        lambda place, prediction: next(left) - prediction,
    )
    torch.testing.assert_close(field.values(found, grid, step_index), values, atol=4e-6, rtol=0)


def test_signals_of_a_batch_do_not_mix() -> None:
    field, grid = replace(PLANE, divided=4), Grid.open((18, 15))
    parameters, symbols = random_parameters(field), random_symbols(field, grid, batch=3)
    together = decoded(field, parameters, symbols, grid, -30)
    for signal in range(3):
        own = [each[signal : signal + 1] for each in symbols]
        assert torch.equal(decoded(field, parameters, own, grid, -30)[0], together[signal])


def test_one_reference_is_seen_twice() -> None:
    field, grid = replace(PLANE, references=2), Grid.open((9, 14))
    parameters, symbols = random_parameters(field), random_symbols(field, grid)
    signal = random_values(field, grid)
    once, twice = (
        decoded(field.with_references(seen, grid), parameters, symbols, grid, -30) for seen in ([signal], [signal] * 2)
    )
    assert torch.equal(once, twice)


def test_at_first_a_signal_is_expected_to_be_its_reference() -> None:
    field, grid = replace(PLANE, references=2, divided=2), Grid.open((9, 14))
    seeing = field.with_references([random_values(field, grid)], grid)
    parameters = field.initialize(torch.Generator().manual_seed(0))
    nothing = [torch.zeros_like(each) for each in random_symbols(field, grid)]
    found = seeing.values(decoded(seeing, parameters, nothing, grid, -40), grid, -40)
    torch.testing.assert_close(found, random_values(field, grid), atol=2e-6, rtol=0)


# Training


@pytest.mark.parametrize("step_index", [-90, -20])
def test_every_parameter_is_learned_and_gradients_have_gradients(step_index: int) -> None:
    """The same numbers are computed with and without a graph."""
    grid = Grid.open((38, 44))
    field = with_references(grid, width=8)
    parameters = field.initialize(torch.Generator().manual_seed(2))
    for name, value in parameters.items():
        if "bias" not in name and not value.any():
            parameters[name] = 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(3))
    symbols = random_symbols(field, grid, means=60)
    plain = decoded(field, parameters, symbols, grid, step_index)
    learned = {name: value.requires_grad_() for name, value in parameters.items()}
    symbols = [each.requires_grad_() for each in symbols]
    found = decoded(field, learned, symbols, grid, step_index)
    assert torch.equal(found, plain)
    total = (found * quantization_step(step_index)).square().sum()
    gradients = torch.autograd.grad(total, [*symbols, *learned.values()], create_graph=True)
    for name, gradient in zip(learned, gradients[len(symbols) :], strict=True):
        assert bool(gradient.isfinite().all()) and bool(gradient.any()), name
    again = torch.autograd.grad(sum(each.square().sum() for each in gradients[: len(symbols)]), list(learned.values()))
    assert all(bool(each.isfinite().all()) for each in again)
    assert sum(bool(each.any()) for each in again) > len(again) / 2


def test_what_symbols_do_without_networks_is_the_inverse_transform() -> None:
    """Of the gradient, too: heads are zero at first, and the field is linear."""
    field, grid = replace(PLANE, divided=2), Grid((10, 12), (False, True))
    parameters = field.initialize(torch.Generator().manual_seed(0))
    symbols = [each.requires_grad_() for each in random_symbols(field, grid)]
    found = decoded(field, parameters, symbols, grid, -20)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(found, symbols, direction)
    moved = [each.detach() + 1 + number for number, each in enumerate(symbols)]
    difference = (decoded(field, parameters, moved, grid, -20) - found).detach() * direction
    expected = sum(((1 + number) * gradient).sum() for number, gradient in enumerate(gradients))
    torch.testing.assert_close(difference.sum(), expected, rtol=1e-4, atol=1e-2)


# Weights


@pytest.mark.parametrize(
    "layer",
    ["0.0.means", "0.0.part1", "0.0.hidden", "0.0.head", "0.0.reference", "0.0.share", "1.0.details", "0.1.details"],
)
@pytest.mark.parametrize("value", [100.0, -1e9])
def test_weights_with_inexact_sums_are_refused(layer: str, value: float) -> None:
    field = replace(PLANE, references=2, divided=1)
    parameters = random_parameters(field)
    field.ready(parameters, -20)
    parameters[f"prediction.3.4.{layer}.weight"].view(-1)[0] = value
    with pytest.raises(ValueError, match=rf"prediction\.3\.4\.{layer[:3]}.* too large for exact sums"):
        field.ready(parameters, -20)


def test_sums_of_means_and_details_are_one() -> None:
    """Each alone is just within the bound."""
    field = LatentPyramid(1, 1, (1,), prediction=1)
    parameters = {name: torch.zeros(shape) for name, shape in field.shapes().items()}
    parameters["prediction.1.2.1.0.means.weight"].view(-1)[:2] = torch.tensor([30.0, -30.0])
    parameters["prediction.1.2.1.0.details.weight"].view(-1)[0] = 42.0
    field.ready(parameters, 0)
    parameters["prediction.1.2.1.0.details.weight"].view(-1)[0] = 43.0
    with pytest.raises(ValueError, match=r"prediction\.1\.2\.1\.0 are"):
        field.ready(parameters, 0)


@pytest.mark.parametrize("name", ["means.bias", "part1.bias", "hidden.bias", "share.bias"])
def test_biases_with_inexact_sums_are_refused(name: str) -> None:
    field = replace(PLANE, references=2, divided=1)
    parameters = random_parameters(field)
    parameters[f"prediction.3.4.0.0.{name}"].view(-1)[0] = 1024.0
    with pytest.raises(ValueError, match=r"prediction\.3\.4\.0\.0.* too large for exact sums"):
        field.ready(parameters, -20)

"""Arithmetic in exact integers against Python's and NumPy's integers."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from latent_oracles import centred, convolved

from inrcodec.models import exact
from inrcodec.models.exact import (
    ACTIVATION_UNIT,
    LARGEST_ACTIVATION,
    LARGEST_INPUT,
    LARGEST_SUM,
    WEIGHT_UNIT,
    activation,
    centred_weights,
    check_input_sums,
    check_sums,
    conditioned_bias,
    convolution,
    convolution_within,
    in_layout,
    rounded_bias,
    rounded_down,
    rounded_weights,
)

finite = {"allow_nan": False, "allow_infinity": False, "width": 32}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Rounding


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-3000, 3000, **finite), min_size=1, max_size=20))
def test_the_rectifier_rounds_down_and_clips(sums: list[float]) -> None:
    found = activation(torch.tensor(sums).reshape(1, 1, -1))
    assert found.flatten().tolist() == [min(max(math.floor(value), 0), 2047) for value in sums]


@pytest.mark.parametrize(
    "within", [((0, 2), (0, 2)), ((1, 2), (1, 2)), ((0, 2), (1, 2)), ((0, 1), (0, 1)), ((0, 1), (1, 2))]
)
@pytest.mark.parametrize("shape", [(4, 6), (5, 3), (1, 2)])
def test_convolution_within_is_the_convolution_at_those_points(
    within: tuple[tuple[int, int], ...], shape: tuple[int, int]
) -> None:
    values = torch.randint(0, 2048, (2, 3, *shape), generator=generator()).float()
    weight = rounded_weights(torch.randn((4, 3, 3, 3), generator=generator(1)))
    bias = rounded_bias(torch.randn(4, generator=generator(2)))
    slices = [slice(start, None, step) for start, step in within]
    expected = convolution(values, weight, bias, padding=1)[(slice(None), slice(None), *slices)]
    assert torch.equal(convolution_within(values, weight, bias, slices), expected)


def test_the_gradient_of_the_rectifier_is_one_between_the_clips() -> None:
    sums = torch.tensor([-5.0, 0.5, 1.0, 7.9, 2046.5, 2047.0, 9000.0]).reshape(1, 1, -1).requires_grad_()
    (gradient,) = torch.autograd.grad(activation(sums).sum(), sums)
    assert gradient.flatten().tolist() == [0, 0, 1, 1, 1, 0, 0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e4, 1e4, **finite), min_size=1, max_size=20),
    st.sampled_from([0.125, 1.0, 37.5, 256.0]),
    st.sampled_from([0, 1280]),
)
def test_rounding_down(values: list[float], scale: float, largest: int) -> None:
    """The product is a single operation of float32; the gradient is that of the product, but beyond the clips."""
    products = [float(np.float32(value) * np.float32(scale)) for value in values]
    expected = [math.floor(product) for product in products]
    if largest:
        expected = [min(max(value, -largest), largest) for value in expected]
    tensor = torch.tensor(values)
    assert rounded_down(tensor, scale, largest).tolist() == expected
    assert tensor.tolist() == [float(np.float32(value)) for value in values]  # left as it was
    tensor.requires_grad_()
    found = rounded_down(tensor, scale, largest)
    assert found.tolist() == expected
    (gradient,) = torch.autograd.grad(found.sum(), tensor)
    assert gradient.tolist() == [scale * (not largest or abs(value) < largest) for value in expected]


# Weights


def test_weights_are_rounded_to_the_nearest_unit() -> None:
    eighths = torch.arange(-40, 41).float() / (8 * WEIGHT_UNIT)
    assert (rounded_weights(eighths) * WEIGHT_UNIT).tolist() == [round(n / 8) for n in range(-40, 41)]


weights = st.integers(0, 2**32 - 1).map(generator)


@settings(max_examples=40, deadline=None)
@given(weights, st.sampled_from([0.01, 0.3, 5.0]))
def test_training_computes_the_same_numbers(random: torch.Generator, scale: float) -> None:
    """Straight through: what is added to a weight to round it gets no gradient, and leaves not a bit of it."""
    weight = torch.randn((8, 6, 3, 3), generator=random) * scale
    table = torch.randn((5, 8), generator=random) * scale
    learned, learned_table = weight.clone().requires_grad_(), table.clone().requires_grad_()
    direction = torch.randn(weight.shape, generator=random)
    pairs = [
        (rounded_weights(learned), rounded_weights(weight)),
        (centred_weights(learned, 2), centred_weights(weight, 2)),
        (rounded_bias(learned_table), rounded_bias(table)),
        (conditioned_bias(learned_table, -2.625), conditioned_bias(table, -2.625)),
    ]
    assert all(torch.equal(one, other) for one, other in pairs)
    assert torch.equal(torch.autograd.grad(pairs[0][0], learned, direction)[0], direction)
    (gradient,) = torch.autograd.grad(pairs[1][0], learned, direction)
    apart = direction.unflatten(1, (3, 2))
    expected = apart - apart.mean((1, 3, 4), keepdim=True)
    torch.testing.assert_close(gradient, expected.flatten(1, 2))
    (gradient,) = torch.autograd.grad(pairs[2][0].sum(), learned_table)
    assert torch.equal(gradient, torch.full_like(table, ACTIVATION_UNIT))
    (gradient,) = torch.autograd.grad(pairs[3][0].sum(), learned_table)
    torch.testing.assert_close(gradient[:, 0], ACTIVATION_UNIT * torch.tensor([1, 1, 1, 3 * -2.625, 3 * 2.625**2]))


@settings(max_examples=30, deadline=None)
@given(weights, st.sampled_from([1, 2, 3]), st.integers(1, 3), st.sampled_from([(), (3,), (3, 3)]), st.booleans())
def test_centred_weights_sum_to_zero(
    random: torch.Generator, groups: int, phases: int, taps: tuple[int, ...], ties: bool
) -> None:
    """Every input channel apart, whose phases are `groups` apart."""
    weight = torch.randn((3, groups * phases, *taps), generator=random)
    if ties:  # many are as far from an integer as others
        weight = torch.round(weight * 16) / (4 * WEIGHT_UNIT)
    found = (centred_weights(weight, groups) * WEIGHT_UNIT).long()
    assert bool((found.unflatten(1, (phases, groups)).transpose(1, 2).flatten(2).sum(2) == 0).all())
    for channel in range(groups):
        for out in range(3):
            expected = centred(weight[out, channel::groups].flatten().tolist())
            assert found[out, channel::groups].flatten().tolist() == expected
    mean = weight.unflatten(1, (phases, groups)).transpose(1, 2).flatten(2).mean(2)
    away = found / WEIGHT_UNIT - (weight - mean.repeat(1, phases).reshape(3, -1, *[1] * len(taps)))
    assert float(away.abs().max()) <= 1.001 / WEIGHT_UNIT


def test_centring_does_not_depend_on_the_order_of_summation() -> None:
    """As machines sum in different orders; a float32 mean would."""
    weight = torch.randn((64, 8, 3, 3), generator=generator()) * 3
    flipped = centred_weights(weight.flip(1).flip(2), 2)
    found = centred_weights(weight, 2)
    # Both channels change places, and those with the same distance, which the order decides between, are few.
    assert float((flipped.flip(1).flip(2) != found).float().mean()) < 1e-4


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-100, 100, **finite), min_size=3, max_size=6),
    st.integers(-120, 24).map(lambda index: index / 8 + 3),
)
def test_conditioned_biases_are_parabolas_in_integers(table: list[float], condition: float) -> None:
    units = [round(Fraction(value) * ACTIVATION_UNIT * WEIGHT_UNIT) for value in np.float32(table).tolist()]
    eighths = int(8 * condition)
    expected = [(64 * own + 8 * eighths * units[-2] + eighths**2 * units[-1]) // 64 for own in units[:-2]]
    found = conditioned_bias(torch.tensor(table)[:, None], condition) * WEIGHT_UNIT
    assert found.flatten().double().tolist() == [float(np.float32(value)) for value in expected]


# Sums


def largest_weights(out: int, inputs: int, taps: Sequence[int], seed: int = 0) -> np.ndarray:
    """Return weights in units, of either sign, for which sums of the largest activations are almost at the bound."""
    random = np.random.default_rng(seed)
    budget = (LARGEST_SUM - 1) // LARGEST_ACTIVATION
    count = inputs * math.prod(taps)
    magnitudes = random.multinomial(budget, random.dirichlet(np.ones(count)), out)
    signs = random.choice([-1, 1], magnitudes.shape)
    signs[0] = 1  # and of one sign in a row
    return (magnitudes * signs).reshape(out, inputs, *taps)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def onednn(enabled: bool) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch itself sets what it warns of
        with torch.backends.mkldnn.flags(enabled=enabled):
            yield


SHAPES = [
    # batch, inputs, outputs, grid, taps, stride
    (1, 4, 8, (41,), (3,), 1),
    (2, 33, 5, (30,), (3,), 2),
    (1, 32, 32, (37, 50), (3, 3), 1),
    (17, 7, 16, (11, 10), (3, 3), 1),
    (16, 64, 8, (9, 9), (3, 3), 2),
    (1, 32, 32, (23, 40), (1, 1), 1),
    (3, 1, 8, (12, 14), (3, 3), 1),
    (1, 6, 9, (2, 1), (3, 3), 1),
    (2, 8, 8, (6, 7, 9), (3, 3, 3), 1),
    (16, 3, 4, (4, 5, 6), (3, 3, 3), 2),
]


@pytest.mark.parametrize(("batch", "inputs", "outputs", "grid", "taps", "stride"), SHAPES)
def test_sums_at_the_bound_are_exact(
    batch: int, inputs: int, outputs: int, grid: tuple[int, ...], taps: tuple[int, ...], stride: int
) -> None:
    """Whatever library computes them, in whatever order."""
    random = np.random.default_rng(3)
    values = random.integers(0, LARGEST_ACTIVATION, (batch, inputs, *grid), endpoint=True)
    values[random.random(values.shape) < 0.5] = LARGEST_ACTIVATION
    values[(0, slice(None), *[slice(0, 4)] * len(grid))] = LARGEST_ACTIVATION
    weight = largest_weights(outputs, inputs, taps)
    padding = [size // 2 for size in taps]
    expected = torch.from_numpy(np.stack([convolved(signal, weight, max(padding), stride) for signal in values]))
    if min(grid) > 2:
        assert int(expected.max()) > 0.999 * LARGEST_SUM
    given_values = torch.from_numpy(values).float()
    given_weight = torch.from_numpy(weight).float() / WEIGHT_UNIT
    check_sums("layer", given_weight)
    flat = given_weight.flatten(1) if math.prod(taps) == 1 else given_weight
    for laid_out in (in_layout, torch.Tensor.contiguous):
        arguments = laid_out(given_values), laid_out(flat)
        for count in (1, 2):
            for mkldnn in (True, False):
                with threads(count), onednn(mkldnn):
                    found = convolution(*arguments, padding=tuple(padding), stride=stride)
                    assert torch.equal((found * WEIGHT_UNIT).long(), expected)
        with torch.enable_grad():  # other kernels may run where there are gradients
            found = convolution(arguments[0], arguments[1].requires_grad_(), padding=tuple(padding), stride=stride)
        assert torch.equal((found * WEIGHT_UNIT).long(), expected)
    by_products = exact._by_products(given_values, given_weight, None, tuple(padding), stride)
    assert torch.equal((by_products * WEIGHT_UNIT).long(), expected)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, (0, 1, 1)])
def test_biases_are_added_to_sums(dimensions: int, padding: int | tuple[int, ...]) -> None:
    """On all devices alike; paddings can differ from axis to axis."""
    paddings = (padding,) * dimensions if isinstance(padding, int) else padding[:dimensions]
    random = np.random.default_rng(5)
    values = random.integers(0, 2048, (2, 3, *(5, 6, 4)[:dimensions]))
    weight, bias = random.integers(-20, 21, (4, 3, *[3] * dimensions)), random.integers(-9999, 10000, 4)
    values_around = np.pad(values, [(0, 0), (0, 0), *[(size, size) for size in paddings]])
    expected = np.stack([convolved(signal, weight, 0) for signal in values_around])
    expected += bias.reshape(-1, *[1] * dimensions)
    arguments = [torch.from_numpy(each).float() / unit for each, unit in ((values, 1), (weight, 128), (bias, 128))]
    for found in (
        convolution(*arguments, padding=padding if isinstance(padding, int) else paddings),
        exact._by_products(*arguments, paddings, 1),
    ):
        assert (found * WEIGHT_UNIT).long().tolist() == expected.tolist()


# The bound


@st.composite
def layers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Draw weights [2, 3, 2] and biases [2, 2] in units, with sums near the bound, and the largest input."""
    largest = draw(st.sampled_from([LARGEST_ACTIVATION, 2 * LARGEST_ACTIVATION, 1, 1000]))
    share = draw(st.lists(st.integers(-100, 100), min_size=6, max_size=6).filter(any))
    # The sum is rarely exactly at the bound, so half of the cases have what is left as bias.
    scale = LARGEST_SUM * draw(st.sampled_from([0.4, 0.99, 1.0, 1.01])) / largest / sum(map(abs, share))
    weight = np.array([[int(part * scale) for part in share], [1, 0, 0, 0, 0, 0]]).reshape(2, 3, 2)
    left = LARGEST_SUM - largest * int(np.abs(weight[0]).sum())
    bias = np.zeros((2, 2), np.int64)
    if abs(left) < LARGEST_SUM:
        bias[draw(st.integers(0, 1)), 0] = draw(st.sampled_from([-1, 1])) * (left + draw(st.integers(-1, 1)))
    return weight, bias, largest


@settings(max_examples=150, deadline=None)
@given(layers())
def test_the_bound_is_that_of_the_worst_inputs(layer: tuple[np.ndarray, np.ndarray, int]) -> None:
    weight, bias, largest = layer
    worst = int((np.abs(weight).reshape(2, -1).sum(1) * largest + np.abs(bias).max(0)).max())
    tensors = torch.from_numpy(weight).double() / WEIGHT_UNIT, torch.from_numpy(bias).double() / WEIGHT_UNIT
    # Weights and biases in float32 would be rounded here; those that are allowed fit.
    if worst < LARGEST_SUM:
        check_sums("layer", *tensors, largest)
        assert all(torch.equal(tensor.float().double(), tensor) for tensor in tensors)
    else:
        with pytest.raises(ValueError, match=r"weights of layer are .* too large"):
            check_sums("layer", *tensors, largest)


def test_inputs_in_finer_units_have_a_bound_of_their_own() -> None:
    half_units = LARGEST_SUM // LARGEST_INPUT
    weight = torch.tensor([[half_units / (2 * WEIGHT_UNIT)]])
    check_input_sums("layer", weight)
    with pytest.raises(ValueError, match="layer"):
        check_input_sums("layer", weight + 1 / (2 * WEIGHT_UNIT))
    with pytest.raises(ValueError, match="layer"):
        check_input_sums("layer", weight, torch.tensor([4.0]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, -1e30])
@pytest.mark.parametrize("where", ["weight", "bias"])
def test_weights_that_are_no_numbers_are_refused(value: float, where: str) -> None:
    weight, bias = torch.ones(2, 3, 3), torch.zeros(4, 2)
    (weight if where == "weight" else bias)[1, 1] = value
    with pytest.raises(ValueError, match="layer"):
        check_sums("layer", rounded_weights(weight), rounded_bias(bias))
    if where == "weight" and math.isnan(value):
        return  # centring makes an integer of it, and files with one are refused as they are read
    with pytest.raises(ValueError, match="layer"):
        check_input_sums("layer", centred_weights(weight, 1), conditioned_bias(bias, 3.0))

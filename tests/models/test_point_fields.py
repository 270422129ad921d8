"""Neural fields against plain networks written out for one signal at a time."""

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from inrcodec.models import FIELDS, FourierFeatureNetwork, NeRV, Parameters, PointField, Siren

SIREN = Siren(2, 3, width=7, depth=4, w0=20.0)
FFN = FourierFeatureNetwork(3, 2, width=6, depth=3, frequencies=5, scale=3.0)
NERV = NeRV(3, 2, octaves=2, stem=5, base=(2, 3), channels=(4, 3, 5), upscale=2)
TINY = [SIREN, FFN, NERV]
NAMES = [field.name for field in TINY]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(field: PointField, size: int) -> Parameters:
    """Return parameters of `size` different signals, float64."""
    first = field.initialize(generator())
    others = [first] + [field.initialize(generator(1 + i)) for i in range(size - 1)]
    # NeRV's biases start at zero, which would hide a bias that is forgotten.
    return {
        name: (
            first[name]
            if name in field.constants
            else torch.stack(
                [signal[name] + 0.1 * torch.randn(value.shape, generator=generator(9)) for signal in others]
            )
        ).double()
        for name, value in first.items()
    }


def one(field: PointField, parameters: Parameters, signal: int) -> Parameters:
    """Return a signal's own parameters, without batch dimension."""
    return {name: value if name in field.constants else value[signal] for name, value in parameters.items()}


def points(field: PointField, signals: int, count: int = 11) -> Tensor:
    return torch.rand((signals, count, field.in_features), generator=generator(5)).double() * 2 - 1


# The perceptrons against loops


def siren_value(field: Siren, theta: Parameters, x: Tensor) -> Tensor:
    """Return the value at one point of one signal, [d] -> [C]."""
    hidden = x
    for layer in range(field.depth - 1):
        hidden = torch.sin(field.w0 * (theta[f"layer{layer}.weight"] @ hidden + theta[f"layer{layer}.bias"]))
    return theta["head.weight"] @ hidden + theta["head.bias"] + 0.5


def ffn_value(field: FourierFeatureNetwork, theta: Parameters, x: Tensor) -> Tensor:
    phase = 2 * math.pi * (theta["frequencies"] @ x)
    hidden = torch.cat([phase.cos(), phase.sin()])
    for layer in range(field.depth - 1):
        hidden = (theta[f"layer{layer}.weight"] @ hidden + theta[f"layer{layer}.bias"]).clamp_min(0)
    return theta["head.weight"] @ hidden + theta["head.bias"] + 0.5


def test_siren_is_a_sine_network() -> None:
    parameters, coordinates = batch(SIREN, 3), points(SIREN, 3)
    expected = torch.stack(
        [torch.stack([siren_value(SIREN, one(SIREN, parameters, i), x) for x in coordinates[i]]) for i in range(3)]
    )
    torch.testing.assert_close(SIREN(parameters, coordinates), expected)


def test_ffn_is_a_relu_network_over_sinusoids() -> None:
    parameters, coordinates = batch(FFN, 3), points(FFN, 3)
    expected = torch.stack(
        [torch.stack([ffn_value(FFN, one(FFN, parameters, i), x) for x in coordinates[i]]) for i in range(3)]
    )
    torch.testing.assert_close(FFN(parameters, coordinates), expected)


# NeRV against convolutions


def nerv_frame(field: NeRV, theta: Parameters, time: float) -> Tensor:
    """Return the frame of one signal at one time by a network of plain layers, [height, width, C]."""
    waves = [trigonometry(math.pi * 2**i * time) for trigonometry in (math.sin, math.cos) for i in range(field.octaves)]
    hidden = torch.tensor(waves, dtype=torch.float64)
    for layer in ("stem0", "stem1"):
        hidden = F.gelu(F.linear(hidden, theta[f"{layer}.weight"], theta[f"{layer}.bias"]))
    maps = hidden.reshape(1, field.channels[0], *field.base)
    for block in range(len(field.channels) - 1):
        maps = F.conv2d(maps, theta[f"block{block}.weight"], theta[f"block{block}.bias"], padding=1)
        maps = F.gelu(F.pixel_shuffle(maps, field.upscale))
    head = F.conv2d(maps, theta["head.weight"][:, :, None, None], theta["head.bias"])
    return torch.sigmoid(head)[0].permute(1, 2, 0)


def cell_centres(count: int) -> Tensor:
    return (torch.arange(count, dtype=torch.float64) + 0.5) * 2 / count - 1


@pytest.mark.parametrize("field", [NERV, NeRV(3, 1, octaves=3, stem=4, base=(3, 2), channels=(3, 2), upscale=3)])
def test_nerv_at_its_own_resolution_is_a_convolutional_network(field: NeRV) -> None:
    parameters, times = batch(field, 2), [-0.75, -0.1, 0.6]
    factor = field.upscale ** (len(field.channels) - 1)
    rows, columns = (cell_centres(size * factor) for size in field.base)
    grid = torch.cartesian_prod(torch.tensor(times, dtype=torch.float64), rows, columns)
    expected = torch.stack(
        [torch.stack([nerv_frame(field, one(field, parameters, i), time) for time in times]) for i in range(2)]
    )
    values = field(parameters, grid[None]).reshape(expected.shape)
    # The frequencies of the encoding are float32.
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-6)


def test_nerv_between_its_samples_is_bilinear_in_the_features() -> None:
    parameters = batch(NERV, 1)
    rows, columns = cell_centres(8), cell_centres(12)
    corners = torch.cartesian_prod(torch.tensor([0.3]).double(), rows[2:4], columns[6:8])[None]
    between = corners[:, 0] + torch.tensor([0, 0.25, 0.75]).double() * (corners[:, 3] - corners[:, 0])
    upper_left, upper_right, lower_left, lower_right = NERV.features(parameters, corners)[0]
    upper, lower = 0.25 * upper_left + 0.75 * upper_right, 0.25 * lower_left + 0.75 * lower_right
    features = NERV.features(parameters, between[None])[0, 0]
    torch.testing.assert_close(features, 0.75 * upper + 0.25 * lower)


def test_nerv_is_constant_beyond_its_outermost_samples() -> None:
    parameters = batch(NERV, 1)
    corner = torch.tensor([[[0.0, -1.0, 1.0], [0.0, cell_centres(8)[0], cell_centres(12)[-1]]]]).double()
    values = NERV(parameters, corner)[0]
    torch.testing.assert_close(values[0], values[1])


def test_nerv_needs_time_and_two_axes() -> None:
    with pytest.raises(ValueError, match="in_features = 2"):
        NeRV(2, 3)


# What all fields promise


@pytest.mark.parametrize("field", TINY, ids=NAMES)
def test_a_batch_is_its_signals_one_by_one(field: PointField) -> None:
    parameters, coordinates = batch(field, 3), points(field, 3)
    together = field(parameters, coordinates)
    assert together.shape == (3, 11, field.out_features)
    for i in range(3):
        alone = {name: value if name in field.constants else value[i : i + 1] for name, value in parameters.items()}
        torch.testing.assert_close(field(alone, coordinates[i : i + 1])[0], together[i])


@pytest.mark.parametrize("field", TINY, ids=NAMES)
def test_shared_coordinates_are_repeated_for_every_signal(field: PointField) -> None:
    parameters, coordinates = batch(field, 3), points(field, 1)
    torch.testing.assert_close(field(parameters, coordinates), field(parameters, coordinates.repeat(3, 1, 1)))


@pytest.mark.parametrize("field", TINY, ids=NAMES)
def test_points_do_not_depend_on_their_company(field: PointField) -> None:
    parameters, coordinates = batch(field, 2), points(field, 2)
    shuffle = torch.randperm(11, generator=generator(3))
    together = field(parameters, coordinates)
    torch.testing.assert_close(field(parameters, coordinates[:, shuffle]), together[:, shuffle])
    torch.testing.assert_close(field(parameters, coordinates[:, 4:5]), together[:, 4:5])


@pytest.mark.parametrize("field", TINY, ids=NAMES)
def test_values_are_a_linear_readout_of_the_features(field: PointField) -> None:
    parameters, coordinates = batch(field, 2), points(field, 2)
    features = field.features(parameters, coordinates)
    readout = torch.einsum("bcf,bnf->bnc", parameters["head.weight"], features) + parameters["head.bias"][:, None]
    torch.testing.assert_close(field.preactivation(parameters, features), readout)
    torch.testing.assert_close(field(parameters, coordinates), field.activation(readout))


@pytest.mark.parametrize("field", TINY, ids=NAMES)
def test_slope_is_the_derivative_of_the_activation(field: PointField) -> None:
    values = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(field.activation(values).sum(), values)
    torch.testing.assert_close(field.activation_slope(values), slope)


@pytest.mark.parametrize(
    "field",
    [
        Siren(2, 1, width=3, depth=3, w0=2.0),
        FourierFeatureNetwork(2, 1, width=3, depth=3, frequencies=2, scale=0.5),
        NeRV(3, 1, octaves=1, stem=3, base=(2, 2), channels=(2, 2)),
    ],
    ids=NAMES,
)
def test_second_derivatives(field: PointField) -> None:
    parameters, coordinates = batch(field, 2), points(field, 2, 4)
    names = [name for name in parameters if name not in field.constants]

    def values(*tensors: Tensor) -> Tensor:
        return field({**parameters, **dict(zip(names, tensors, strict=True))}, coordinates)

    inputs = [parameters[name].clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(values, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(values, inputs, fast_mode=True)


# Initialization


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - {"spectrum"}))  # which shares nothing
def test_default_initialization_has_the_declared_shapes_in_order(name: str) -> None:
    field = FIELDS[name](3, 2)
    theta = field.initialize(generator())
    assert {key: tuple(value.shape) for key, value in theta.items()} == field.shapes()
    assert list(theta) == list(field.shapes())
    assert {value.dtype for value in theta.values()} == {torch.float32}
    if isinstance(field, PointField):
        assert theta["head.weight"].shape[0] == len(theta["head.bias"]) == 2


@pytest.mark.parametrize("field", TINY, ids=NAMES)
def test_all_but_the_constants_is_adapted(field: PointField) -> None:
    assert field.constants <= set(field.shapes())
    assert set(field.adapted_shapes()) == set(field.shapes()) - field.constants
    assert field.step_size_shapes() == field.adapted_shapes()


@pytest.mark.parametrize("field", TINY, ids=NAMES)
def test_initialization_follows_the_generator(field: PointField) -> None:
    first, same, other = (field.initialize(generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def assert_uniform(values: Tensor, bound: float) -> None:
    """Check that values are of U(-bound, bound), as far as their number allows to tell."""
    assert values.abs().max() <= bound
    assert values.abs().max() > bound * (1 - 10 / values.numel())
    assert abs(values.mean()) < 6 * bound / math.sqrt(3 * values.numel())


@pytest.mark.parametrize(("d", "w0"), [(1, 30.0), (2, 30.0), (3, 50.0)])
def test_siren_initialization(d: int, w0: float) -> None:
    """Sitzmann et al. 2020, section 3.2: first layer U(-1/d, 1/d), the others U(+-sqrt(6/h)/w0)."""
    theta = Siren(d, 3, width=64, depth=4, w0=w0).initialize(generator())
    for layer in ("layer0", "layer1", "layer2", "head"):
        bound = 1 / d if layer == "layer0" else math.sqrt(6 / 64) / w0
        assert_uniform(torch.cat([theta[f"{layer}.weight"].flatten(), theta[f"{layer}.bias"]]), bound)


def test_siren_keeps_the_spread_of_its_activations() -> None:
    """What that initialization is for: sines of about unit-variance phases in every hidden layer."""
    field = Siren(2, 1, width=256, depth=5)
    theta = field.initialize(generator())
    hidden = torch.rand((500, 2), generator=generator(1)) * 2 - 1
    for layer in range(4):
        phase = field.w0 * (hidden @ theta[f"layer{layer}.weight"].T + theta[f"layer{layer}.bias"])
        hidden = phase.sin()
        assert layer == 0 or 0.8 < float(phase.std()) < 1.25


def test_fourier_feature_initialization() -> None:
    field = FourierFeatureNetwork(2, 3, width=128, depth=3, frequencies=2000, scale=10.0)
    theta = field.initialize(generator())
    assert float(theta["frequencies"].std()) == pytest.approx(10, rel=0.05)
    assert abs(float(theta["frequencies"].mean())) < 0.5
    # He et al. 2015: the variance of a ReLU layer's weights is 2 / fan-in.
    assert float(theta["layer0.weight"].var()) == pytest.approx(2 / 4000, rel=0.05)
    assert float(theta["layer1.weight"].var()) == pytest.approx(2 / 128, rel=0.05)


def test_nerv_initialization_keeps_variances() -> None:
    theta = NeRV(3, 3, channels=(64, 32, 32)).initialize(generator())
    assert float(theta["block0.weight"].var()) == pytest.approx(1 / (64 * 9), rel=0.05)
    assert float(theta["stem1.weight"].var()) == pytest.approx(1 / 128, rel=0.05)
    assert all(not value.any() for name, value in theta.items() if name.endswith(".bias"))

"""Bounds: what they allow, their scales, and what is encoded within them."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inrcodec
from inrcodec.bounds import Bound, ShareBound, SliceBounds
from inrcodec.errors import UsageError
from inrcodec.options import EncodeOptions, Tolerance
from inrcodec.powers import exp2, log2
from inrcodec.signals.signal import Axis, Signal

POSITIVE = st.floats(5e-324, 1e308)
ROUNDING = 1e-12
"""Of numbers on a scale."""

SHARES = st.sampled_from([0.5, 0.1, 1e-2, 1e-4, 1e-8])


@given(POSITIVE)
def test_logarithms(value: float) -> None:
    with mpmath.workprec(200):
        exact = mpmath.log(mpmath.mpf(value), 2)
        assert abs(float(log2(np.array(value))) - exact) <= 2**-50 * max(1, abs(exact))


@given(st.floats(-1100, 1023.9))
def test_powers(value: float) -> None:
    with mpmath.workprec(200):
        exact = mpmath.power(2, mpmath.mpf(value))
        assert abs(float(exp2(np.array(value))) - exact) <= max(exact * 2**-50, mpmath.mpf(5e-324))


def test_powers_that_are_no_numbers() -> None:
    np.testing.assert_array_equal(exp2(np.array([-1e9, -1080, 0, 1024, 1e9])), [0, 0, 1, np.inf, np.inf])


@pytest.mark.parametrize("error", [0.0, -1.0, math.nan, math.inf, 1e-302])
def test_errors_that_are_no_bounds(error: float) -> None:
    with pytest.raises(ValueError, match="a bound"):
        Bound(error)
    with pytest.raises(ValueError, match=r"a bound|a share"):
        ShareBound(error, 1.0)
    with pytest.raises(ValueError, match="a share"):
        ShareBound(0.1, error)


@pytest.mark.parametrize("share", [1.0, 2.0, 1e-10])
def test_errors_that_are_no_shares(share: float) -> None:
    with pytest.raises(ValueError, match="a share"):
        ShareBound(share, 1.0)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("knee", [2.0**-1000, 1.0, 2.0**1000])
def test_no_values_are_beyond_the_scale(knee: float, linear: bool) -> None:
    """Nor does any warn: files of strangers may have any values."""
    values = np.array([0.0, 5e-324, -1e-300, 1.0, -1e300, np.finfo(np.float64).max])
    bound = ShareBound(0.5, knee, linear)
    scaled = bound.scaled(values, 0)
    assert np.isfinite(scaled).all() and (np.diff(scaled[np.argsort(values)]) >= 0).all()
    assert not np.isnan(bound.unscaled(np.array([-1e300, -1.0, 0.0, 1e300]), 0, np.dtype(np.float32))).any()


@settings(max_examples=300)
@given(SHARES, st.floats(1e-30, 1e3), st.floats(1, 1e40), st.floats(-1, 1), st.booleans(), st.booleans())
def test_what_is_within_a_bound_on_the_scale_is_within_a_share(
    share: float, knee: float, above: float, off: float, negative: bool, linear: bool
) -> None:
    """The proof in docs/FORMAT.md, tried out: values of at least the knee."""
    bound = ShareBound(share, knee, linear)
    value = np.array([-knee * above if negative else knee * above])
    other = bound.unscaled(bound.scaled(value, 0) + off * bound.on_scale * (1 - 1e-6), 0, value.dtype)
    error = abs(float(other[0]) - float(value[0]))
    assert error <= share * max(abs(float(value[0])), knee) * (1 + 1e-9 + ROUNDING / share)
    assert bound.worst(value, other - value, 0) <= share * (1 + 1e-9) + ROUNDING
    if not linear:
        assert math.copysign(1, other[0]) == math.copysign(1, value[0]) and other[0]


@given(SHARES, st.floats(-1, 1), st.floats(-1, 1))
def test_an_error_beside_a_share_is_allowed_below_the_knee(share: float, place: float, off: float) -> None:
    bound = ShareBound(share, 4.0, linear=True)
    value = np.array([4.0 * place])
    other = bound.unscaled(bound.scaled(value, 0) + off * bound.on_scale, 0, value.dtype)
    assert abs(float(other[0]) - float(value[0])) <= 4.0 * (share * (1 + 1e-9) + ROUNDING)


@given(SHARES, st.floats(-1, 1))
def test_zeros_are_exact(share: float, off: float) -> None:
    bound = ShareBound(share, 1e-6)
    assert bound.scaled(np.array([0.0]), 0) == 0
    assert bound.unscaled(np.array([off * bound.on_scale]), 0, np.dtype(np.float32)) == 0


@pytest.mark.parametrize("bound", [ShareBound(0.01, 1e-3), ShareBound(0.01, 0.5, linear=True)])
def test_the_scale_there_and_back(bound: ShareBound) -> None:
    random = np.random.default_rng(0)
    values = random.choice([-1, 1], 1000) * 10.0 ** random.uniform(-3, 6, 1000)
    scaled = bound.scaled(values, 0)
    assert (np.diff(scaled[np.argsort(values)]) >= 0).all()
    np.testing.assert_allclose(bound.unscaled(scaled, 0, values.dtype), values, rtol=1e-12)
    integers = np.arange(-200, 200, dtype=np.int16)
    np.testing.assert_array_equal(bound.unscaled(bound.scaled(integers, 0), 0, integers.dtype), integers)
    huge = bound.unscaled(np.array([1e9, -1e9]), 0, np.dtype(np.int16))
    assert huge.tolist() == [32767, -32768]


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=9))
def test_bounds_of_slices_are_the_largest_below(errors: list[float]) -> None:
    found = SliceBounds.within(np.array(errors)).errors
    assert (found <= np.array(errors) * (1 + 1e-12)).all()
    assert (found >= np.array(errors) / 2 ** (1 / 16) * (1 - 1e-12)).all()


def test_what_is_worst() -> None:
    values, errors = np.array([0.0, 2.0, -4.0]), np.array([0.0, 0.1, -0.1])
    assert Bound(0.1).worst(values, errors, 0) == 0.1
    assert ShareBound(0.1, 1.0).worst(values, errors, 0) == pytest.approx(0.05)
    assert ShareBound(0.1, 1.0).worst(values, np.array([1e-30, 0, 0]), 0) == math.inf
    assert ShareBound(0.1, 8.0, linear=True).worst(values, np.array([0.4, 0, 0]), 0) == pytest.approx(0.05)
    assert SliceBounds(0.5, (0, 16)).worst(values, errors, 1) == pytest.approx(0.1 / 0.25)
    assert math.isnan(Bound(0.1).worst(values, np.array([0, np.nan, 0]), 0))


def fields(values: np.ndarray) -> Signal:
    low, high = float(values.min()), float(values.max())
    axes = (Axis(len(values), "slice"), Axis(values.shape[1], "node"), Axis(values.shape[2], "node"))
    return Signal("climate", values[..., None], axes, (low, high), name="q")


def decoded(signal: Signal, **options: object) -> np.ndarray:
    """Return the values of a file that `inrcodec verify` would find within its bound."""
    climate = inrcodec.default_initialization("climate")
    settings = EncodeOptions(effort="instant", device="cpu", **options)  # type: ignore[arg-type]
    data, said = inrcodec.encode([signal], [climate], settings)
    (again,) = inrcodec.decode(data, device="cpu")
    np.testing.assert_array_equal(again.values, said[0].values)
    assert again.dtype == signal.dtype and again.value_range == signal.value_range
    return again.values[..., 0]


def gusts(dtype: str) -> np.ndarray:
    y, x = np.mgrid[:24, :40] / 7
    waves = np.stack([np.sin(x + step / 3) * np.cos(y) for step in range(3)])
    values = np.where(np.abs(waves) < 0.1, 0, np.sign(waves) * np.exp(6 * np.abs(waves)))
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2"])
@pytest.mark.parametrize("share", [0.2, 1e-3])
def test_a_share_of_each_value(dtype: str, share: float) -> None:
    values = gusts(dtype)
    again = decoded(fields(values), max_error_rel=share)
    assert (np.abs(again.astype(float) - values) <= share * np.abs(values.astype(float))).all()
    np.testing.assert_array_equal(np.sign(again), np.sign(values))
    assert dtype == "i2" or (again != values).any()


def test_a_share_or_an_error() -> None:
    values = gusts("f4")
    again = decoded(fields(values), max_error_rel=0.01, max_error=0.5)
    errors = np.abs(again.astype(float) - values)
    assert (errors <= np.maximum(0.01 * np.abs(values.astype(float)), 0.5)).all()
    assert (errors > 0.01 * np.abs(values)).any()


@pytest.mark.parametrize("dtype", ["f4", "i4"])
def test_a_share_of_the_range_of_each_slice(dtype: str) -> None:
    values = (gusts("f8") * np.array([1.0, 30.0, 0.0])[:, None, None]).astype(dtype)
    again = decoded(fields(values), max_error="5%")
    errors = np.abs(again.astype(float) - values).max((1, 2))
    ranges = np.ptp(values.astype(float), axis=(1, 2))
    assert (errors[:2] <= 0.05 * ranges[:2]).all() and errors[1] > 0.05 * ranges[0]
    assert errors[2] <= 0.05 * ranges.max() / 2**16


def test_percent_of_a_picture_is_of_all_its_values() -> None:
    picture = inrcodec.Signal("image", np.zeros((8, 9, 3), np.uint8), (Axis(8), Axis(9)), (0.0, 255.0))
    data, _ = inrcodec.encode(
        [picture], [inrcodec.default_initialization("image")], EncodeOptions(effort="instant", max_error="1%")
    )
    from inrcodec.coding.container import read_container

    assert read_container(data).streams[0].header.bound == Bound(0.01 * 255)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_error": "0%"}, "positive number up to 100%"),
        ({"max_error": "101%"}, "positive number up to 100%"),
        ({"max_error": "much"}, "'much' is no number"),
        ({"max_error_rel": 1.0}, "between 1e-9 and 1"),
        ({"max_error_rel": 0.0}, "between 1e-9 and 1"),
        ({"max_error_rel": {"q": math.nan}}, "between 1e-9 and 1"),
        ({"max_error": "1%", "max_error_rel": 0.1}, "do not go together"),
        ({"max_error_rel": 0.1, "psnr": 30.0}, "no choice"),
        ({"max_error_rel": 0.1, "quality": 30.0}, "no choice"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EncodeOptions(**options)  # type: ignore[arg-type]


def test_tolerances_by_name() -> None:
    q, t = fields(gusts("f4")), inrcodec.Signal("climate", np.zeros((1, 2, 2, 1), "f4"), q_axes(), (0.0, 1.0), "t")
    options = EncodeOptions(max_error={"t": 0.1, "q": "1%"})
    assert options.tolerances([q, t]) == [Tolerance(0.01, "range"), Tolerance(0.1)]
    options = EncodeOptions(max_error=0.5, max_error_rel={"q": 0.1})
    assert options.tolerances([q, t]) == [Tolerance(0.1, "value", 0.5), Tolerance(0.5)]
    with pytest.raises(UsageError, match="for 'z', but the signals are called 'q', 't'"):
        EncodeOptions(max_error_rel={"z": 0.1}).tolerances([q, t])


def q_axes() -> tuple[Axis, ...]:
    return (Axis(1, "slice"), Axis(2, "node"), Axis(2, "node"))


def test_a_share_finer_than_the_type() -> None:
    with pytest.raises(UsageError, match="float32 values, which are no nearer"):
        decoded(fields(gusts("f4")), max_error_rel=1e-9)

"""What the rivals of climate fields are told, and that bounds hold whatever a compressor claims."""

import importlib.util
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import rivals_climate
from hypothesis import given
from hypothesis import strategies as st
from rivals import Rival, code, rivals_of

from inrcodec.signals import Axis, Signal


def fields(shape: tuple[int, ...], seed: int = 0, missing: np.ndarray | None = None) -> Signal:
    """Make smooth values around 280, [S, H, W, 1]."""
    values = np.random.default_rng(seed).normal(size=shape).cumsum(1).cumsum(2).astype(np.float32)[..., None] + 280
    present = values if missing is None else values[~missing]
    limits = float(present.min()), float(present.max())
    axes = (Axis(shape[0], kind="slice"), *(Axis(size, kind="node") for size in shape[1:]))
    return Signal("climate", values, axes, limits, missing=missing)


def quantizer(claim: float, told: Sequence[float]) -> rivals_climate.Compressor:
    """Make a compressor that is `claim` times as far off as it was told, and is told these shares of a bound."""

    def encode(values: np.ndarray, tolerance: float) -> bytes:
        codes = np.floor(values.astype(np.float64) / (claim * tolerance)).astype("<i8")
        return np.float64(claim * tolerance).tobytes() + codes.tobytes()

    def decode(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        return np.frombuffer(data[8:], "<i8").reshape(shape) * np.frombuffer(data[:8])[0]

    return rivals_climate.Compressor("zlib", lambda _, bound: [[share * bound for share in told]], encode, decode)


def test_the_loosest_setting_that_holds_is_told() -> None:
    shares = (8, 4, 2, 1, 0.9, 0.5, 0.25)
    for claim, expected in ((0.2, 4), (0.99, 1), (1.05, 0.9), (3.0, 0.25)):
        told = rivals_climate._tune(fields((2, 20, 30)), 0.5, compressor=quantizer(claim, shares), relative=False)
        assert told.setting == pytest.approx(expected * 0.5)


def test_a_compressor_that_never_holds_a_bound_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no setting of it holds a bound of 0\.5"):
        rivals_climate._tune(fields((1, 9, 9)), 0.5, compressor=quantizer(9, (1, 0.5)), relative=False)


def test_gaps_count_for_nothing() -> None:
    missing = np.zeros((3, 12, 10), bool)
    missing[:, 4:7] = True
    missing[1] = True
    signal = fields(missing.shape, missing=missing)
    mean, nearest = rivals_climate._filled(signal)
    present = ~missing
    for filled in (mean, nearest):
        assert np.array_equal(filled[present], signal.values[..., 0][present])
    assert np.allclose(mean[missing], signal.values[..., 0][present].mean(dtype=np.float64), rtol=1e-6)
    assert np.array_equal(nearest[0, 4], signal.values[0, 3, :, 0])
    assert np.array_equal(nearest[0, 6], signal.values[0, 7, :, 0])
    told = rivals_climate._tune(signal, 0.1, compressor=quantizer(0.5, (1,)), relative=False)
    assert told.values.shape == missing.shape


@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 7))
def test_slices_below_each_other_come_apart_again(slices: int, height: int, width: int) -> None:
    values = np.arange(slices * height * width, dtype=np.float32).reshape(slices, height, width)
    picture = rivals_climate._picture(values)
    assert picture.shape == (slices * height, width)
    assert np.array_equal(rivals_climate._slices(picture, values.shape), values)
    if slices > 1:
        assert np.array_equal(picture[height], values[1, -1])


@pytest.mark.parametrize("bound", [1e-4, 0.03, 2.0])
def test_no_fewer_mantissa_bits_hold_the_bound(bound: float) -> None:
    values = fields((1, 30, 40)).values[..., 0]
    ((chosen,), _) = rivals_climate._settings_rounding(values, bound)
    bits = chosen[0]
    off = [np.abs(rivals_climate.round_bits(values, each).astype(float) - values).max() for each in (bits, bits - 1)]
    assert off[0] <= bound < off[1]


@pytest.mark.parametrize("rival", rivals_of("climate", bounded=True), ids=lambda rival: rival.name)
@pytest.mark.parametrize("shape", [(1, 40, 48), (5, 33, 37)])
def test_every_rival_that_is_there_holds_its_bound(rival: Rival, shape: tuple[int, ...]) -> None:
    signal = fields(shape, seed=3)
    obstacle = rival.obstacle(signal)
    if obstacle is not None:
        assert "is not installed" in obstacle
        pytest.skip(obstacle)
    # EBCC cannot hold bounds that are tight beside the roughness of these values.
    for bound in rival.settings or ((1.0,) if rival.name == "EBCC" else (0.05, 1.0)):
        coded = code(rival, signal, bound)
        assert coded.values.shape == signal.values.shape
        allowed = 0 if rival.settings else bound
        assert np.abs(coded.values.astype(np.float64) - signal.values).max() <= allowed


def test_what_cannot_be_measured_is_said() -> None:
    (rival,) = (rival for rival in rivals_of("climate") if rival.name == "deflate")
    flat = fields((1, 4, 4))
    assert rival.obstacle(flat) is None
    missing = np.zeros(flat.shape, bool)
    missing[:, 0] = True
    constant = Signal("climate", np.where(missing[..., None], flat.values, 1), flat.axes, (0.0, 1.0), missing=missing)
    assert rival.obstacle(constant) == "all values are the same"
    assert rival.obstacle(replace(constant, missing=np.ones_like(missing))) == "all points are missing"
    (zfp,) = (rival for rival in rivals_of("climate") if rival.name == "ZFP")
    if importlib.util.find_spec("zfpy") is None:
        assert zfp.obstacle(flat) == "the package zfpy is not installed"

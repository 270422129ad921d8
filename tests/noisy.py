"""Pairs of a picture and a noisy one, for the tests of measures."""

import numpy as np

from inrcodec.signals import Axis, Signal


def image(values: np.ndarray, value_range: tuple[float, float] | None = None) -> Signal:
    """Make a picture, or a stack of them, of an array [..., H, W, C]."""
    limits = value_range or (0.0, float(np.iinfo(values.dtype).max))
    return Signal("image", values, tuple(Axis(size) for size in values.shape[:-1]), limits)


def noisy_pair(dtype: type = np.uint8, shape: tuple[int, ...] = (30, 40, 3)) -> tuple[np.ndarray, np.ndarray]:
    """Make two arrays of integers: a random walk along the columns, and the same with noise."""
    random, limit = np.random.default_rng(0), int(np.iinfo(dtype).max)
    smooth = np.cumsum(random.normal(size=shape), axis=1)
    smooth = (smooth - smooth.min()) / np.ptp(smooth) * limit
    noise = random.normal(scale=limit / 40, size=shape)
    return smooth.astype(dtype), (smooth + noise).round().clip(0, limit).astype(dtype)

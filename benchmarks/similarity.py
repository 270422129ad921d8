"""Structural similarity, through scikit-image."""

import numpy as np
from skimage.metrics import structural_similarity

from inrcodec.signals.signal import Signal

WINDOW = 11
"""Samples along both axes of the window, and so of the smallest plane."""


def fits(shape: tuple[int, ...]) -> bool:
    """Return whether the last two axes of a grid of this shape have room for the window."""
    return len(shape) >= 2 and min(shape[-2:]) >= WINDOW


def ssim(original: Signal, decoded: Signal) -> float:
    """Return the structural similarity of the last two axes, the mean over frames or slices.

    It is that of Wang et al. 2004, with a Gaussian window of 11 samples and sigma 1.5; the range of the
    values is 255 for 8 bits, and the signal's value range for everything else.
    Raises: ValueError if the grids differ, have one axis, or one of the last two has less than 11 samples.
    """
    if original.values.shape != decoded.values.shape:
        raise ValueError(f"the grids differ: {original.values.shape = }, {decoded.values.shape = }")
    if not fits(original.shape):
        raise ValueError(f"SSIM needs two axes of at least {WINDOW} samples: {original.shape = }")
    low, high = original.value_range
    span = 255.0 if original.values.dtype == np.uint8 else high - low
    shape = (-1, *original.values.shape[-3:])
    return planes_ssim(original.values.reshape(shape), decoded.values.reshape(shape), span)


def planes_ssim(original: np.ndarray, decoded: np.ndarray, span: float) -> float:
    """Return the same of planes [P, H, W, C] with values in a range of `span`, the mean over planes."""
    scores = [
        structural_similarity(
            a.astype(np.float64),
            b.astype(np.float64),
            data_range=span,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(original, decoded, strict=True)
    ]
    return float(np.mean(scores))

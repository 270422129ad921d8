"""Small signals made of waves, for the tests."""

from fractions import Fraction

import numpy as np

from inrcodec.signals.signal import Axis, Signal


def tiny_image(seed: int, height: int = 32, width: int = 40) -> Signal:
    """A smooth colour picture, uint8, another one for each seed."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(6 * (a * y + b * x) + c) for a, b, c in random.uniform(-1, 1, (3, 3))]
    values = np.rint(127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)
    return Signal("image", values, (Axis(height), Axis(width)), (0.0, 255.0))


def tiny_sound(seed: int, length: int = 600, rate: int = 8000) -> Signal:
    """A chord of one channel, float32, another one for each seed."""
    frequencies = np.random.default_rng(seed).uniform(100, 400, 3)
    seconds = np.arange(length) / rate
    values = sum(0.3 * np.sin(2 * np.pi * frequency * seconds) for frequency in frequencies)
    axes = (Axis(length, "start", rate=Fraction(rate)), Axis(1, "slice"))
    return Signal("audio", np.asarray(values, np.float32)[:, np.newaxis, np.newaxis], axes, (-1.0, 1.0))

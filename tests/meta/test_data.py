"""Signals to learn from: files below a folder, and random patches of them."""

import math
from pathlib import Path

import numpy as np
import pytest

from inrcodec.errors import UsageError
from inrcodec.meta.data import PatchSampler, load_data
from inrcodec.patches import PatchConfig
from inrcodec.signals import Axis, Signal

# Sampling patches


def test_sampled_patches_are_cut_from_the_signals(images: list[Signal]) -> None:
    config = PatchConfig((6, 9), (0, 0), normalize=False)
    batch = PatchSampler(images[:2], config, 3, seed=0).batch(3, 5)
    windows = [
        np.lib.stride_tricks.sliding_window_view(signal.values, (6, 9), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
        for signal in images[:2]
    ]
    for values in np.rint(batch.values * 255).astype(np.uint8).reshape(5, 6, 9, 3):
        mirrored = [np.flip(values, axes) for axes in ((), (0,), (1,), (0, 1))]
        # Comparing a corner first keeps this quick.
        assert any(
            (window[window[:, :, 0, 0, :].__eq__(patch[0, 0]).all(-1)] == patch).all((1, 2, 3)).any()
            for window in windows
            for patch in mirrored
        )


def test_sampling_depends_on_the_seed_and_the_step_alone(images: list[Signal]) -> None:
    config = PatchConfig((8, 8), (0, 0))

    def values(seed: int, step: int) -> np.ndarray:
        return PatchSampler(images[:2], config, 3, seed).batch(step, 3).values

    assert np.array_equal(values(0, 5), values(0, 5))
    assert not np.array_equal(values(0, 5), values(0, 6))
    assert not np.array_equal(values(0, 5), values(1, 5))


def test_signals_smaller_than_a_patch_are_an_error(images: list[Signal]) -> None:
    with pytest.raises(UsageError, match="none of 2 signals"):
        PatchSampler(images[:2], PatchConfig((500, 8), (0, 0)), 3, seed=0)


def test_maps_and_globes_train_together() -> None:
    """Flat grids (projections) are climate signals too, and shown as small patches of the globe."""
    values = np.random.default_rng(0).random((20, 30, 1)).astype(np.float32)
    flat = Signal("climate", values, (Axis(20, "node"), Axis(30, "node")), (0.0, 1.0))
    north, east = np.linspace(60, 41, 20), np.linspace(0, 29, 30)
    axes = (Axis(20, "node", points=north), Axis(30, "node", points=east))
    regional = Signal("climate", values, axes, (0.0, 1.0), sphere=True)
    config = PatchConfig((8, 8), (1, 1), sphere=True)
    seen = PatchSampler([flat], config, 1, seed=0).batch(0, 1).coordinates
    assert np.abs(seen[..., 0]).max() == 0
    assert np.abs(seen[..., 1:]).max() == pytest.approx(7 / 8 / math.sqrt(2))
    assert PatchSampler([flat, regional], config, 1, seed=0).batch(0, 8).coordinates.shape == (8, 64, 3)


# Files


def test_every_tenth_file_is_held_out(samples: Path, tmp_path: Path) -> None:
    for number in range(11):
        (tmp_path / f"{number:02}.webp").write_bytes((samples / "sign.webp").read_bytes())
    (tmp_path / "broken.webp").write_bytes(b"RIFF")
    loaded = load_data(tmp_path, "image")
    assert (len(loaded.training), len(loaded.held_out)) == (9, 2)
    assert [Path(path).name for path in loaded.unreadable] == ["broken.webp"]


def test_too_little_data_is_an_error(samples: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give two or more"):
        load_data(tmp_path, "image")
    with pytest.raises(UsageError, match="no files of audio to evaluate on"):
        load_data(samples, "audio", tmp_path)
    for name in ("a.webp", "b.webp"):
        (tmp_path / name).write_bytes(b"RIFF")
    with pytest.raises(UsageError, match="none is left to learn from"):
        load_data(tmp_path, "image", tmp_path)
    with pytest.raises(UsageError, match="none of the files"):
        load_data(tmp_path, "image")

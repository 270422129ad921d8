"""Adaptation as a strip of pictures: steps from left to right; selected context points, residual, reconstruction."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import plots
import report
from adaptation_views import View

from inrcodec.signals.signal import Signal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = ("selected context", "residual", "reconstruction")
RED = (0.85, 0.1, 0.1)
WINDOW = 400
"""Samples of a sound that are shown, its loudest part."""


def draw(signal: Signal, views: Mapping[int, View], path: Path) -> None:
    """Draw one strip, the original at its left: a video by its middle frame, climate by its first slice."""
    height, width = (1, 2.2) if signal.modality == "audio" else signal.shape[-2:]
    cell = 2.6, 2.6 * height / width
    figure = plots.new_figure(cell[0] * (len(views) + 1), (cell[1] + 0.3) * len(ROWS))
    if figure is None:
        return
    grid = figure.subplots(len(ROWS), len(views) + 1, squeeze=False)
    for place in grid.flat:
        place.set(xticks=[], yticks=[])
        place.spines[:].set_visible(False)
    grid[0, 0].set_title("original", fontsize=10)
    for place, name in zip(grid[:, 1], ROWS, strict=True):
        place.set_ylabel(name, fontsize=10)
    for (step, view), column in zip(views.items(), grid[:, 1:].T, strict=True):
        psnr = report.measure(signal, view.reconstruction)["psnr_db"]
        column[0].set_title(f"{step} steps", fontsize=10)
        column[-1].set_xlabel(f"{psnr:.2f} dB", fontsize=9)
    if signal.modality == "audio":
        _draw_waves(grid, signal, list(views.values()))
    else:
        _draw_pictures(grid, signal, list(views.values()))
    plots.save(figure, path)


def _draw_pictures(grid: np.ndarray, signal: Signal, views: list[View]) -> None:
    index = {"image": (), "video": (signal.shape[0] // 2,), "climate": (0,)}[signal.modality]
    original = _unit(signal, signal.values[index])
    grey = original.mean(axis=-1)
    shown = [_unit(signal, view.reconstruction.values[index]) for view in views]
    residuals = [np.abs(values - original).mean(axis=-1) for values in shown]
    # One scale for all steps, so that the residual is seen to fade.
    brightest = max(float(np.percentile(residuals[0], 99)), 1e-6)
    _picture(grid[0, 0], original)
    for view, values, residual, column in zip(views, shown, residuals, grid[:, 1:].T, strict=True):
        marked = np.repeat(grey[..., None], 3, axis=-1)
        if view.selected is not None:
            marked[view.selected[index]] = RED
        _picture(column[0], marked)
        column[1].imshow(residual, cmap="magma", vmin=0, vmax=brightest)
        _picture(column[2], values)


def _unit(signal: Signal, values: np.ndarray) -> np.ndarray:
    low, high = signal.value_range
    return ((values.astype(np.float64) - low) / (high - low)).clip(0, 1)


def _picture(place: "Axes", values: np.ndarray) -> None:
    """Show values [H, W, 1 or 3] in [0, 1]."""
    if values.shape[-1] == 3:
        place.imshow(values)
    else:
        place.imshow(values[..., 0], cmap="viridis", vmin=0, vmax=1)


def _draw_waves(grid: np.ndarray, signal: Signal, views: list[View]) -> None:
    original = signal.values[:, 0, 0].astype(np.float64)
    loudness = np.convolve(original**2, np.ones(min(WINDOW, len(original))), mode="valid")
    part = slice(int(loudness.argmax()), int(loudness.argmax()) + WINDOW)
    wave, x = original[part], np.arange(len(original[part]))
    limit = 1.1 * float(np.abs(wave).max()) or 1.0
    grid[0, 0].plot(x, wave, color="black", linewidth=0.8)
    for view, column in zip(views, grid[:, 1:].T, strict=True):
        shown = view.reconstruction.values[part, 0, 0].astype(np.float64)
        column[0].plot(x, wave, color="0.7", linewidth=0.8)
        if view.selected is not None:
            chosen = view.selected[part, 0]
            column[0].plot(x[chosen], wave[chosen], ".", color=RED, markersize=2)
        column[1].plot(x, wave - shown, color="tab:purple", linewidth=0.8)
        column[2].plot(x, wave, color="0.7", linewidth=0.8)
        column[2].plot(x, shown, color="black", linewidth=0.8)
    for place in grid.flat:
        place.set_ylim(-limit, limit)

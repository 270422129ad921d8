"""Rate-distortion plots, with published points behind the measured ones where a file of them is given."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import report

from inrcodec.errors import UsageError
from inrcodec.signals import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = list[tuple[float, float]]
"""(rate, PSNR in dB), by rate."""

RATE_COLUMNS = {"image": "rate", "video": "rate", "audio": "rate_kbps"}


def read_anchors(path: Path, codecs: Sequence[str] | None, modality: str) -> dict[str, Curve]:
    """Read published points from a CSV file with columns codec, rate (bits per pixel) or rate_kbps, and psnr_db.

    Raises: UsageError if the file cannot be read, has other columns or none of `codecs`.
    """
    column = RATE_COLUMNS.get(modality)
    if column is None:
        raise UsageError(f"there are no --anchors for {modality}: its rates and errors depend on the variable")
    curves: dict[str, Curve] = {}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                curves.setdefault(row["codec"], []).append((float(row[column]), float(row["psnr_db"])))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise UsageError(f"{path} needs the columns codec, {column} and psnr_db, with numbers: {error!r}") from error
    unknown = [codec for codec in codecs or () if codec not in curves]
    if unknown:
        raise UsageError(f"{path} has no {', '.join(unknown)}: choose from {', '.join(sorted(curves))}")
    return {codec: sorted(points) for codec, points in curves.items() if not codecs or codec in codecs}


def new_figure(width: float, height: float) -> "Figure | None":
    """Make a figure of so many inches; return None, and say so, where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        report.say("no plots: they need matplotlib, install inrcodec[benchmark]")
        return None
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: "Figure", path: Path) -> None:
    """Write a figure and say where."""
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=110, backend="agg"))
    report.say(f"wrote {path}")


def rate_distortion(
    summary: Sequence[Mapping[str, Any]],
    ours: set[str],
    anchors: Mapping[str, Curve],
    modality: str,
    rate_unit: str,
    path: Path,
) -> None:
    """Draw one panel per group, and one for the SNR of sound."""
    groups = sorted({row["group"] for row in summary})
    measures = ["psnr_db", "snr_db"] if modality == "audio" else ["psnr_db"]
    panels = [(group, measure) for group in groups for measure in measures]
    figure = new_figure(7.5 * len(panels), 6)
    if figure is None:
        return
    for place, (group, measure) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        rows = [row for row in summary if row["group"] == group]
        _draw(place, rows, ours, anchors if measure == "psnr_db" else {}, measure)
        place.set(
            xscale="log",
            xlabel=rate_unit,
            ylabel="SNR, dB" if measure == "snr_db" else "PSNR, dB",
            title=f"{modality} {group}".strip(),
        )
        place.grid(True, which="both", color="0.92")
        place.set_axisbelow(True)
        place.legend(loc="best", fontsize=8)
    save(figure, path)


def _draw(
    place: "Axes",
    rows: Sequence[Mapping[str, Any]],
    ours: set[str],
    anchors: Mapping[str, Curve],
    measure: str,
) -> None:
    for name, curve in anchors.items():
        place.plot(*zip(*curve, strict=True), color="0.7", linewidth=0.8, zorder=1)
        rate, psnr = curve[-1]
        place.annotate(name, (rate, psnr), fontsize=6, color="0.45", xytext=(2, 0), textcoords="offset points")
    for codec in dict.fromkeys(row["codec"] for row in rows):
        points = sorted((row["rate"], row[measure]) for row in rows if row["codec"] == codec)
        curve = [(rate, quality) for rate, quality in points if math.isfinite(quality)]
        if not curve:
            place.axvline(points[0][0], color="black", linestyle=":", label=f"{codec} (lossless)")
            continue
        strong = codec in ours
        place.plot(
            *zip(*curve, strict=True),
            label=f"{codec} (ours)" if strong else codec,
            marker="o" if strong else ".",
            linewidth=2.5 if strong else 1.2,
            zorder=3 if strong else 2,
        )

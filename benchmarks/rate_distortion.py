"""Real file sizes against PSNR, beside the codecs people would use otherwise, measured in one run."""

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import plots
import report
import rivals
import sources

import inrcodec
from inrcodec.cli import console
from inrcodec.errors import UsageError
from inrcodec.options import Effort
from inrcodec.signals.signal import Signal

RATE_UNITS = {
    "image": "bits per pixel",
    "video": "bits per pixel",
    "audio": "kbit/s",
    "climate": "bits per sample",
}

Point = dict[str, Any]
"""One signal through one codec at one setting; or, of a summary, the mean over the signals of a group."""


def main() -> None:
    arguments = parse()
    chosen = report.initializations(arguments.init, arguments.modality)
    if arguments.anchors and len(chosen) > 1:
        raise UsageError(f"--anchors are of one modality: choose with --modality from {', '.join(chosen)}")
    output = report.output_folder(arguments.output)
    for modality, initializations in chosen.items():
        anchors = plots.read_anchors(arguments.anchors, arguments.anchor_codecs, modality) if arguments.anchors else {}
        with tempfile.TemporaryDirectory(prefix="inrcodec-") as folder:
            points, skipped = measure_all(modality, initializations, arguments, Path(folder))
        summary = summarize(points)
        show(modality, summary)
        for line in skipped:
            report.say(f"skipped: {line}")
        for name, initialization in initializations:
            size = len(initialization.to_bytes())
            report.say(f"{name}: the initialization, needed once for all files, has {size} bytes, not counted above")
        content = {
            "benchmark": "rate_distortion",
            "modality": modality,
            "rate_unit": RATE_UNITS[modality],
            "psnr_peak": report.PSNR_PEAK[modality],
            "efforts": arguments.efforts,
            "steps": arguments.steps,
            "data": str(arguments.data or "shipped samples"),
            "cut": vars(sources.cut_of(arguments)),
            "machine": report.machine(),
            "initializations": [report.describe(*each) for each in initializations],
            "skipped": skipped,
            "summary": summary,
            "points": points,
        }
        report.write_json(content, output / f"rate_distortion_{modality}.json")
        ours = {label for name, _ in initializations for label, _, _ in our_settings(name, arguments)}
        plots.rate_distortion(
            summary, ours, anchors, modality, RATE_UNITS[modality], output / f"rate_distortion_{modality}.png"
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    sources.add_arguments(parser)
    parser.add_argument(
        "--qualities", nargs="+", type=float, default=[10, 30, 50, 70, 90], help="of our encoder, 1 to 100"
    )
    parser.add_argument(
        "--efforts", nargs="+", choices=get_args(Effort), default=["default"], help="of our encoder [default: default]"
    )
    parser.add_argument("--steps", type=int, help="adaptation steps of our encoder, instead of those of an effort")
    parser.add_argument(
        "--max-errors", nargs="+", type=float, help="bounds on the error of our files, instead of qualities"
    )
    parser.add_argument("--no-rivals", action="store_true", help="measure our codec alone")
    parser.add_argument("--anchors", type=Path, help="CSV of published points (codec, rate or rate_kbps, psnr_db)")
    parser.add_argument("--anchor-codecs", nargs="+", help="those of its codecs to plot [default: all]")
    return parser.parse_args()


def measure_all(
    modality: str, initializations: report.Initializations, arguments: argparse.Namespace, folder: Path
) -> tuple[list[Point], list[str]]:
    """Measure all codecs on all signals; say which rivals were skipped, on how many signals and why."""
    points: list[Point] = []
    skipped: dict[str, int] = {}
    for source in sources.sources(modality, arguments.data, arguments.limit, sources.cut_of(arguments), folder):
        report.say(f"{source.name}: {'x'.join(map(str, source.signal.shape))}")
        for name, initialization in initializations:
            points += our_points(source, name, initialization, arguments, folder / "coded.inr")
        for rival in () if arguments.no_rivals else rivals.rivals_of(modality, arguments.max_errors or ()):
            try:
                points += rival_points(source, rival)
            except ValueError as error:
                reason = f"{rival.name}: {error}"
                skipped[reason] = skipped.get(reason, 0) + 1
    return points, [f"{reason} ({count} signals)" for reason, count in skipped.items()]


def our_points(
    source: sources.Source,
    name: str,
    initialization: inrcodec.Initialization,
    arguments: argparse.Namespace,
    path: Path,
) -> Iterator[Point]:
    """Code from file to file through the public interface; what is measured is what a decoder makes of the file."""
    for label, setting, options in our_settings(name, arguments):
        began = time.perf_counter()
        inrcodec.encode_file(source.path, path, options, initialization=initialization, modality=source.signal.modality)
        encoded = time.perf_counter()
        (decoded,) = inrcodec.decode(path.read_bytes(), initializations=[initialization], device=arguments.device)
        times = encoded - began, time.perf_counter() - encoded
        yield point(source, label, setting, path.stat().st_size, decoded.values, times)


def our_settings(name: str, arguments: argparse.Namespace) -> Iterator[tuple[str, str, inrcodec.EncodeOptions]]:
    """Yield what a curve of ours is called, what a point of it is, and how to make it."""
    for effort in arguments.efforts:
        label = f"{name} {effort}" if len(arguments.efforts) > 1 else name
        options = inrcodec.EncodeOptions(effort=effort, steps=arguments.steps, device=arguments.device)
        if arguments.max_errors:
            for bound in arguments.max_errors:
                yield label, f"bound {bound:g}", replace(options, max_error=bound)
        else:
            for quality in arguments.qualities:
                yield label, f"quality {quality:g}", replace(options, quality=quality)


def rival_points(source: sources.Source, rival: rivals.Rival) -> list[Point]:
    """Measure a rival at all its settings. Raises: ValueError if it cannot be used, with the reason."""
    obstacle = rival.obstacle(source.signal)
    if obstacle is not None:
        raise ValueError(obstacle)
    points = []
    for setting in rival.settings:
        coded = rivals.code(rival, source.signal, setting)
        times = coded.encode_seconds, coded.decode_seconds
        points.append(point(source, rival.name, f"{rival.unit} {setting:g}", coded.size, coded.values, times))
    return points


def point(
    source: sources.Source,
    codec: str,
    setting: str,
    size: int,
    values: np.ndarray,
    times: tuple[float, float],
) -> Point:
    """Describe what a codec made of a signal; times are those of encoding and decoding, in seconds."""
    signal = source.signal
    return {
        "signal": source.name,
        "group": source.group,
        "codec": codec,
        "setting": setting,
        "bytes": size,
        "samples": signal.samples,
        "rate": rate(signal, size),
        "ratio": 4 * signal.samples / size,
        **report.measure(signal, replace(signal, values=values)),
        "encode_seconds": times[0],
        "decode_seconds": times[1],
    }


def rate(signal: Signal, size: int) -> float:
    """Return the size of a file in the modality's `RATE_UNITS`."""
    per_second = signal.axes[0].rate
    if signal.modality == "audio" and per_second is not None:
        return 8 * size / 1000 / float(signal.axes[0].size / per_second)
    return 8 * size / signal.samples


def summarize(points: Sequence[Point]) -> list[Point]:
    """Return the mean over signals for every group, codec and setting; the maximum error is the largest of all.

    "psnr_db" is the mean of the signals' PSNR, "psnr_of_mean_mse_db" the PSNR of their mean squared error.
    """
    groups: dict[tuple[str, str, str], list[Point]] = {}
    for each in points:
        groups.setdefault((each["group"], each["codec"], each["setting"]), []).append(each)
    summary = []
    for (group, codec, setting), members in groups.items():
        row: Point = {"group": group, "codec": codec, "setting": setting, "signals": len(members)}
        for key in members[0]:
            if key not in ("signal", "group", "codec", "setting") and all(key in member for member in members):
                values = [member[key] for member in members]
                row[key] = max(values) if key == "max_error" else math.fsum(values) / len(values)
        row["psnr_of_mean_mse_db"] = report.decibels(row["mse"])
        summary.append(row)
    return sorted(summary, key=lambda row: row["group"])


def show(modality: str, summary: Sequence[Point]) -> None:
    """Print the means."""
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        "rate": (RATE_UNITS[modality], lambda value: report.number(value, 3)),
        "ratio": ("ratio", lambda value: report.number(value, 1)),
        "snr_db": ("SNR dB", report.number),
        "psnr_db": ("PSNR dB", report.number),
        "psnr_of_mean_mse_db": ("of mean MSE", report.number),
        "ssim": ("SSIM", lambda value: report.number(value, 4)),
        "rmse": ("RMSE", report.significant),
        "max_error": ("max error", report.significant),
        "encode_seconds": ("encode s", lambda value: report.number(value, 3)),
        "decode_seconds": ("decode s", lambda value: report.number(value, 3)),
    }
    # The ratio to float32 means something for floats alone.
    keys = [key for key in columns if key in summary[0] and (key != "ratio" or modality == "climate")]
    groups = any(row["group"] for row in summary)
    first = (["variable"] if groups else []) + ["codec", "setting", "signals"]
    print(f"\n{modality}: mean over signals; PSNR with peak {report.PSNR_PEAK[modality]}\n")
    console.table(
        first + [columns[key][0] for key in keys],
        (
            ([row["group"]] if groups else [])
            + [row["codec"], row["setting"], str(row["signals"])]
            + [columns[key][1](row[key]) if key in row else "-" for key in keys]
            for row in summary
        ),
    )


if __name__ == "__main__":
    report.run(main)

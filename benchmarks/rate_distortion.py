"""Real file sizes against PSNR, beside the codecs people would use otherwise, measured in one run."""

import argparse
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import plots
import report
import rivals
import sources
import verdicts

import inrcodec
from inrcodec.cli import console
from inrcodec.errors import SignalError, UsageError
from inrcodec.options import Effort
from inrcodec.signals.signal import Signal

RATE_UNITS = {
    "image": "bits per pixel",
    "video": "bits per pixel",
    "audio": "kbit/s",
    "climate": "bits per sample",
}

QUALITIES = (10.0, 30.0, 50.0, 70.0, 90.0)

Point = dict[str, Any]
"""One signal through one codec at one setting; or, of a summary, the mean over the signals of a group."""


@dataclass(frozen=True)
class Bound:
    """A bound on the error: an amount in the signal's unit or, if `relative`, in percent of its value range."""

    amount: float
    relative: bool

    def __str__(self) -> str:
        return f"{self.amount:g}%" if self.relative else f"{self.amount:g}"

    def of(self, signal: Signal) -> float:
        """Return the bound in the signal's unit."""
        low, high = signal.value_range
        return self.amount / 100 * (high - low) if self.relative else self.amount


def parsed_bound(text: str) -> Bound:
    """Parse 0.5 or 1%. Raises: ValueError, which argparse makes a line of."""
    return Bound(float(text.removesuffix("%")), text.endswith("%"))


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
        ours = {label for name, _ in initializations for label, _, _ in our_settings(name, arguments)}
        show(modality, summary)
        if arguments.max_errors:
            settings = [f"bound {bound}" for bound in arguments.max_errors]
            text = verdicts.markdown(points, settings, ours, arguments.at_ratio)
            report.write_text(text, output / f"rate_distortion_{modality}.md")
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
            "without": arguments.without,
            "data": str(arguments.data or "shipped samples"),
            "cut": vars(sources.cut_of(arguments)),
            "machine": report.machine(),
            "initializations": [report.describe(*each) for each in initializations],
            "skipped": skipped,
            "summary": summary,
            "points": points,
        }
        report.write_json(content, output / f"rate_distortion_{modality}.json")
        plots.rate_distortion(
            summary, ours, anchors, modality, RATE_UNITS[modality], output / f"rate_distortion_{modality}.png"
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    sources.add_arguments(parser)
    parser.add_argument(
        "--qualities", nargs="+", type=float, help="of our encoder, 1 to 100 [default: 10 30 50 70 90, or no bound]"
    )
    parser.add_argument(
        "--efforts", nargs="+", choices=get_args(Effort), default=["default"], help="of our encoder [default: default]"
    )
    parser.add_argument("--steps", type=int, help="adaptation steps of our encoder, instead of those of an effort")
    parser.add_argument(
        "--max-errors",
        nargs="+",
        type=parsed_bound,
        help="bounds on the error of our files, beside the rivals that keep one, in the signal's unit or as 1%% of its "
        "value range; qualities are measured too if --qualities are given",
    )
    parser.add_argument(
        "--at-ratio", type=float, help="compression ratio at which the root mean square of errors is compared"
    )
    parser.add_argument("--no-rivals", action="store_true", help="measure our codec alone")
    parser.add_argument("--without", nargs="+", default=[], help="names of rivals that are left out, as EBCC")
    parser.add_argument("--anchors", type=Path, help="CSV of published points (codec, rate or rate_kbps, psnr_db)")
    parser.add_argument("--anchor-codecs", nargs="+", help="those of its codecs to plot [default: all]")
    return parser.parse_args()


def measure_all(
    modality: str, initializations: report.Initializations, arguments: argparse.Namespace, folder: Path
) -> tuple[list[Point], list[str]]:
    """Measure all codecs on all signals; say what was skipped, on how many signals and why."""
    points: list[Point] = []
    skipped: Counter[str] = Counter()
    bounds = arguments.max_errors or ()
    found = () if arguments.no_rivals else rivals.rivals_of(modality, bounded=bool(bounds))
    unknown = set(arguments.without) - {rival.name for rival in found}
    if unknown:
        raise UsageError(
            f"no rival is called {', '.join(sorted(unknown))}: they are {', '.join(r.name for r in found)}"
        )
    found = tuple(rival for rival in found if rival.name not in arguments.without)
    for source in sources.sources(modality, arguments.data, arguments.limit, sources.cut_of(arguments), folder):
        report.say(f"{source.name}: {'x'.join(map(str, source.signal.shape))}")
        for name, initialization in initializations:
            points += our_points(source, name, initialization, arguments, folder / "coded.inr")
        for rival in found:
            points += rival_points(source, rival, bounds, skipped)
    return points, [f"{reason} ({count} signals)" for reason, count in skipped.items()]


def our_points(
    source: sources.Source,
    name: str,
    initialization: inrcodec.Initialization,
    arguments: argparse.Namespace,
    path: Path,
) -> Iterator[Point]:
    """Code from file to file through the public interface; what is measured is what a decoder makes of the file.

    Raises: SignalError if a bound does not hold.
    """
    for label, setting, options in our_settings(name, arguments):
        if isinstance(setting, Bound):
            options = replace(options, max_error=setting.of(source.signal))
        began = time.process_time()
        inrcodec.encode_file(source.path, path, options, initialization=initialization, modality=source.signal.modality)
        encoded = time.process_time()
        (decoded,) = inrcodec.decode(path.read_bytes(), initializations=[initialization], device=arguments.device)
        times = encoded - began, time.process_time() - encoded
        shown = f"bound {setting}" if isinstance(setting, Bound) else f"quality {setting:g}"
        measured = point(source, label, shown, path.stat().st_size, decoded.values, times)
        if isinstance(options.max_error, float) and measured["max_error"] > options.max_error:
            raise SignalError(
                f"{source.name}: {label} is {measured['max_error']} off, the bound is {options.max_error}"
            )
        yield measured


def our_settings(
    name: str, arguments: argparse.Namespace
) -> Iterator[tuple[str, Bound | float, inrcodec.EncodeOptions]]:
    """Yield what a curve of ours is called, the bound or the quality of a point of it, and how to make it.

    A bound is not in the options yet, as it may depend on the signal.
    """
    for effort in arguments.efforts:
        label = f"{name} {effort}" if len(arguments.efforts) > 1 else name
        options = inrcodec.EncodeOptions(effort=effort, steps=arguments.steps, device=arguments.device)
        for bound in arguments.max_errors or ():
            yield label, bound, options
        unbounded = f"{label}, no bound" if arguments.max_errors else label
        for quality in arguments.qualities or (() if arguments.max_errors else QUALITIES):
            yield unbounded, quality, replace(options, quality=quality)


def rival_points(
    source: sources.Source, rival: rivals.Rival, bounds: Sequence[Bound], skipped: Counter[str]
) -> Iterator[Point]:
    """Measure a rival at all its settings, or at the bounds; count the reasons of what it cannot do."""
    obstacle = rival.obstacle(source.signal)
    if obstacle is not None:
        skipped[f"{rival.name}: {obstacle}"] += 1
        return
    settings = [(f"{setting:g}", setting) for setting in rival.settings]
    for shown, setting in settings or [(str(bound), bound.of(source.signal)) for bound in bounds]:
        try:
            coded = rivals.code(rival, source.signal, setting)
        except ValueError as error:
            skipped[f"{rival.name}: {error}"] += 1
            continue
        times = coded.encode_seconds, coded.decode_seconds
        measured = point(source, rival.name, f"{rival.unit} {shown}", coded.size, coded.values, times)
        if not settings and measured["max_error"] > setting:
            skipped[f"{rival.name}: {measured['max_error']:g} off at a bound of {setting:g}"] += 1
            continue
        yield measured


def point(
    source: sources.Source,
    codec: str,
    setting: str,
    size: int,
    values: np.ndarray,
    times: tuple[float, float],
) -> Point:
    """Describe what a codec made of a signal; times are those of encoding and decoding, in seconds of a
    processor."""
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
        for key in ("encode", "decode"):
            row[f"{key}_mb_per_second"] = verdicts.speed(row, key)
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
        "encode_mb_per_second": ("encode MB/s", report.significant),
        "decode_mb_per_second": ("decode MB/s", report.significant),
    }
    # What is relative to float32 means something for floats alone.
    of_floats = ("ratio", "encode_mb_per_second", "decode_mb_per_second")
    keys = [key for key in columns if key in summary[0] and (key not in of_floats or modality == "climate")]
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

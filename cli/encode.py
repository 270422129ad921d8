"""`inrcodec encode`: files to `.inr` files."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inrcodec.cli import console, places
from inrcodec.cli.batch import Batch
from inrcodec.errors import UsageError

if TYPE_CHECKING:
    from inrcodec.files import EncodeReport
    from inrcodec.options import EncodeOptions, Progress


@dataclass(frozen=True)
class Job:
    """One file to encode. name: of the output, relative to the output folder, where -o does not name it."""

    source: Path
    name: str


def encode(
    context: typer.Context,
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Files, folders, or - for standard input.")],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER|-",
            show_default="beside the input",
            help="Where to write; a folder for several inputs.",
        ),
    ] = None,
    quality: Annotated[
        float | None, typer.Option("--quality", "-q", help="1 (smallest file) to 100 (best picture).")
    ] = None,
    bpp: Annotated[float | None, typer.Option("--bpp", help="Aim for this many bits per pixel or sample.")] = None,
    psnr: Annotated[float | None, typer.Option("--psnr", help="Aim for this PSNR in dB.")] = None,
    max_error: Annotated[
        list[str] | None,
        typer.Option(
            "--max-error",
            metavar="E|NAME=E",
            help="Largest error of any value, in its unit; repeatable for several variables.",
        ),
    ] = None,
    effort: Annotated[
        str | None, typer.Option("--effort", metavar="fast|default|high", help="How long to adapt.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Adaptation steps, instead of those of an effort.")
    ] = None,
    init: Annotated[
        str | None, typer.Option("--init", metavar="NAME|ID|FILE", help="Initialization to start from.")
    ] = None,
    field: Annotated[
        str | None,
        typer.Option(
            "--field", metavar="siren|ffn|nerv|pyramid|clip|spectrum", help="Use the installed one of this field."
        ),
    ] = None,
    embed: Annotated[bool, typer.Option("--embed", help="Put the initialization into the file, for archives.")] = False,
    modality: Annotated[
        str | None,
        typer.Option("--modality", metavar="image|video|audio|climate", help="Read the input as this."),
    ] = None,
    format: Annotated[
        str | None, typer.Option("--format", metavar="EXT", help="What standard input is, as png or wav.")
    ] = None,
    rescaling: Annotated[
        str | None,
        typer.Option("--rescaling", metavar="exact|loss-ratio|none", help="Gradient rescaling of the adaptation."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="auto|cpu|cuda[:n]", help="Where to compute.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object per file.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show errors only.")] = False,
) -> None:
    """Compress files into .inr files.

    Several inputs, or a folder with all below it, need a folder for -o.
    One that fails does not stop the others.
    """
    _check_usage(inputs, output, init, field, modality, format, json)
    from inrcodec.device import pick_device
    from inrcodec.files import encode_file
    from inrcodec.registry import named_initialization

    options = encode_options(
        quality=quality,
        effort=effort,
        steps=steps,
        bits_per_sample=bpp,
        psnr=psnr,
        max_error=parse_max_error(max_error or []),
        rescaling=rescaling,
        device=device,
    )
    pick_device(options.device)
    settings: dict[str, Any] = {
        "initialization": named_initialization(init) if init else None,
        "field": field,
        "modality": modality,
        "embed": embed,
    }
    jobs = find_jobs(inputs, modality)
    several = len(jobs) > 1 or jobs[0].source != inputs[0]
    if several:
        output = _output_folder(output)
    written: set[Path] = set()
    batch = Batch(context, several=several, quiet=quiet)
    for number, job in enumerate(jobs, 1):
        label = f"{number}/{len(jobs)} {job.source.name}" if several else job.source.name
        with batch.item(job.source):
            with ExitStack() as stack:
                source, target = _open(job, output, format, force, written, stack)
                line = stack.enter_context(console.ProgressLine(quiet=quiet))
                show = show_progress(line, label)
                report = encode_file(source, target, options, on_progress=show, **settings)
            report = replace(report, input=str(job.source), output="-" if output == "-" else str(target))
            if json:
                console.json_data(report.to_json())
            if not quiet:
                console.say(summary(report))
    batch.finish()


def _open(
    job: Job, output: str | None, format: str | None, force: bool, written: set[Path], stack: ExitStack
) -> tuple[Path, Path]:
    """Return the files to read and to write for a job; temporary ones for standard input and output."""
    source = job.source
    if source == places.STANDARD:
        source = stack.enter_context(places.spooled_input(places.extension(format) or ""))
    if output == "-":
        return source, stack.enter_context(places.spooled_output(".inr"))
    target = places.output_path(output, job.source, job.name)
    if target in written:
        raise UsageError(f"{target} is the output of another input too: rename one of them")
    places.check_free(target, force)
    written.add(target)
    return source, target


def _output_folder(output: str | None) -> str:
    """Return what -o says, as a folder. Raises: UsageError if it is none."""
    if output is None or output == "-" or (Path(output).exists() and not places.is_folder(output)):
        raise UsageError(f"-o is {output or 'not given'}, several inputs need a folder: give one")
    return f"{output}/"


def _check_usage(
    inputs: list[Path],
    output: str | None,
    init: str | None,
    field: str | None,
    modality: str | None,
    format: str | None,
    json: bool,
) -> None:
    from inrcodec.signals import MODALITIES

    if modality is not None and modality not in MODALITIES:
        raise UsageError(f"--modality is {modality!r}, give one of {', '.join(MODALITIES)}")
    if init and field:
        raise UsageError("--field chooses among the installed initializations, --init names one: give one of them")
    if output and Path(output).suffix.lower() in _media_extensions() and not places.is_folder(output):
        raise UsageError(
            f"-o is {output}, but encode writes .inr files: name one, and make {Path(output).suffix} of it with decode"
        )
    from_stdin = places.STANDARD in inputs
    if from_stdin and len(inputs) > 1:
        raise UsageError("standard input (-) cannot be one of several inputs: encode it by itself")
    if from_stdin and not (modality or format):
        raise UsageError("what is on standard input? say it with --modality (image) or --format (png)")
    if format and not from_stdin:
        raise UsageError("--format is for standard input: for files give --modality, or rename them")
    places.extension(format)
    if output == "-" and json:
        raise UsageError("standard output cannot take both the file (-o -) and --json: give -o a file")


def _media_extensions() -> frozenset[str]:
    """Return the extensions of files that are encoded, not written."""
    from inrcodec.signals import MODALITIES, extensions

    return frozenset().union(*map(extensions, MODALITIES))


def encode_options(**given: Any) -> "EncodeOptions":
    """Return the options that were given, with the encoder's own defaults for the others (None). Raises: UsageError."""
    from typing import get_args

    from inrcodec.options import EncodeOptions
    from inrcodec.settings import Rescaling

    given = {name: value for name, value in given.items() if value is not None}
    choices = get_args(Rescaling)
    if given.get("rescaling", choices[0]) not in choices:
        raise UsageError(f"--rescaling is {given['rescaling']!r}, give one of {', '.join(choices)}")
    return EncodeOptions(**given)


def parse_max_error(given: list[str]) -> float | dict[str, float] | None:
    """Parse one number for all signals, or numbers by name as in t2m=0.1. Raises: UsageError."""
    bounds: dict[str, float] = {}
    for text in given:
        name, _, number = text.rpartition("=")
        if name in bounds:
            raise UsageError(f"--max-error is given twice for {name or 'all signals'}: give it once")
        try:
            bounds[name] = float(number)
        except ValueError as error:
            raise UsageError(f"--max-error is {text!r}, give a number as 0.1, or a name with one as t2m=0.1") from error
    if "" in bounds and len(bounds) > 1:
        raise UsageError("--max-error is given for all signals and by name: give one number, or names only")
    return bounds.get("", bounds or None)


def find_jobs(inputs: list[Path], modality: str | None) -> list[Job]:
    """Return the files to encode: the inputs themselves, and for folders all files below.

    A folder of frames is one video, where --modality asks for videos.
    Raises: UsageError if a folder has nothing to encode.
    """
    return [job for path in inputs for job in _jobs(path, modality)]


def _jobs(path: Path, modality: str | None) -> Iterator[Job]:
    from inrcodec.files import SUFFIX
    from inrcodec.signals import find_files

    if not path.is_dir():
        yield Job(path, path.with_suffix(SUFFIX).name)
        return
    files = find_files(path, modality)
    if not files:
        raise UsageError(f"{path} holds no file of {modality or 'any known modality'}: give another folder")
    for file in files:
        if file.is_dir():
            below = file.relative_to(path).parent if file != path else Path()
            yield Job(file, str(below / f"{file.resolve().name}{SUFFIX}"))
        else:
            yield Job(file, str(file.relative_to(path).with_suffix(SUFFIX)))


def show_progress(line: console.ProgressLine, label: str) -> "Callable[[Progress], None]":
    """Return a callback of the encoder that keeps the line up to date."""

    def show(progress: "Progress") -> None:
        parts = [] if progress.psnr is None else [f"{progress.psnr:.2f} dB"]
        parts += [] if progress.rate is None else [f"{progress.rate:.3f} bits/sample"]
        if progress.stage == "adapt" and progress.step == progress.steps:
            line.update(f"{label}: code", 0, None, ", ".join(parts))
        else:
            line.update(f"{label}: {progress.stage}", progress.step, progress.steps, ", ".join(parts))

    return show


def summary(report: "EncodeReport") -> str:
    """Say in one line what became of a file."""
    main = report.signals[0]
    unit = "bits/pixel" if report.modality in ("image", "video") else "bits/sample"
    rate = f"{report.bits_per_sample:.3f} {unit}"
    if "kbps" in main:
        rate += f", {main['kbps']:.1f} kbps"
    fidelity = "lossless" if main["psnr_db"] is None else f"PSNR {main['psnr_db']:.2f} dB"
    if main.get("snr_db") is not None:
        fidelity += f", SNR {main['snr_db']:.2f} dB"
    if "rmse" in main:
        fidelity += f", RMSE {main['rmse']:.4g}"
    if main.get("worst_slice_psnr_db") is not None:
        fidelity += f", worst slice {main['worst_slice']} PSNR {main['worst_slice_psnr_db']:.2f} dB"
    if "max_error" in main:
        fidelity += f", largest error {main['max_error']:.4g}"
    bounds = {signal["name"]: f"{signal['bound']:g}" for signal in report.signals if "bound" in signal}
    if len(set(bounds.values())) == 1 and len(bounds) == len(report.signals):
        fidelity += f" (bound {bounds[main['name']]})"
    elif bounds:
        fidelity += f" (bounds {', '.join(f'{name or report.modality} {bound}' for name, bound in bounds.items())})"
    return (
        f"{report.input} -> {report.output}: {report.bytes:,} bytes ({rate}, 1:{report.ratio:.0f}), "
        f"{fidelity}, {report.seconds:.1f} s on {report.device}"
    )

"""`inrcodec encode`: files to `.inr` files."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inrcodec.cli import places
from inrcodec.cli.batch import Batch, Done, Show, planned
from inrcodec.cli.cores import processes_of_a_file
from inrcodec.cli.option_groups import Jobs, SkipExisting
from inrcodec.cli.places import SUFFIX, ZARR, Input
from inrcodec.errors import UsageError

if TYPE_CHECKING:
    from inrcodec.files import EncodeReport
    from inrcodec.options import EncodeOptions, Progress


@dataclass(frozen=True)
class Settings:
    """How all files are encoded, as the options say.

    suffix: of the name that standard input would have. series: the dimension of one, whose files `sources` are.
    folder: what the names of files are relative to.
    """

    options: "EncodeOptions"
    init: str | None
    field: str | None
    modality: str | None
    embed: bool
    suffix: str
    series: str | None
    sources: tuple[Path, ...]
    folder: Path


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
    series: Annotated[
        str | None,
        typer.Option(
            metavar="DIM",
            help="Code all inputs as one file: climate files that follow each other along this dimension, as time.",
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
            metavar="E|E%|NAME=E",
            help="Largest error of any value, in its unit, or in percent of its slice's range; repeatable for several "
            "variables.",
        ),
    ] = None,
    max_error_rel: Annotated[
        list[str] | None,
        typer.Option(
            "--max-error-rel",
            metavar="R|NAME=R",
            help="Largest error as a share of each value, as 0.01; zeros and signs are kept. With --max-error, too: "
            "within one of both.",
        ),
    ] = None,
    effort: Annotated[
        str | None, typer.Option("--effort", metavar="instant|fast|default|high", help="How long to adapt.")
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
        typer.Option("--rescaling", metavar="exact|loss-ratio|none", help="Gradient rescaling of weight fields."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="auto|cpu|cuda[:n]", help="Where to compute.")
    ] = None,
    jobs: Jobs = None,
    dask: Annotated[
        str | None,
        typer.Option(
            "--dask",
            metavar="ADDRESS",
            help="Encode on the workers of this Dask scheduler, as tcp://host:8786; they need the same files.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
    skip_existing: SkipExisting = False,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object per file.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show errors only.")] = False,
) -> None:
    """Compress files into .inr files.

    Several inputs, or a folder with all below it, need a folder for -o.
    One that fails does not stop the others. With --series they make one file, which -o names.
    """
    _check_usage(inputs, output, init, field, modality, format, json)
    folder = Path()
    if dask is not None:
        from inrcodec.registry import is_path

        _check_remote(inputs, output, jobs)
        folder = Path.cwd()
        if init and is_path(init):
            init = str(folder / init)
    options = encode_options(
        quality=quality,
        effort=effort,
        steps=steps,
        bits_per_sample=bpp,
        psnr=psnr,
        max_error=parse_bounds("--max-error", max_error or [], percent=True),
        max_error_rel=parse_bounds("--max-error-rel", max_error_rel or []),
        rescaling=rescaling,
        device=device,
    )
    files = find_inputs(inputs, modality)
    sources = tuple(folder / each.source for each in files)
    if series is not None:
        files = [series_input(files, output)]
    several = series is None and (len(files) > 1 or files[0].source != inputs[0])
    if dask is None:
        options = replace(options, processes=processes_of_a_file(len(files), jobs))
    outputs = places.Outputs(output, several=several, force=force, skip_existing=skip_existing)
    ending = places.extension(format) or ""
    settings = Settings(options, init, field, modality, embed, ending, series, sources, folder)
    batch = Batch(
        context,
        "encoded",
        several=several,
        jobs=jobs,
        device=options.device,
        init=[init] if init else [],
        json=json,
        quiet=quiet,
        dask=dask,
    )
    batch.run(files, lambda each: planned(outputs, each, partial(_encode, settings)))


def _encode(settings: Settings, source: Path, target: Path, show: Show) -> Done:
    """Encode a file, or the series that it begins; standard input and output are files, too."""
    from inrcodec.files import encode_file
    from inrcodec.registry import named_initialization

    reading = places.to_read(settings.folder / source, settings.suffix)
    with reading as path, places.to_write(settings.folder / target, SUFFIX) as file:
        report = encode_file(
            path if settings.series is None else settings.sources,
            file,
            settings.options,
            series=settings.series,
            initialization=named_initialization(settings.init) if settings.init else None,
            field=settings.field,
            modality=settings.modality,
            embed=settings.embed,
            on_progress=shown_by(show),
        )
        size = sum(map(places.size_of, [path] if settings.series is None else settings.sources))
    report = replace(report, output=str(target))
    if settings.series is None:
        report = replace(report, input=str(source))
    return Done(summary(report), report.to_json(), size, report.bytes)


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


def _check_remote(inputs: list[Path], output: str | None, jobs: int | None) -> None:
    """Raises: UsageError for what the workers of a cluster cannot do."""
    if places.STANDARD in inputs or output == "-":
        raise UsageError(
            "workers of a cluster have no standard input and output (-): give --dask files to read and write"
        )
    if jobs is not None:
        raise UsageError("--jobs is for processes of this machine, --dask for those of a cluster: give one of them")


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


def parse_bounds(option: str, given: list[str], *, percent: bool = False) -> Any:
    """Parse one number for all signals, or numbers by name as in t2m=0.1; None if there are none.

    percent: whether numbers may be followed by a percent sign; such texts are returned as they are.
    Raises: UsageError.
    """
    bounds: dict[str, float | str] = {}
    for text in given:
        name, _, number = text.rpartition("=")
        if name in bounds:
            raise UsageError(f"{option} is given twice for {name or 'all signals'}: give it once")
        try:
            value = float(number.removesuffix("%") if percent else number)
        except ValueError as error:
            raise UsageError(f"{option} is {text!r}, give a number as 0.1, or a name with one as t2m=0.1") from error
        bounds[name] = number if number.endswith("%") else value
    if "" in bounds and len(bounds) > 1:
        raise UsageError(f"{option} is given for all signals and by name: give one number, or names only")
    return bounds.get("", bounds or None)


def find_inputs(inputs: list[Path], modality: str | None) -> list[Input]:
    """Return the files to encode: the inputs themselves, and for folders all files below.

    A folder of frames is one video, where --modality asks for videos.
    Raises: UsageError if a folder has nothing to encode.
    """
    return [found for path in inputs for found in _found(path, modality)]


def series_input(files: list[Input], output: str | None) -> Input:
    """Return what stands for the files of a series. Raises: UsageError if -o names no file for all of them."""
    if output is None or places.is_folder(output):
        raise UsageError(f"-o is {output or 'not given'}, a series is one file: name it")
    if files[0].source == places.STANDARD:
        raise UsageError("standard input (-) is no series of files: leave out --series")
    return files[0]


def _found(path: Path, modality: str | None) -> Iterator[Input]:
    from inrcodec.signals import find_files

    if not path.is_dir():
        yield Input(path, path.with_suffix(SUFFIX).name)
        return
    files = find_files(path, modality)
    if not files:
        raise UsageError(f"{path} holds no file of {modality or 'any known modality'}: give another folder")
    for file in files:
        below = file.relative_to(path).parent if file != path else Path()
        if file.is_dir() and file.suffix.lower() != ZARR:  # of frames
            yield Input(file, str(below / f"{file.resolve().name}{SUFFIX}"))
        else:
            yield Input(file, str(below / file.with_suffix(SUFFIX).name))


def shown_by(show: Show) -> "Callable[[Progress], None]":
    """Return a callback of the encoder that shows where it is."""

    def shown(progress: "Progress") -> None:
        parts = [] if progress.psnr is None else [f"{progress.psnr:.2f} dB"]
        parts += [] if progress.rate is None else [f"{progress.rate:.3f} bits/sample"]
        if progress.stage == "adapt" and progress.step == progress.steps:
            show("code", 0, None, ", ".join(parts))
        else:
            show(progress.stage, progress.step, progress.steps, ", ".join(parts))

    return shown


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
        worst = f"RMSE {main['worst_slice_rmse']:.4g}, PSNR {main['worst_slice_psnr_db']:.2f} dB"
        fidelity += f", worst slice {main['worst_slice']} {worst}"
    if "max_error" in main:
        fidelity += f", largest error {main['max_error']:.4g}"
    bounds = {signal["name"]: signal["within"] for signal in report.signals if "within" in signal}
    if len(set(bounds.values())) == 1 and len(bounds) == len(report.signals):
        fidelity += f" (bound {bounds[main['name']]})"
    elif bounds:
        fidelity += f" (bounds {', '.join(f'{name or report.modality} {bound}' for name, bound in bounds.items())})"
    return (
        f"{report.input} -> {report.output}: {report.bytes:,} bytes ({rate}, 1:{report.ratio:.0f}), "
        f"{fidelity}, {report.seconds:.1f} s on {report.device}"
    )

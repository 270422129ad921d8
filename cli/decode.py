"""`inrcodec decode`: `.inr` files to pictures, videos, sounds and climate fields."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inrcodec.cli import places
from inrcodec.cli.batch import Batch, Done, Show, Task, planned
from inrcodec.cli.cores import processes_of_a_file
from inrcodec.cli.option_groups import Jobs, MaxSamples, SkipExisting
from inrcodec.cli.places import Input
from inrcodec.cli.resolution import resolution_for
from inrcodec.errors import ContainerError, SignalError, UsageError

if TYPE_CHECKING:
    from inrcodec.coding.header import StreamHeader


@dataclass(frozen=True)
class DecodeReport:
    """The outcome of decoding a file. shape: of the main signal's grid, slowest axis first."""

    input: str
    output: str
    modality: str
    shape: list[int]
    seconds: float
    device: str


@dataclass(frozen=True)
class Settings:
    """How all files are decoded, as the options say."""

    resolution: str | None
    fps: str | None
    sample_rate: int | None
    extension: str | None
    init: tuple[str, ...]
    max_samples: int | None
    skip_damaged: bool
    device: str
    processes: int
    selection: Mapping[str, str]
    variables: tuple[str, ...]

    @property
    def picks(self) -> bool:
        """Whether only a part is decoded."""
        return bool(self.selection or self.variables)

    def extension_for(self, headers: "Sequence[StreamHeader]") -> str:
        """Return the extension of a file of these signals, where -o does not name it."""
        from inrcodec.signals import default_extension

        return self.extension or default_extension(headers[0].modality)


def decode(
    context: typer.Context,
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help="Files, folders with .inr files below, or - for standard input."),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER|-",
            show_default="beside the input",
            help="Where to write; the extension is the format. A folder for several inputs.",
        ),
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option(
            "--resolution",
            "-r",
            metavar="WxH|N|Fx",
            show_default="the original",
            help="800x600, longer side 2048, or 0.5x; latitudes x longitudes for climate.",
        ),
    ] = None,
    fps: Annotated[str | None, typer.Option("--fps", help="Frames per second, as 60 or 30000/1001.")] = None,
    sample_rate: Annotated[int | None, typer.Option("--sample-rate", help="Samples per second of sound.")] = None,
    select: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIM=VALUE|DIM=A..B",
            help="Only a part of climate fields, as time=2019-03-05T06 or level=500; repeat for more dimensions.",
        ),
    ] = None,
    variables: Annotated[
        str | None, typer.Option(metavar="NAME,...", show_default="all", help="Only these climate fields.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option("--format", metavar="EXT", help="Format where -o does not name it, as png or flac."),
    ] = None,
    init: Annotated[
        list[str] | None,
        typer.Option("--init", metavar="FILE", help="Further initialization that may be needed; repeatable."),
    ] = None,
    max_samples: MaxSamples = None,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Decode what is whole of a damaged or cut file.")
    ] = False,
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda[:n]", help="Where to compute.")] = "auto",
    jobs: Jobs = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
    skip_existing: SkipExisting = False,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object per file.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show errors only.")] = False,
) -> None:
    """Rebuild the signals of .inr files, at any resolution.

    Several inputs, or a folder with all below it, need a folder for -o.
    One that fails does not stop the others.
    """
    if output == "-" and json:
        raise UsageError("standard output cannot take both the file (-o -) and --json: give -o a file")
    if places.STANDARD in inputs and len(inputs) > 1:
        raise UsageError("standard input (-) cannot be one of several inputs: decode it by itself")
    extension = places.extension(format)
    if extension and output and output != "-" and not places.is_folder(output):
        raise UsageError(f"-o names the format already ({output}): leave out --format")
    files = places.encoded_inputs(inputs)
    several = len(files) > 1 or files[0].source != inputs[0]
    outputs = places.Outputs(output, several=several, force=force, skip_existing=skip_existing)
    settings = Settings(
        resolution=resolution,
        fps=fps,
        sample_rate=sample_rate,
        extension=extension,
        init=tuple(init or ()),
        max_samples=max_samples,
        skip_damaged=skip_damaged,
        device=device,
        processes=processes_of_a_file(len(files), jobs),
        selection=parse_selection(select or []),
        variables=tuple(variables.split(",")) if variables else (),
    )
    if settings.picks and (resolution, fps, sample_rate, skip_damaged) != (None, None, None, False):
        raise UsageError(
            "--select and --variables take fields as they are: leave out other resolutions, --skip-damaged"
        )

    def plan(each: Input) -> Task | Done:
        if each.source != places.STANDARD:
            named = settings.extension_for(read_headers(each.source, skip_damaged))
            each = replace(each, name=each.name + named)
        return planned(outputs, each, partial(_decode, settings))

    batch = Batch(
        context,
        "decoded",
        several=several,
        jobs=jobs,
        device=device,
        init=settings.init,
        json=json,
        quiet=quiet,
    )
    batch.run(files, plan)


def _decode(settings: Settings, source: Path, target: Path, show: Show) -> Done:
    """Decode a file; standard input and output are files, too."""
    from inrcodec.decoder import SAMPLES
    from inrcodec.device import pick_device
    from inrcodec.files import decode_file
    from inrcodec.registry import named_initialization

    with places.to_read(source, places.SUFFIX) as path:
        headers = read_headers(path, settings.skip_damaged)
        wanted = resolution_for(
            [header.modality for header in headers], settings.resolution, settings.fps, settings.sample_rate
        )
        shape = [axis.size for axis in wanted.apply(headers[0].axes)]
        extension = settings.extension_for(headers)
        if target != places.STANDARD and not target.suffix:
            raise UsageError(f"-o {target} has no extension: add the format's, as {target}{extension}")
        with places.to_write(target, extension) as file:
            began = time.perf_counter()
            if settings.picks:
                shape = _select(settings, path, file)
            else:
                decode_file(
                    path,
                    file,
                    resolution=wanted,
                    initializations=[named_initialization(name) for name in settings.init],
                    max_samples=settings.max_samples or SAMPLES,
                    skip_damaged=settings.skip_damaged,
                    device=settings.device,
                    processes=settings.processes,
                    on_progress=lambda share: show("decode", round(100 * share), 100, "%"),
                )
            read, written = places.size_of(path), places.size_of(file)
    report = DecodeReport(
        input=str(source),
        output=str(target),
        modality=headers[0].modality,
        shape=shape,
        seconds=time.perf_counter() - began,
        device=str(pick_device(settings.device)),
    )
    line = (
        f"{report.input} -> {report.output}: {report.modality}, {' x '.join(map(str, shape))}, "
        f"{report.seconds:.1f} s on {report.device}"
    )
    return Done(line, vars(report), read, written)


def _select(settings: Settings, path: Path, file: Path) -> list[int]:
    """Decode a part of climate fields; return its sizes."""
    from inrcodec.decoder import SAMPLES
    from inrcodec.selection import select_file

    sizes = select_file(
        path,
        file,
        settings.selection,
        settings.variables,
        init=settings.init,
        max_samples=settings.max_samples or SAMPLES,
        device=settings.device,
    )
    return list(sizes.values())


def parse_selection(values: Sequence[str]) -> dict[str, str]:
    """Read the values of --select. Raises: UsageError unless each is DIM=VALUE, of different dimensions."""
    selection: dict[str, str] = {}
    for value in values:
        dimension, equals, wanted = value.partition("=")
        if not (dimension and equals and wanted):
            raise UsageError(f"--select {value!r} is not DIM=VALUE or DIM=FIRST..LAST")
        if dimension in selection:
            raise UsageError(f"--select is given twice for {dimension!r}: give a range, as {dimension}=FIRST..LAST")
        selection[dimension] = wanted
    return selection


def read_headers(path: Path, skip_damaged: bool = False) -> "list[StreamHeader]":
    """Read the headers of an `.inr` file, the main signal's first. Raises: SignalError, ContainerError."""
    from inrcodec.coding.container import read_container

    try:
        container = read_container(path.read_bytes(), skip_damaged=skip_damaged)
        return [stream.header for stream in container.streams]
    except OSError as error:
        raise SignalError(f"cannot read {path}: {error.strerror}") from error
    except ContainerError as error:
        raise type(error)(f"{path}: {error}") from error

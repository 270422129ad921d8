"""`inrcodec decode`: an `.inr` file to a picture, a video, a sound or a climate field."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inrcodec.cli import console, places
from inrcodec.cli.option_groups import MaxSamples
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


def decode(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="An .inr file, or - for standard input.")],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER|-",
            show_default="beside the input",
            help="Where to write; the extension is the format.",
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
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show errors only.")] = False,
) -> None:
    """Rebuild the signal of an .inr file, at any resolution."""
    to_stdout = output == "-"
    if to_stdout and json:
        raise UsageError("standard output cannot take both the file (-o -) and --json: give -o a file")
    extension = places.extension(format)
    if extension and output and not to_stdout and not places.is_folder(output):
        raise UsageError(f"-o names the format already ({output}): leave out --format")
    with ExitStack() as stack:
        path = stack.enter_context(places.spooled_input(".inr")) if source == places.STANDARD else source
        headers = read_headers(path, skip_damaged)
        wanted = resolution_for([header.modality for header in headers], resolution, fps, sample_rate)
        shape = [axis.size for axis in wanted.apply(headers[0].axes)]

        from inrcodec.decoder import SAMPLES
        from inrcodec.device import pick_device
        from inrcodec.files import decode_file
        from inrcodec.registry import named_initialization
        from inrcodec.signals import default_extension

        extension = extension or default_extension(headers[0].modality)
        if to_stdout:
            target = stack.enter_context(places.spooled_output(extension))
        else:
            target = places.output_path(output, source, source.with_suffix(extension).name)
            if not target.suffix:
                raise UsageError(f"-o {target} has no extension: add the format's, as {target}{extension}")
            places.check_free(target, force)
        known = [named_initialization(name) for name in init or ()]
        line = stack.enter_context(console.ProgressLine(quiet=quiet))
        began = time.perf_counter()
        decode_file(
            path,
            target,
            resolution=wanted,
            initializations=known,
            max_samples=max_samples or SAMPLES,
            skip_damaged=skip_damaged,
            device=device,
            on_progress=lambda share: line.update(f"{source.name}: decode", round(100 * share), 100, "%"),
        )
    report = DecodeReport(
        input=str(source),
        output="-" if to_stdout else str(target),
        modality=headers[0].modality,
        shape=shape,
        seconds=time.perf_counter() - began,
        device=str(pick_device(device)),
    )
    if json:
        console.json_data(vars(report))
    if not quiet:
        console.say(
            f"{report.input} -> {report.output}: {report.modality}, {' x '.join(map(str, shape))}, "
            f"{report.seconds:.1f} s on {report.device}"
        )


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

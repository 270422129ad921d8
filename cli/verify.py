"""`inrcodec verify`: are `.inr` files whole, and how near are they to their originals?"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inrcodec.cli import places
from inrcodec.cli.batch import Batch, Done, Show
from inrcodec.cli.option_groups import Jobs, MaxSamples
from inrcodec.errors import UsageError

if TYPE_CHECKING:
    from inrcodec.verification import Verification


def verify(
    context: typer.Context,
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Files, or folders with .inr files below.")],
    against: Annotated[
        list[Path] | None,
        typer.Option("--against", metavar="ORIGINAL", help="Compare with the original: quality, and the bound if any."),
    ] = None,
    series: Annotated[
        str | None,
        typer.Option(
            metavar="DIM", help="Of a series: the dimension its originals follow each other along, each with --against."
        ),
    ] = None,
    init: Annotated[
        list[str] | None,
        typer.Option("--init", metavar="FILE", help="Further initialization that may be needed; repeatable."),
    ] = None,
    max_samples: MaxSamples = None,
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda[:n]", help="Where to compute.")] = "auto",
    jobs: Jobs = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object per file.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show errors only.")] = False,
) -> None:
    """Check that .inr files are whole: checksums, structure and every symbol.

    A file that fails does not stop the others; the exit code is 1 if any does.
    """
    files = places.encoded_inputs(inputs)
    originals = tuple(against or ())
    if originals and len(files) > 1:
        raise UsageError(f"--against is for one file, not for {len(files)}: give one, or leave it out")
    if len(originals) > 1 and series is None:
        raise UsageError(f"--against is given {len(originals)} times: of a series say along which dimension (--series)")
    if series is not None and not originals:
        raise UsageError("--series is for comparing with originals: give them with --against, or leave it out")
    names = tuple(init or ())
    batch = Batch(
        context,
        "whole",
        several=len(files) > 1,
        jobs=jobs,
        device=device,
        init=names,
        json=json,
        quiet=quiet,
    )
    batch.run(files, lambda each: partial(_verify, each.source, originals, series, names, max_samples, device))


def _verify(
    source: Path,
    originals: Sequence[Path],
    series: str | None,
    init: Sequence[str],
    max_samples: int | None,
    device: str,
    show: Show,
) -> Done:
    from inrcodec.decoder import SAMPLES
    from inrcodec.registry import named_initialization
    from inrcodec.verification import verify_file

    found = verify_file(
        source,
        against=originals or None,
        series=series,
        initializations=[named_initialization(name) for name in init],
        max_samples=max_samples or SAMPLES,
        device=device,
    )
    return Done(summary(found), {**vars(found), "signals": list(found.signals)}, found.bytes)


def summary(found: "Verification") -> str:
    """Say in one line what a check found."""
    signals = "1 signal" if len(found.signals) == 1 else f"{len(found.signals)} signals"
    symbols = sum(signal["symbols"] for signal in found.signals)
    text = f"{found.input}: whole, {found.bytes:,} bytes, {signals}, {symbols:,} symbols"
    for signal in found.signals:
        if "max_error" in signal:
            fidelity = "lossless" if signal["psnr_db"] is None else f"PSNR {signal['psnr_db']:.2f} dB"
            bound = f" (bound {signal['within']})" if "within" in signal else ""
            text += (
                f"; {signal['name'] or signal['modality']} {fidelity}, largest error {signal['max_error']:.4g}{bound}"
            )
    return text

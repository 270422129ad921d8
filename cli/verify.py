"""`inrcodec verify`: are `.inr` files whole, and how near are they to their originals?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inrcodec.cli import console
from inrcodec.cli.batch import Batch
from inrcodec.cli.option_groups import MaxSamples
from inrcodec.errors import UsageError

if TYPE_CHECKING:
    from inrcodec.verification import Verification


def verify(
    context: typer.Context,
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Files, or folders with .inr files below.")],
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="ORIGINAL", help="Compare with the original: quality, and the bound if any."),
    ] = None,
    init: Annotated[
        list[str] | None,
        typer.Option("--init", metavar="FILE", help="Further initialization that may be needed; repeatable."),
    ] = None,
    max_samples: MaxSamples = None,
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda[:n]", help="Where to compute.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object per file.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show errors only.")] = False,
) -> None:
    """Check that .inr files are whole: checksums, structure and every symbol.

    A file that fails does not stop the others; the exit code is 1 if any does.
    """
    files = [file for path in inputs for file in _files(path)]
    if against is not None and len(files) > 1:
        raise UsageError(f"--against is for one file, not for {len(files)}: give one, or leave it out")
    from inrcodec.decoder import SAMPLES
    from inrcodec.registry import named_initialization
    from inrcodec.verification import verify_file

    known = [named_initialization(name) for name in init or ()]
    limit = max_samples or SAMPLES
    batch = Batch(context, several=len(files) > 1, quiet=quiet)
    for file in files:
        with batch.item(file):
            found = verify_file(file, against=against, initializations=known, max_samples=limit, device=device)
            if json:
                console.json_data({**vars(found), "signals": list(found.signals)})
            if not quiet:
                console.say(summary(found))
    batch.finish()


def _files(path: Path) -> list[Path]:
    """Return the files to check. Raises: UsageError if a folder has none."""
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*.inr") if file.is_file())
    if not found:
        raise UsageError(f"{path} holds no .inr file: give another folder")
    return found


def summary(found: "Verification") -> str:
    """Say in one line what a check found."""
    signals = "1 signal" if len(found.signals) == 1 else f"{len(found.signals)} signals"
    symbols = sum(signal["symbols"] for signal in found.signals)
    text = f"{found.input}: whole, {found.bytes:,} bytes, {signals}, {symbols:,} symbols"
    for signal in found.signals:
        if "max_error" in signal:
            fidelity = "lossless" if signal["psnr_db"] is None else f"PSNR {signal['psnr_db']:.2f} dB"
            bound = f" (bound {signal['bound']:g})" if "bound" in signal else ""
            text += (
                f"; {signal['name'] or signal['modality']} {fidelity}, largest error {signal['max_error']:.4g}{bound}"
            )
    return text

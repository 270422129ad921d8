"""`inrcodec inits`: the initializations at hand and their model cards."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inrcodec.cli import console
from inrcodec.cli.interruption import load_torch
from inrcodec.errors import InitializationError

if TYPE_CHECKING:
    from inrcodec.initialization import Initialization


def inits(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME|ID|FILE]", help="Print the model card of this one.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the installed initializations, or print one's model card."""
    load_torch()
    if name is not None:
        path, initialization = find(name)
        if json:
            console.json_data(describe(path, initialization))
        else:
            console.data(read_card(path).rstrip())
        return

    from inrcodec.initialization import Initialization
    from inrcodec.registry import PATH_VARIABLE, installed

    found, damaged = [], 0
    for path in installed():
        try:
            found.append(describe(path, Initialization.load(path)))
        except InitializationError as error:
            damaged += 1
            console.error(str(error))
    if json:
        console.json_data(found)
    elif found:
        _show(found)
    elif not damaged:
        console.say(f"no initialization is installed: make one with meta-train, or name its folder in {PATH_VARIABLE}")
    if damaged:
        raise typer.Exit(1)


def find(name: str) -> "tuple[Path | None, Initialization]":
    """Find an initialization by name, identifier or file, and the file it is in.

    Raises: UnknownInitialization, InitializationError.
    """
    from inrcodec.registry import installed, named_initialization

    initialization = named_initialization(name)
    if Path(name).is_file():
        return Path(name), initialization
    content = initialization.to_bytes()
    paths = [path for path in installed() if path.stem == name or path.read_bytes() == content]
    return paths[0] if paths else None, initialization


def read_card(path: Path | None) -> str:
    """Read the model card beside an initialization. Raises: InitializationError if there is none."""
    card = None if path is None else path.with_suffix(".md")
    if card is None or not card.is_file():
        raise InitializationError(f"{path} has no model card ({card}): --json shows what the file itself says")
    return card.read_text(encoding="utf-8")


def describe(path: Path | None, initialization: "Initialization") -> dict[str, Any]:
    """Return what an initialization is, as plain values."""
    from inrcodec.registry import DEFAULTS

    name = path.stem if path else ""
    return {
        "name": name,
        "identifier": initialization.identifier.hex(),
        "modality": initialization.modality,
        "default": DEFAULTS.get(initialization.modality) == name,
        "field": initialization.field.name,
        "parameters": initialization.coded_parameters,
        "patch": list(initialization.patches.shape),
        "steps": initialization.adaptation.steps,
        "path": str(path),
        "bytes": len(initialization.to_bytes()),
        "provenance": initialization.provenance,
    }


def _show(found: list[dict[str, Any]]) -> None:
    from inrcodec.meta.evaluation import Evaluation

    rows = []
    for each in found:
        rows.append(
            (
                each["name"] + (" (default)" if each["default"] else ""),
                each["modality"],
                each["field"],
                "x".join(map(str, each["patch"])),
                "latents" if each["parameters"] == 0 else f"{each['parameters']} weights",
                Evaluation.of(each["provenance"]).summary or "-",
                f"{each['bytes']:,}",
                each["identifier"],
            )
        )
    console.table(("name", "modality", "field", "patch", "coded", "held-out", "bytes", "identifier"), rows)

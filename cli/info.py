"""`inrcodec info`: what is in an `.inr` file, and what it costs."""

import sys
from collections import Counter
from io import BytesIO
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from inrcodec.cli import console, places
from inrcodec.errors import ContainerError, SignalError

if TYPE_CHECKING:
    from inrcodec.coding.header import StreamHeader


def info(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="An .inr file, or - for standard input.")],
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Show what is in an .inr file, and how many bytes each part takes."""
    try:
        with source.open("rb") if source != places.STANDARD else BytesIO(places.binary(sys.stdin).read()) as file:
            content = describe(file)
    except OSError as error:
        raise SignalError(f"cannot read {source}: {error.strerror}") from error
    except ContainerError as error:
        raise type(error)(f"{source}: {error}") from error
    content = {"file": str(source), **content}
    if json:
        console.json_data(content)
    else:
        _show(content)


def describe(file: BinaryIO) -> dict[str, Any]:
    """Return the content of an `.inr` file as plain values: "bytes", "version", "embedded", "signals", "parts".

    Only the headers are read, however large the file. "embedded" is the number of initializations in it. A part's
    "signal" is the index into "signals", None for what belongs to the file; the parts add up to the file.
    Raises: ContainerError.
    """
    from inrcodec.coding.container import read_outline
    from inrcodec.coding.sections import VERSION

    outline = read_outline(file)
    sizes: Counter[tuple[str, int | None]] = Counter()
    counts: Counter[tuple[str, int | None]] = Counter()
    for section in outline.sizes:
        sizes[section.label, section.stream] += section.size
        counts[section.label, section.stream] += 1
    signals = []
    for number, header in enumerate(outline.headers):
        own = sum(size for (_, owner), size in sizes.items() if owner == number)
        signals.append(_describe_signal(header, own))
    return {
        "bytes": sum(sizes.values()),
        "version": VERSION,
        "embedded": outline.embedded,
        "signals": signals,
        "parts": [
            {"part": label, "signal": owner, "count": counts[label, owner], "bytes": size}
            for (label, owner), size in sizes.items()
        ],
    }


def _describe_signal(header: "StreamHeader", size: int) -> dict[str, Any]:
    import numpy as np

    shape = [axis.size for axis in header.axes]
    rates = [axis.rate for axis in header.axes if axis.rate is not None]
    return {
        "name": header.name,
        "modality": header.modality,
        "shape": shape,
        "channels": header.channels,
        "dtype": str(np.dtype(header.dtype)),
        "value_range": list(header.value_range),
        "rate": str(rates[0]) if rates else None,
        "missing_values": header.has_missing,
        "initialization": header.initialization.hex(),
        "chunks": header.chunks,
        **({} if header.bound is None else header.bound.plain()),
        "bytes": size,
        "bits_per_sample": 8 * size / prod(shape),
    }


def _show(content: dict[str, Any]) -> None:
    signals = content["signals"]
    names = [signal["name"] or "main" for signal in signals]
    embedded = ", initialization embedded" if content["embedded"] else ""
    console.data(f"{content['file']}: {content['bytes']:,} bytes, format version {content['version']}{embedded}\n")
    console.table(
        (
            "signal",
            "modality",
            "shape",
            "channels",
            "type",
            "per second",
            "bits/sample",
            "largest error",
            "initialization",
        ),
        [
            (
                name,
                signal["modality"],
                "x".join(map(str, signal["shape"])),
                str(signal["channels"]),
                signal["dtype"],
                signal["rate"] or "-",
                f"{signal['bits_per_sample']:.3f}",
                signal.get("within", "-"),
                signal["initialization"],
            )
            for name, signal in zip(names, signals, strict=True)
        ],
    )
    console.data("")
    console.table(
        ("part", "of", "count", "bytes", "share"),
        [
            (
                part["part"],
                "file" if part["signal"] is None else names[part["signal"]],
                str(part["count"]),
                f"{part['bytes']:,}",
                f"{part['bytes'] / content['bytes']:.1%}",
            )
            for part in content["parts"]
        ],
    )

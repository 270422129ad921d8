"""Which light the values of a clip mean: primaries and transfer, in the numbers of ITU-T H.273, kept as they are."""

from pathlib import Path
from typing import Any

from inrcodec.errors import SignalError

BT709, BT2020 = 1, 9
_UNSPECIFIED = (0, 2, 3)
_HDR_TRANSFERS = (16, 18)
"""PQ and HLG."""
_LARGEST = 255


def colour_attributes(context: Any) -> dict[str, Any]:
    """Return the attribute "colour", [primaries, transfer], of a PyAV decoder; none if they are BT.709's or unknown."""
    tags = [context.color_primaries, context.color_trc]
    colour = [BT709 if tag in _UNSPECIFIED else int(tag) for tag in tags]
    return {} if colour == [BT709, BT709] else {"colour": colour}


def colour_of(attributes: dict[str, Any], path: Path) -> tuple[int, int, int]:
    """Return primaries, transfer and the matrix that goes with them. Raises: SignalError for other values."""
    colour = attributes.get("colour", [BT709, BT709])
    if not (isinstance(colour, list) and len(colour) == 2 and all(n in range(1, _LARGEST + 1) for n in colour)):
        raise SignalError(f"{path}: the colour is {colour!r}; it must be two numbers from 1 to {_LARGEST}")
    primaries, transfer = colour
    return primaries, transfer, BT2020 if primaries == BT2020 else BT709


def is_wide(primaries: int, transfer: int) -> bool:
    """Say whether a clip looks wrong where nobody knows its colours."""
    return primaries >= BT2020 or transfer in _HDR_TRANSFERS

"""Checking that a video file is as long as it says."""

from pathlib import Path

from inrcodec.errors import SignalError


def check_complete(path: Path) -> None:
    """Refuse a file shorter than it says: decoders would quietly return the frames that are left.

    Raises: SignalError if the file is empty or shorter than its boxes or elements add up to.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64).ljust(64, b"\0")
        end = 0
        if head[:4] == b"RIFF":
            end = 8 + int.from_bytes(head[4:8], "little")
        elif head[:4] == b"\x1a\x45\xdf\xa3":
            end = _segment_end(head)
        elif head[4:8] == b"ftyp":
            while end < size:
                file.seek(end)
                box = file.read(16)
                length = int.from_bytes(box[:4], "big")
                length = int.from_bytes(box[8:16], "big") if length == 1 else length
                if length < 8 or not box[4:8].isalnum():
                    break
                end += length
    if size == 0:
        raise SignalError(f"{path}: the file is empty")
    if end > size:
        raise SignalError(f"{path}: the file is cut short, it has {size} of {end} bytes; get a complete copy")


def _segment_end(head: bytes) -> int:
    """Return where the Segment of a Matroska file ends, 0 if its size is unknown (a live recording)."""

    def size_at(start: int) -> tuple[int, int]:
        length = 9 - head[start].bit_length()
        payload = int.from_bytes(head[start : start + length], "big") & ((1 << 7 * length) - 1)
        return payload, start + length

    header, start = size_at(4)
    segment = start + header
    if head[segment : segment + 4] != b"\x18\x53\x80\x67" or len(head) < segment + 12:
        return 0
    payload, start = size_at(segment + 4)
    return 0 if payload == (1 << 7 * (start - segment - 4)) - 1 else start + payload

"""The links of an Ogg file: radio streams and joined files are several Ogg files one after the other."""

from mmap import mmap

_MARK = b"OggS"
_HEAD = 27
"""Bytes of a page before the table of its segments' lengths."""
_FIRST_PAGE = 2


def ogg_links(data: bytes | mmap) -> list[tuple[int, int]]:
    """Begin and end of every link in the bytes of an Ogg file.

    A link begins with the first pages of its streams; such a page after any other begins the next link.
    """
    begins = [0]
    place, in_head = 0, True
    while (place := data.find(_MARK, place)) >= 0 and place + _HEAD <= len(data):
        is_first = bool(data[place + 5] & _FIRST_PAGE)
        if is_first and not in_head:
            begins.append(place)
        in_head = is_first
        segments = data[place + _HEAD : place + _HEAD + data[place + _HEAD - 1]]
        place += _HEAD + len(segments) + sum(segments)
    return list(zip(begins, [*begins[1:], len(data)], strict=True))

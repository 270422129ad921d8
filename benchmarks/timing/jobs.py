"""These jobs are measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["encode", "decode", "train", "shell decode", "shell encode"]
Options = Mapping[str, Any]

REFERENCE = "f6d3c524b2631c85f369e747d5ffc1881499946a"
"""The revision that the targets are about."""


def options(effort: str) -> Options:
    """Return the options of the encoder at its default quality, which older revisions have too."""
    return {"effort": effort, "quality": 40.0}


@dataclass(frozen=True)
class Job:
    """Something to measure.

    what: in words. kind: what is run. source: name of its input, see `Inputs`. target: how many times faster than
    `REFERENCE` it shall be, or with `cores` than on one.
    options: of the encoder. older: options in their place for a revision that has not their effort.
    cores: that the code may use, compared with one: seconds on the wall then, else CPU seconds of one thread.
    """

    what: str
    kind: Kind
    source: str
    target: float | None
    options: Options = field(default_factory=lambda: options("fast"))
    older: Options | None = None
    cores: int | None = None

    @property
    def clock(self) -> str:
        """The seconds that are compared: "cpu" or "wall"."""
        return "cpu" if self.cores is None else "wall"


JOBS = {
    "image-instant": Job(
        "encode a picture, effort instant; by a revision without it: fast",
        "encode",
        "picture",
        15,
        options("instant"),
        older=options("fast"),
    ),
    "image-fast": Job("encode a picture, effort fast", "encode", "picture", 5),
    "image-default": Job("encode a picture, effort default", "encode", "picture", 5, options("default")),
    "image-decode": Job("decode a picture", "decode", "picture", 3),
    "image-decode-shell": Job("inrcodec decode, less the start of Python with torch", "shell decode", "picture", None),
    "climate-max-error": Job(
        "encode a field with a bound of 0.5, effort fast", "encode", "field", 6, {"effort": "fast", "max_error": 0.5}
    ),
    "clip-encode": Job("encode 16 frames, effort fast", "encode", "clip", 4),
    "clip-decode": Job("decode 16 frames", "decode", "clip", 3),
    "sound-encode": Job("encode a second of sound, effort default", "encode", "sound", 4, options("default")),
    "sound-decode": Job("decode a second of sound", "decode", "sound", None, options("default")),
    "training-step": Job("an outer step on pictures", "train", "pictures", 4),
    "two-cores-picture": Job(
        "inrcodec encode of a large picture, effort fast", "shell encode", "large picture", 1.8, cores=2
    ),
    "two-cores-folder": Job("inrcodec encode of a folder, effort fast", "shell encode", "folder", 1.9, cores=2),
}

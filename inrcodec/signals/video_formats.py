"""How clips are written to each kind of video file, and what reading and writing share."""

from dataclasses import dataclass

MAX_RATE = 1000
"""Frames per second."""

# SWS_BICUBIC | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP | SWS_ACCURATE_RND: without them the conversion to RGB
# repeats chroma samples and loses up to two levels to rounding.
ACCURATE = 0x4 | 0x2000 | 0x4000 | 0x40000


@dataclass(frozen=True)
class Coding:
    """How clips are written to one kind of file."""

    container: str
    picture_codec: str
    pixel_format: str
    picture_options: dict[str, str]
    sound_codec: str
    sound_bit_rate: int | None  # per channel; None where it is lossless
    names_colours: bool = True  # the file says which primaries and transfer its values mean


_H264 = {"crf": "12", "preset": "medium"}
_VP9 = {"crf": "15", "b": "0", "deadline": "good", "cpu-used": "3", "row-mt": "1"}
_FFV1 = {"level": "3", "slicecrc": "1", "g": "1"}
_MJPEG = {"qmin": "1", "qmax": "2"}
CODINGS = {
    ".mp4": Coding("mp4", "libx264", "yuv420p", _H264, "aac", 128_000),
    ".mov": Coding("mov", "libx264", "yuv420p", _H264, "aac", 128_000),
    ".mkv": Coding("matroska", "ffv1", "bgr0", _FFV1, "flac", None),
    ".webm": Coding("webm", "libvpx-vp9", "yuv420p", _VP9, "libopus", 96_000),
    ".avi": Coding("avi", "mjpeg", "yuvj444p", _MJPEG, "pcm_s16le", None, names_colours=False),
}

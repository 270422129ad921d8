"""Decoding sound files in one pass from beginning to end, whatever length they claim. Importing this imports soundfile.

libsndfile reads everything; FFmpeg helps where libsndfile takes a length that nobody knows for that of the sound.
"""

import contextlib
import io
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from inrcodec.errors import SignalError
from inrcodec.signals.audio_links import sound_links, states_length
from inrcodec.signals.reading_errors import unreadable

_BLOCK = 1 << 16
_UNKNOWN = 1 << 62
"""libsndfile's length of a sound whose length is unknown is beyond."""
_FINE = ("PCM_32", "DOUBLE")
"""Sample formats that 32-bit floats do not hold."""
_DEMUXERS = "mp3,wav,au,caf"
_SUBTYPES = {"pcm_s16": "PCM_16", "pcm_s24": "PCM_24", "pcm_s32": "PCM_32", "pcm_f32": "FLOAT", "pcm_f64": "DOUBLE"}


@dataclass(frozen=True, eq=False)
class Samples:
    """values: [channels, time, 1] float32, or float64 where that is needed to hold them exactly. subtype: the sample
    format in libsndfile's words."""

    values: np.ndarray
    rate: int
    subtype: str


class _Source:
    """An open file for libsndfile, which looks before the beginning of some damaged ones: the place then stays as it
    was, where Python's files would raise an error that nobody can catch."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.readinto = file.readinto  # type: ignore[attr-defined]
        self.read, self.tell = file.read, file.tell

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a place in the file; return it in bytes from the beginning."""
        with contextlib.suppress(OSError, ValueError):
            self._file.seek(offset, whence)
        return self.tell()


def _in_one_pass(file: BinaryIO) -> soundfile.SoundFile:
    """Open a sound that is read from beginning to end."""
    sound = soundfile.SoundFile(_Source(file))
    # Else soundfile seeks after every block, after which MP3 goes on with other samples, and FLAC needs a length.
    sound.seekable = lambda: False
    return sound


def read_samples(path: Path) -> Samples:
    """Return all samples of a sound file.

    Raises: SignalError if the file is shorter than it states, or sounds in one file differ in kind. soundfile's and
        FFmpeg's errors pass through.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        links, is_estimate = sound_links(data), not states_length(data)
        if len(links) > 1:
            return _linked(path, data, links)
    try:
        # By name, soundfile takes one that ends in .raw for headerless samples.
        with path.open("rb") as file, _in_one_pass(file) as sound:
            kind, announced = sound.format, sound.frames
            samples = Samples(_samples(sound), sound.samplerate, sound.subtype)
    except soundfile.SoundFileError:
        if not _is_open(path):
            raise
        return _with_ffmpeg(path, "")  # libsndfile takes no Core Audio file of unknown length
    length = samples.values.shape[1]
    if length == 0 and kind in ("WAV", "WAVEX", "AU") and _is_open(path):
        return _with_ffmpeg(path, samples.subtype)
    if kind == "MP3" and is_estimate:
        return samples if length < announced else _with_ffmpeg(path, samples.subtype)
    if kind not in ("WAV", "WAVEX"):
        _check_length(path, length, announced)
    return samples


def _check_length(path: Path, length: int, announced: int) -> None:
    if length < announced < _UNKNOWN:
        raise SignalError(
            f"{path}: ends after {length} of {announced} samples; convert it to .wav to keep what is there"
        )


def _samples(sound: soundfile.SoundFile) -> np.ndarray:
    """Return as many samples [channels, time, 1] as there are: the length in a header may be wrong."""
    dtype = "float64" if sound.subtype in _FINE else "float32"
    blocks: list[np.ndarray] = []
    while len(block := sound.read(_BLOCK, dtype=dtype, always_2d=True)):
        blocks.append(block)
    return _joined([block.T for block in blocks], sound.channels, np.dtype(dtype))


def _joined(blocks: list[np.ndarray], channels: int, dtype: np.dtype) -> np.ndarray:
    """Join blocks [channels, time] one after the other to [channels, time, 1]."""
    values = np.empty((channels, sum(block.shape[1] for block in blocks), 1), dtype)
    start = 0
    for block in blocks:
        values[:, start : start + block.shape[1], 0] = block
        start += block.shape[1]
    return values


def _linked(path: Path, data: mmap.mmap, links: list[tuple[int, int]]) -> Samples:
    """Return all sounds in a file, one after the other."""
    pieces: list[Samples] = []
    for begin, end in links:
        with _in_one_pass(io.BytesIO(data[begin:end])) as sound:
            piece = Samples(_samples(sound), sound.samplerate, sound.subtype)
            _check_length(path, piece.values.shape[1], sound.frames)
        pieces.append(piece)
        (channels, rate), (others, other) = ((len(each.values), each.rate) for each in (pieces[0], piece))
        if (channels, rate) != (others, other):
            raise SignalError(
                f"{path}: a sound of {channels} channels at {rate} Hz is followed by one of {others} at {other} Hz "
                "in the same file; split it"
            )
    first = pieces[0]
    values = _joined([piece.values[..., 0] for piece in pieces], len(first.values), first.values.dtype)
    return Samples(values, first.rate, first.subtype)


def _is_open(path: Path) -> bool:
    """Say whether samples follow the header of a WAV, AU or CAF file that states none; other chunks may follow, too."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    if head[:4] == b"caff":
        return b"data" + b"\xff" * 8 in head
    if head[:4] == b".snd":
        return len(head) > int.from_bytes(head[4:8], "big")
    rest = head[head.find(b"data") + 8 :] if head[:4] == b"RIFF" else b""
    is_chunk = rest[:4].isalnum() and int.from_bytes(rest[4:8], "little") <= path.stat().st_size
    return len(rest) > 0 and not is_chunk


def _with_ffmpeg(path: Path, subtype: str) -> Samples:
    """Read all samples with FFmpeg. subtype: the sample format that libsndfile found, "" to take it from the track."""
    import av

    blocks: list[np.ndarray] = []
    try:
        with av.open(str(path), options={"format_whitelist": _DEMUXERS}, metadata_errors="replace") as container:
            track = container.streams.audio[0]
            for packet in container.demux(track):
                for frame in packet.decode():
                    block = frame.to_ndarray()
                    blocks.append(block if frame.format.is_planar else block.reshape(-1, frame.layout.nb_channels).T)
            rate, name = track.rate, track.codec_context.name
    except (av.error.FFmpegError, IndexError) as error:
        raise unreadable(path, "sound", error, "the file may be damaged") from error
    subtype = subtype or _SUBTYPES.get(name[:-2], "")
    if not blocks or len({len(block) for block in blocks}) > 1:
        raise SignalError(f"{path}: the file has no samples, or its number of channels changes")
    dtype = np.dtype(np.float64 if subtype in _FINE else np.float32)
    return Samples(_joined([_full_scale(block) for block in blocks], len(blocks[0]), dtype), rate, subtype)


def _full_scale(block: np.ndarray) -> np.ndarray:
    """Convert samples of any type to numbers of which 1.0 is full scale."""
    if block.dtype.kind == "f":
        return block
    middle = 128 if block.dtype.kind == "u" else 0
    return (block.astype(np.float64) - middle) / 2.0 ** (8 * block.dtype.itemsize - 1)

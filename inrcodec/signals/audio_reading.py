"""Decoding sound files in passes from beginning to end, whatever length they claim. Importing this imports soundfile.

libsndfile reads everything; FFmpeg helps where libsndfile takes a length that nobody knows for that of the sound.
"""

import mmap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from inrcodec.errors import SignalError
from inrcodec.signals.audio_blocks import BLOCK, Summary, summary_of
from inrcodec.signals.audio_links import sound_links, states_length
from inrcodec.signals.reading_errors import unreadable

_UNKNOWN = 1 << 62
"""libsndfile's length of a sound whose length is unknown is beyond."""
_FINE = ("PCM_32", "DOUBLE")
"""Sample formats that 32-bit floats do not hold."""
NO_SAMPLES = "the file has no samples; there is nothing to encode"
_DEMUXERS = "mp3,wav,au,caf"
_SUBTYPES = {"pcm_s16": "PCM_16", "pcm_s24": "PCM_24", "pcm_s32": "PCM_32", "pcm_f32": "FLOAT", "pcm_f64": "DOUBLE"}


@dataclass(frozen=True, eq=False)
class Sound:
    """A sound file open for one pass.

    subtype: the sample format in libsndfile's words. blocks: [n, channels] float32, or float64 where that is needed to
    hold the samples exactly. container, announced: the format and the length that libsndfile tells, if it was asked.
    """

    rate: int
    subtype: str
    blocks: Iterator[np.ndarray]
    container: str = ""
    announced: int = 0


Way = Callable[[], AbstractContextManager[Sound]]
"""Opens a file for one more pass."""


@dataclass(frozen=True, eq=False)
class Found:
    """What the first pass over a file finds, and the way it was read."""

    rate: int
    subtype: str
    summary: Summary
    way: Way
    container: str
    announced: int


class _Source:
    """The bytes of an open file from `begin` to before `end`, for libsndfile, which looks before the beginning of some
    damaged ones: the place then stays as it was, where Python's files would raise an error that nobody can catch."""

    def __init__(self, file: BinaryIO, begin: int = 0, end: int | None = None) -> None:
        self._file = file
        self._begin = begin
        self._end = file.seek(0, 2) if end is None else end
        file.seek(begin)

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; return how many bytes."""
        count = max(0, min(len(buffer), self._end - self._file.tell()))
        content = self._file.read(count)
        memoryview(buffer)[: len(content)] = content
        return len(content)

    def tell(self) -> int:
        """Return the place in bytes from the beginning."""
        return self._file.tell() - self._begin

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a place; return it in bytes from the beginning."""
        place = offset + (self._begin, self._file.tell(), self._end)[whence]
        if place >= self._begin:
            self._file.seek(place)
        return self.tell()


def _in_one_pass(source: _Source) -> soundfile.SoundFile:
    """Open a sound that is read from beginning to end."""
    sound = soundfile.SoundFile(source)
    # Else soundfile seeks after every block, after which MP3 goes on with other samples, and FLAC needs a length.
    sound.seekable = lambda: False
    return sound


def look_through(path: Path) -> Found:
    """Read a sound file to its end, with the decoder that reads all of it.

    Raises: SignalError if the file is shorter than it states, or sounds in one file differ in kind. soundfile's and
        FFmpeg's errors pass through.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        links, is_estimate = sound_links(data), not states_length(data)
    if len(links) > 1:
        return _found(partial(_linked, path, links))
    try:
        found = _found(partial(_with_libsndfile, path))
    except soundfile.SoundFileError:
        if not _is_open(path):
            raise
        return _found(partial(_with_ffmpeg, path, ""))  # libsndfile takes no Core Audio file of unknown length
    length = found.summary.length
    if length == 0 and found.container in ("WAV", "WAVEX", "AU") and _is_open(path):
        return _found(partial(_with_ffmpeg, path, found.subtype))
    if found.container == "MP3" and is_estimate:
        return found if length < found.announced else _found(partial(_with_ffmpeg, path, found.subtype))
    if found.container not in ("WAV", "WAVEX"):
        _check_length(path, length, found.announced)
    return found


def _found(way: Way) -> Found:
    with way() as sound:
        summary = summary_of(sound.blocks)
    return Found(sound.rate, sound.subtype, summary, way, sound.container, sound.announced)


def _check_length(path: Path, length: int, announced: int) -> None:
    if length < announced < _UNKNOWN:
        raise SignalError(
            f"{path}: ends after {length} of {announced} samples; convert it to .wav to keep what is there"
        )


@contextmanager
def _with_libsndfile(path: Path) -> Iterator[Sound]:
    # By name, soundfile takes one that ends in .raw for headerless samples.
    with path.open("rb") as file, _in_one_pass(_Source(file)) as sound:
        yield Sound(sound.samplerate, sound.subtype, _blocks(sound), sound.format, sound.frames)


def _blocks(sound: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Yield as many samples as there are: the length in a header may be wrong."""
    dtype = "float64" if sound.subtype in _FINE else "float32"
    while len(block := sound.read(BLOCK, dtype=dtype, always_2d=True)):
        yield block


@contextmanager
def _linked(path: Path, links: list[tuple[int, int]]) -> Iterator[Sound]:
    """Open a file of several sounds, to be read one after the other."""
    with path.open("rb") as file:
        with _in_one_pass(_Source(file, *links[0])) as first:
            pass
        yield Sound(first.samplerate, first.subtype, _blocks_of_links(path, file, links, first))


def _blocks_of_links(
    path: Path, file: BinaryIO, links: list[tuple[int, int]], first: soundfile.SoundFile
) -> Iterator[np.ndarray]:
    for begin, end in links:
        with _in_one_pass(_Source(file, begin, end)) as sound:
            channels, rate = first.channels, first.samplerate
            if (channels, rate) != (sound.channels, sound.samplerate):
                raise SignalError(
                    f"{path}: a sound of {channels} channels at {rate} Hz is followed by one of {sound.channels} at "
                    f"{sound.samplerate} Hz in the same file; split it"
                )
            length = 0
            for block in _blocks(sound):
                length += len(block)
                yield block
            _check_length(path, length, sound.frames)


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


@contextmanager
def _with_ffmpeg(path: Path, subtype: str) -> Iterator[Sound]:
    """Open a sound for FFmpeg. subtype: the sample format that libsndfile found, "" to take it from the track."""
    import av

    try:
        with av.open(str(path), options={"format_whitelist": _DEMUXERS}, metadata_errors="replace") as container:
            track = container.streams.audio[0]
            name = track.codec_context.name if track.codec_context else ""  # else decoding says what is wrong
            subtype = subtype or _SUBTYPES.get(name[:-2], "")
            blocks = _ffmpeg_blocks(path, container, track, np.dtype(np.float64 if subtype in _FINE else np.float32))
            first = next(blocks, None)  # before it is decoded, the rate is a guess
            if first is None:
                raise SignalError(f"{path}: {NO_SAMPLES}")
            yield Sound(track.rate, subtype, chain([first], blocks))
    except (av.error.FFmpegError, IndexError) as error:
        raise unreadable(path, "sound", error, "the file may be damaged") from error


def _ffmpeg_blocks(path: Path, container: Any, track: Any, dtype: np.dtype) -> Iterator[np.ndarray]:
    channels = 0
    for packet in container.demux(track):
        for frame in packet.decode():
            block = frame.to_ndarray()
            block = block.T if frame.format.is_planar else block.reshape(-1, frame.layout.nb_channels)
            channels = channels or block.shape[1]
            if block.shape[1] != channels:
                raise SignalError(f"{path}: the number of channels changes from {channels} to {block.shape[1]}")
            yield _full_scale(block).astype(dtype, copy=False)


def _full_scale(block: np.ndarray) -> np.ndarray:
    """Convert samples of any type to numbers of which 1.0 is full scale."""
    if block.dtype.kind == "f":
        return block
    middle = 128 if block.dtype.kind == "u" else 0
    return (block.astype(np.float64) - middle) / 2.0 ** (8 * block.dtype.itemsize - 1)

"""Sound: whatever libsndfile reads, as floats at the file's sample rate.

Samples are exact: 32-bit floats, or 64-bit floats where the file has 32-bit integers or 64-bit floats. The sample
format (16-bit, 24-bit, float, ...) is kept with the file, tags and loop points are not.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np

from inrcodec.errors import SignalError
from inrcodec.signals.audio_blocks import BLOCK, sound_signal
from inrcodec.signals.lazy import AnySignal, slabs_of
from inrcodec.signals.reading_errors import reason, unreadable
from inrcodec.signals.signal import Signal
from inrcodec.signals.whole_files import checked_file

MODALITY = "audio"
DEFAULT_EXTENSION = ".wav"
DEFAULT_SUBTYPE = "PCM_16"

# Suffix -> libsndfile's format and the sample formats worth writing there, best first.
_INTEGERS = ("PCM_32", "PCM_24", "PCM_16")
_ALL = ("DOUBLE", "FLOAT", *_INTEGERS)
_FORMATS: dict[str, tuple[str, tuple[str, ...]]] = {
    ".wav": ("WAV", (*_ALL, "PCM_U8")),
    ".flac": ("FLAC", ("PCM_24", "PCM_16", "PCM_S8")),
    ".ogg": ("OGG", ("VORBIS",)),
    ".oga": ("OGG", ("VORBIS",)),
    ".opus": ("OGG", ("OPUS",)),
    ".mp3": ("MP3", ("MPEG_LAYER_III",)),
    ".aiff": ("AIFF", (*_ALL, "PCM_S8")),
    ".aif": ("AIFF", (*_ALL, "PCM_S8")),
    ".au": ("AU", (*_ALL, "PCM_S8")),
    ".snd": ("AU", (*_ALL, "PCM_S8")),
    ".caf": ("CAF", (*_ALL, "PCM_S8")),
    ".w64": ("W64", (*_ALL, "PCM_U8")),
    ".rf64": ("RF64", (*_ALL, "PCM_U8")),
}
EXTENSIONS = frozenset(_FORMATS)
WRITABLE = tuple(_FORMATS)

_BYTES = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
_CLASSIC_LIMIT = (1 << 32) - (1 << 16)
"""Bytes of samples that a format with 32-bit lengths holds, leaving room for its header."""
_CLASSIC = ("WAV", "AIFF")


@contextmanager
def opened(path: Path) -> Iterator[list[AnySignal]]:
    """Open a sound file, to be read part by part.

    Gives one signal: values [time, channels, 1] float32, or float64 if the file has 32-bit integers or 64-bit
    floats, 1.0 being full scale; value_range (-peak, peak), so that quiet recordings are coded as precisely as loud
    ones ((-1, 1) if silent).
    attributes: "subtype", the sample format in libsndfile's words, unless it is 16-bit or compressed.

    The file is decoded to its end once, before anything is given. Short sounds then stay in memory; long ones are
    decoded again where they are read.

    A WAV file that is shorter than its header says is read as far as it goes, as players do (recorders
    that stream leave the length open), and so is an MP3 file without a length of its own. All links of a chained
    Ogg file and all of several MP3 files joined to one are read.

    Raises: SignalError if the file is missing, damaged, empty, no sound, has samples that are no numbers, or links
        whose rates or channels differ.
    """
    from inrcodec.signals.audio_reading import NO_SAMPLES, look_through

    if not path.is_file():
        raise SignalError(f"{path}: no such file; give the path of a sound file")
    with _readable(path):
        found = look_through(path)
    summary = found.summary
    if summary.length == 0:
        raise SignalError(f"{path}: {NO_SAMPLES}")
    if summary.strange:
        raise SignalError(
            f"{path}: {summary.strange} of {summary.length * summary.channels} samples are NaN, infinite or absurdly "
            "large; repair it first"
        )

    def begin() -> Generator[np.ndarray]:
        with _readable(path), found.way() as sound:
            yield from sound.blocks

    kept = found.subtype in _BYTES and found.subtype != DEFAULT_SUBTYPE
    attributes = {"subtype": found.subtype} if kept else {}
    with sound_signal(summary, Fraction(found.rate), begin, attributes=attributes) as signal:
        yield [signal]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Tell the errors of libraries that cannot read a sound. Raises: SignalError."""
    import soundfile

    try:
        yield
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        advice = f"the file may be damaged, or none of {' '.join(_FORMATS)}"
        raise unreadable(path, "sound", error, advice) from error


def write(signals: Sequence[AnySignal], path: Path) -> None:
    """Write a sound part by part, in the format of `path.suffix`, one of `WRITABLE`, at the rate of its time axis.

    The sample format is the original's, or the finest one that is not finer, where the container lacks it
    (float to FLAC: 24-bit); OGG, Opus and MP3 have their own. Samples outside [-1, 1] are clipped unless the
    sample format is a float.

    Raises: SignalError if the rate is no integer, the format cannot hold this rate, number of channels or length, or
        samples are NaN or infinite.
    """
    import soundfile

    suffix = path.suffix.lower()
    signal = signals[0]
    length, channels = signal.shape
    rate = signal.axes[0].rate
    if rate is None or rate.denominator != 1 or rate < 1:
        raise SignalError(f"{path}: {rate} samples per second cannot be written, only integers; ask for another rate")
    format_name, subtypes = _FORMATS[suffix]
    subtype = _nearest(str(signal.attributes.get("subtype", DEFAULT_SUBTYPE)), subtypes)
    size = channels * length * _BYTES.get(subtype, 0)
    if format_name in _CLASSIC and size > _CLASSIC_LIMIT:
        raise SignalError(f"{path}: {suffix} holds 4 GiB, not {size} bytes; use .flac, .w64, .rf64 or .caf")
    try:
        # libsndfile loses the errors of its last writes, those of closing: the checked file does not.
        with (
            checked_file(path, raises=False) as checked,
            soundfile.SoundFile(
                checked, "w", samplerate=int(rate), channels=channels, format=format_name, subtype=subtype
            ) as file,
        ):
            for _, part in slabs_of(signal):
                part.check_finite(path)  # or the MP3 encoder aborts the process
                for block in _blocks(part.values):
                    file.write(_quantized(block, subtype))
        written = _frames(path)
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        raise SignalError(
            f"{path}: cannot write {channels} channels at {rate} samples per second as {suffix} "
            f"({reason(error)}); try .wav"
        ) from error
    if written < length:
        raise SignalError(f"{path}: only {written} of {length} samples can be read again; try .wav")


def stored_step(signal: Signal) -> float:
    """Return how far apart the samples are that a file of the default format holds; 0 for floats."""
    subtype = _subtype(signal)
    return 0.0 if subtype in ("FLOAT", "DOUBLE") else 2.0 ** (1 - 8 * _BYTES[subtype])


def read_back(signal: Signal) -> np.ndarray:
    """Return the samples that reading a file of the default format gives."""
    subtype = _subtype(signal)
    if subtype in ("FLOAT", "DOUBLE"):
        return signal.values
    levels = [_quantized(block, subtype) for block in _blocks(signal.values)]
    return (np.concatenate(levels)[..., np.newaxis] * 2.0**-31).astype(signal.values.dtype)


def _subtype(signal: Signal) -> str:
    wanted = str(signal.attributes.get("subtype", DEFAULT_SUBTYPE))
    return _nearest(wanted, _FORMATS[DEFAULT_EXTENSION][1])


def _frames(path: Path) -> int:
    """Return how many samples of each channel a file holds, counted by reading the file to its end."""
    import soundfile

    with soundfile.SoundFile(path) as file:
        count = 0
        while block := len(file.read(BLOCK, dtype="int16")):
            count += block
    return count


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yield pieces [time, channels] of 32-bit or 64-bit floats: libsndfile's Vorbis encoder crashes on long ones."""
    dtype = np.float64 if values.dtype == np.float64 else np.float32
    for start in range(0, len(values), BLOCK):
        yield np.ascontiguousarray(values[start : start + BLOCK, :, 0], dtype=dtype)


def _quantized(block: np.ndarray, subtype: str) -> np.ndarray:
    """Return the samples to hand to libsndfile: floats, or integers in the upper bits of int32.

    Given floats for an integer format, libsndfile rounds down in some containers and to nearest in others.
    """
    if subtype in ("FLOAT", "DOUBLE"):
        return block
    if subtype not in _BYTES:
        return np.asarray(np.clip(block, -1.0, 1.0))
    bits = 8 * _BYTES[subtype]
    full_scale = 2.0 ** (bits - 1)
    levels = np.clip(np.rint(block.astype(np.float64) * full_scale), -full_scale, full_scale - 1)
    return np.asarray(levels.astype(np.int32) << (32 - bits))


def _nearest(wanted: str, subtypes: tuple[str, ...]) -> str:
    """Return the wanted sample format, or the first in the order of `subtypes` (finest first) that is not finer."""
    if wanted in subtypes:
        return wanted
    size = _BYTES.get(wanted, _BYTES[DEFAULT_SUBTYPE])
    return next((subtype for subtype in subtypes if _BYTES.get(subtype, 0) <= size), subtypes[-1])

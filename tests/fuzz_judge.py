"""What may become of a changed `.inr` file: a correct list of signals, or one of our errors in one line.

Anything else is a fault, as a disagreement of `decode`, `read_outline`, `verify_file` and the second decoder is.
"""

import io
import math
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import second_decoder
from fuzz_sections import published
from symbols import symbols_of

import inrcodec
from inrcodec.coding.container import read_container, read_outline
from inrcodec.errors import InitializationError, InrcodecError, InrcodecWarning, UsageError

COMPARED_SAMPLES = 1 << 13
"""The second decoder is slow: of larger files it is not asked."""

ROOT = Path(__file__).parent.parent
REFUSED, TAKEN = "refused", "taken"


class Fault(Exception):
    """A file broke something. kind: of the fault, in a few words."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


class TooLong(BaseException):
    """A call has not come back in time."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise `TooLong` in the block after so many seconds of the process's time."""

    def end(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def judge(data: bytes, folder: Path, max_samples: int, seconds: float) -> str:
    """Return what became of a file, REFUSED or TAKEN. Raises: Fault.

    folder: for the file. seconds: of the process, that each call may take.
    """
    warned: list[str] = []
    outline = _outcome("read_outline", lambda: read_outline(io.BytesIO(data)), seconds, warned)
    path = folder / "changed.inr"
    path.write_bytes(data)
    verified = _outcome(
        "verify", lambda: inrcodec.verify_file(path, max_samples=max_samples, device="cpu"), seconds, warned
    )
    decoded = _outcome("decode", lambda: inrcodec.decode(data, max_samples=max_samples, device="cpu"), seconds, warned)
    if isinstance(decoded, InrcodecError):
        if not isinstance(verified, InrcodecError):
            raise Fault("verify takes what decode refuses", str(decoded))
    elif isinstance(verified, InrcodecError):
        raise Fault("verify refuses what decode takes", str(verified))
    if not isinstance(decoded, InrcodecError):
        if isinstance(outline, InrcodecError):
            raise Fault("read_outline refuses what decode takes", str(outline))
        if sum(part.size for part in outline.sizes) != len(data):
            raise Fault("sizes of an outline do not add up", str(len(data)))
        _check_signals(decoded, outline.headers)
    _compare(data, decoded, seconds)
    if warned:
        raise Fault(warned[0], "")
    return REFUSED if isinstance(decoded, InrcodecError) else TAKEN


def _outcome(name: str, call: Callable[[], Any], seconds: float, warned: list[str]) -> Any:
    """Return what a call returns, or the error of ours that it raises. Raises: Fault. warned: takes its warnings."""
    try:
        with warnings.catch_warnings(record=True) as seen, within(seconds):
            warnings.simplefilter("always")
            result = call()
        others = [each for each in seen if not issubclass(each.category, InrcodecWarning)]
        warned += [f"{name} warns at {Path(each.filename).name}:{each.lineno}: {each.message}" for each in others]
        return result
    except InrcodecError as error:
        if "\n" in str(error) or len(str(error)) > 1000:
            raise Fault(f"{name} raises more than a line", repr(str(error))[:300]) from error
        return error
    except TooLong as error:
        raise Fault(f"{name} takes long", f"more than {seconds:g} s") from error
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_elsewhere(frame.filename)]
        line = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "nowhere"
        raise Fault(f"{name} raises {type(error).__name__} at {line}", repr(error)[:300]) from error


def _is_elsewhere(filename: str) -> bool:
    path = Path(filename)
    return not path.is_relative_to(ROOT) or path.is_relative_to(ROOT / "tests")


def _check_signals(signals: list[inrcodec.Signal], headers: Any) -> None:
    """Check that signals are what their headers say."""
    if len(signals) != len(headers):
        raise Fault("another number of signals", f"{len(signals)} of {len(headers)}")
    for each, header in zip(signals, headers, strict=True):
        shape = (*(axis.size for axis in header.axes), header.channels)
        if each.values.shape != shape or each.values.dtype != np.dtype(header.dtype):
            raise Fault("a signal is not what its header says", f"{each.values.shape} {each.values.dtype}")
        # By their spelling, as NaN is no equal of itself.
        if repr((each.name, each.modality, each.attributes)) != repr((header.name, header.modality, header.attributes)):
            raise Fault("a signal is not what its header says", each.name)
        if (each.missing is not None) != header.has_missing:
            raise Fault("a mask is not there, or should not be", each.name)


def _compare(data: bytes, decoded: Any, seconds: float) -> None:
    """Compare with the second decoder, of files that are small and of sound initializations."""
    refused = isinstance(decoded, InrcodecError)
    if refused and isinstance(decoded, UsageError | InitializationError):
        return
    try:
        headers = [stream.header for stream in read_container(data).streams]
    except InrcodecError:
        headers = []
    if sum(math.prod(axis.size for axis in header.axes) * header.channels for header in headers) > COMPARED_SAMPLES:
        return
    try:
        with warnings.catch_warnings(), within(seconds), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            streams = second_decoder.read_streams(data, published())
            values = [stream.values() for stream in streams]
    except second_decoder.Refused as error:
        if not refused:
            raise Fault("the second decoder refuses what decode takes", str(error)) from error
        return
    except TooLong:
        return
    except Exception as error:
        if not refused:
            raise Fault(f"the second decoder raises {type(error).__name__}", repr(error)[:300]) from error
        return
    if refused:
        raise Fault("the second decoder takes what decode refuses", str(decoded))
    read = [each for stream in streams for each in stream.symbols if each.size]
    for other, own in zip(read, [each for each in symbols_of(data) if each.size], strict=True):
        # Integers of latents are rounded to float32, which shows where no encoder goes.
        if not any(np.array_equal(own, each) for each in (other, other.astype(np.float32))):
            raise Fault("symbols differ", "")
    for other, own in zip(values, decoded, strict=True):
        if other.shape != own.values.shape or other.dtype != own.values.dtype:
            raise Fault("values of another shape or type", f"{other.shape} {other.dtype}")

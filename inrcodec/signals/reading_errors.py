"""How errors of libraries are told: in one line that names the file."""

from collections.abc import Sequence
from pathlib import Path

from inrcodec.errors import SignalError


def reason(error: BaseException) -> str:
    """Return the error of a library in one line, without the name of the file, which libraries repeat or leave out."""
    # libsndfile's own words, or those of the system and of FFmpeg.
    said = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
    text, kind = " ".join(str(said).split()), type(error).__name__
    if isinstance(error, LookupError | TypeError | ArithmeticError):
        return f"{kind}: {text}"  # "'size'" alone says nothing
    return text or kind


def unreadable(path: Path, kind: str, error: BaseException, advice: str) -> SignalError:
    """Return the error to raise where a library cannot read a file. kind: what it was read as. advice: what to do."""
    return SignalError(f"{path}: cannot be read as {kind} ({reason(error)}); {advice}")


def files_label(paths: Sequence[Path]) -> str:
    """Return what messages call files that are read as one."""
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} .. {paths[-1]}"

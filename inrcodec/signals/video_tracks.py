"""Tracks of video containers and their frames, as they are decoded. Importing this imports PyAV."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from inrcodec.errors import SignalError

# Other demuxers stay shut: playlists would open further files, and text files decode as terminal art.
_DEMUXERS = "mov,matroska,avi,gif,mpeg,mpegts,flv,ogg,asf,yuv4mpegpipe"


@contextmanager
def opened_tracks(path: Path) -> Iterator[Any]:
    """Open a file for one more pass. PyAV's errors pass through."""
    # Titles in other encodings than UTF-8 are common, and not our concern.
    with av.open(str(path), options={"format_whitelist": _DEMUXERS}, metadata_errors="replace") as container:
        yield container


def decoded(container: Any, track: Any) -> Iterator[Any]:
    """Yield the frames of a track."""
    for packet in container.demux(track):
        yield from packet.decode()


def picture_track(container: Any, path: Path) -> Any:
    """Return the track of the picture. Raises: SignalError that names `path` if there is none."""
    video = _track(s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    if video is None:
        raise SignalError(f"{path}: no video track that can be decoded; found {_track_kinds(container)}")
    video.thread_type = "AUTO"
    return video


def sound_track(container: Any) -> Any:
    """Return the track of the sound, None if there is none."""
    return _track(container.streams.audio)


def _track(tracks: Iterable[Any]) -> Any:
    """Return the track that is marked as the default, else the first that can be decoded; None without any."""
    known = [track for track in tracks if track.codec_context is not None]
    return next((track for track in known if track.disposition & Disposition.default), known[0] if known else None)


def _track_kinds(container: Any) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "no track"

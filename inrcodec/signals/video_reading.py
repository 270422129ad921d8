"""Decoding video containers in passes: tracks to a picture signal and a sound signal. Importing this imports PyAV."""

import warnings
from array import array
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from inrcodec.errors import InrcodecWarning, SignalError
from inrcodec.signals.audio_blocks import forward_reader, sound_signal, summary_of
from inrcodec.signals.lazy import AnySignal, Rows
from inrcodec.signals.video_colours import colour_attributes
from inrcodec.signals.video_formats import ACCURATE, MAX_RATE
from inrcodec.signals.video_frames import (
    FOLDER_RATE,
    TRANSPARENT,
    FirstLook,
    by_frame,
    check_same_size,
    on_black,
    picture_signal,
    readable,
)
from inrcodec.signals.video_sound import sound_blocks, sound_rate
from inrcodec.signals.video_timing import even_frames
from inrcodec.signals.video_tracks import decoded, opened_tracks, picture_track

_UNSPECIFIED = (0, 2, 3)  # AVColorSpace: RGB (meaningless for YUV frames), unspecified, reserved
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,  # BT.470 BG
    6: Colorspace.ITU601,  # SMPTE 170M
    7: Colorspace.SMPTE240M,
    9: 9,  # BT.2020, unnamed in older PyAV
}


@contextmanager
def opened_container(path: Path) -> Iterator[list[AnySignal]]:
    """Give [picture] or [picture, sound] of a file, which is decoded once before.

    Raises: SignalError if it has no video track that can be decoded, or what cannot be a signal.
    """
    with ExitStack() as open_passes:
        with readable(path):
            clip = _look_through(path)
        repeats = np.bincount(clip.shown, minlength=clip.look.count)
        shape = clip.look.shape
        kept = clip.look.kept
        read: Callable[[int, int], Rows]
        if kept is None:
            read = open_passes.enter_context(forward_reader(lambda: _rows(path, shape, repeats)))
        else:
            read = by_frame(lambda tick: kept[clip.shown[tick]])
        signals: list[AnySignal] = [picture_signal(len(clip.shown), shape, clip.rate, read, clip.attributes)]
        with readable(path):
            rate = sound_rate(path)
        if rate is not None:
            seconds = len(clip.shown) / clip.rate

            def begin() -> Generator[np.ndarray]:
                return sound_blocks(path, rate, clip.begin, seconds)

            summary = summary_of(begin())
            if summary.strange:
                raise SignalError(f"{path}: the sound track has samples that are not finite; encode it again")
            if summary.length:
                signals.append(open_passes.enter_context(sound_signal(summary, Fraction(rate), begin, name="sound")))
        for text in clip.warnings:
            warnings.warn(f"{path}: {text}", InrcodecWarning, stacklevel=2)
        yield signals


@dataclass(frozen=True, eq=False)
class _Clip:
    """What the first pass over the frames of a clip finds.

    shown: the frame at every tick, int64. begin: seconds at which the first one is shown. warnings: what to tell once
        the whole file is known to be readable.
    """

    look: FirstLook
    rate: Fraction
    shown: np.ndarray
    begin: Fraction
    attributes: dict[str, Any]
    warnings: list[str]


def _look_through(path: Path) -> _Clip:
    pictures, look = _Pictures(path), FirstLook()
    stamps, base = array("q"), Fraction(0)
    begin = last = Fraction(0)
    with opened_tracks(path) as container:
        video = picture_track(container, path)
        for frame in decoded(container, video):
            if frame.pts is not None:
                base = frame.time_base
                if look.count == 0:
                    begin = frame.pts * base
                stamps.append(frame.pts)
            last = (frame.duration or 0) * frame.time_base if frame.time_base else Fraction(0)
            look.add(pictures.upright(frame), path)
        if not look.count:
            raise SignalError(f"{path}: the video track has no frames")
        if len(stamps) == look.count:
            times = np.array(stamps, np.int64)
            rate = _frame_rate(video, int(times[-1] - times[0]) * base, look.count - 1)
            rate, shown = even_frames(times, base, last, rate, path)
        else:
            rate, shown = _frame_rate(video, Fraction(0), 0), np.arange(look.count)
        aspect = _pixel_aspect(video, turned=look.shape[0] != video.height)
        attributes = aspect | colour_attributes(video.codec_context)
        return _Clip(look, rate, shown, begin, attributes, [*pictures.warnings(), *_hidden_alpha(video)])


def _rows(path: Path, shape: tuple[int, ...], repeats: np.ndarray) -> Generator[Rows]:
    """Decode the frames of a clip and yield each as often as it is shown, which may be never."""
    pictures = _Pictures(path)
    with readable(path), opened_tracks(path) as container:
        frames = decoded(container, picture_track(container, path))
        for index, (frame, count) in enumerate(zip(frames, repeats, strict=False)):
            if count:
                rgb = pictures.upright(frame)
                check_same_size(rgb, shape, index, path)
                for _ in range(count):
                    yield rgb[np.newaxis], None


def _hidden_alpha(video: Any) -> list[str]:
    """Warn of the alpha of VP8 and VP9, which is beside the frames, where FFmpeg's own decoders do not look."""
    if "1" not in (value for key, value in video.metadata.items() if key.lower() == "alpha_mode"):
        return []
    return ["the transparency of the clip is not kept; transparent places show the colours stored there"]


def _frame_rate(video: Any, span: Fraction, intervals: int) -> Fraction:
    """Return the frames per second, from the track's average rate and the time from its first to its last frame.

    span: that time in seconds, 0 if unknown. intervals: how many frames begin in it.

    The average wins, being exact, unless it strays from the times by more than a frame over the clip: where
    the container has no rate, it is estimated from the first frames.
    """
    rates = (video.average_rate, video.guessed_rate, video.base_rate)
    rate = next((Fraction(r) for r in rates if r is not None and 0 < r <= MAX_RATE), FOLDER_RATE)
    if 0 < intervals / Fraction(MAX_RATE) <= span and abs(span - intervals / rate) > 1 / rate:
        return (intervals / span).limit_denominator(1001) or intervals / span
    # Matroska counts nanoseconds: 60000/1001 and its like come back as a fraction some 1e-7 beside.
    ntsc = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    return ntsc if 0 < abs(ntsc - rate) < rate / 2_000_000 and rate.denominator > 100 else rate


def _pixel_aspect(video: Any, turned: bool) -> dict[str, Any]:
    """Return the attribute "pixel_aspect", [width, height] of a pixel, of a clip whose pixels are not square."""
    aspect = video.sample_aspect_ratio
    if not aspect or aspect == 1:
        return {}
    aspect = 1 / aspect if turned else aspect
    return {"pixel_aspect": [aspect.numerator, aspect.denominator]}


class _Pictures:
    """Frames as RGB; remembers what was odd about them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reformatter = VideoReformatter()
        self._translucent = self._damaged = 0

    def upright(self, frame: VideoFrame) -> np.ndarray:
        """Return a frame as it is to be shown, [H, W, 3] uint8 RGB."""
        return _upright(self._rgb(frame), frame, self._path)

    def _rgb(self, frame: VideoFrame) -> np.ndarray:
        """Return [H, W, 3] uint8 RGB on black, converted with the matrix and the range of the frame's tags."""
        self._damaged += frame.is_corrupt
        if not (frame.format.has_palette or any(part.is_alpha for part in frame.format.components)):
            return self._converted(frame, "rgb24")
        rgba = self._converted(frame, "rgba")
        values = np.ascontiguousarray(rgba[..., :3])
        shown = on_black(values, rgba[..., 3:])
        self._translucent += shown is not values
        return shown

    def warnings(self) -> list[str]:
        """Say how many frames are transparent or damaged."""
        translucent = [f"{self._translucent} {TRANSPARENT}"] if self._translucent else []
        damaged = [f"{self._damaged} frames are damaged, and shown as the decoder guesses them"]
        return translucent + (damaged if self._damaged else [])

    def _converted(self, frame: VideoFrame, layout: str) -> np.ndarray:
        tag = frame.colorspace
        if tag in _UNSPECIFIED:
            tag = 1 if frame.height >= 720 else 5
        if tag not in _MATRICES:
            raise SignalError(f"{self._path}: colour matrix {tag} is not supported; convert the video to BT.709")
        matrix = int(_MATRICES[tag])
        full_range = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        rgb = self._reformatter.reformat(
            frame,
            format=layout,
            src_colorspace=matrix,
            # An RGB picture has no matrix, but PyAV before 17 converts as BT.601 whenever both are equal.
            dst_colorspace=Colorspace.ITU709 if matrix == Colorspace.ITU601 else Colorspace.ITU601,
            src_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=ACCURATE,
        )
        return rgb.to_ndarray()


def _upright(rgb: np.ndarray, frame: VideoFrame, path: Path) -> np.ndarray:
    """Apply the display matrix: pixel (x, y) is to be shown at (a x + c y, b x + d y), signs only."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return rgb
    a, b, _, c, d = np.sign(np.frombuffer(data, dtype=np.int32)[:5])
    if (a == 0) != (d == 0) or (b == 0) != (c == 0) or (a == 0) == (b == 0):
        raise SignalError(f"{path}: the picture is turned by other than quarter turns; turn it upright first")
    if a == 0:
        rgb, a, d = rgb.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(rgb[:: int(d), :: int(a)])

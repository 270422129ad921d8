"""Decoding video containers: tracks to a picture signal and a sound signal. Importing this imports PyAV."""

import warnings
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from av.audio.resampler import AudioResampler
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from inrcodec.errors import InrcodecWarning, SignalError
from inrcodec.signals.signal import Axis, Signal
from inrcodec.signals.video_colours import colour_attributes
from inrcodec.signals.video_formats import ACCURATE, MAX_RATE
from inrcodec.signals.video_frames import FOLDER_RATE, check_same_size, on_black, picture_signal, warn_of_transparency
from inrcodec.signals.video_timing import continuous_sound, even_frames

_UNSPECIFIED = (0, 2, 3)  # AVColorSpace: RGB (meaningless for YUV frames), unspecified, reserved
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,  # BT.470 BG
    6: Colorspace.ITU601,  # SMPTE 170M
    7: Colorspace.SMPTE240M,
    9: 9,  # BT.2020, unnamed in older PyAV
}


def read_container(container: Any, path: Path) -> list[Signal]:
    """Return [picture] or [picture, sound] of an open PyAV container; `path` is for messages.

    Raises: SignalError if it has no video track that can be decoded, or what cannot be a signal. PyAV's own
        errors pass through.
    """
    video = _track(s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    if video is None:
        raise SignalError(f"{path}: no video track that can be decoded; found {_track_kinds(container)}")
    video.thread_type = "AUTO"
    audio = _track(container.streams.audio)

    frames: list[np.ndarray] = []
    times: list[Fraction | None] = []
    pieces: list[tuple[Fraction | None, np.ndarray]] = []
    pictures, resampler = _Pictures(path), None
    last = Fraction(0)
    for packet in container.demux([video] if audio is None else [video, audio]):
        for frame in packet.decode():
            time = None if frame.pts is None else frame.pts * frame.time_base
            if isinstance(frame, VideoFrame):
                frames.append(_upright(pictures.rgb(frame), frame, path))
                check_same_size(frames, path)
                times.append(time)
                last = (frame.duration or 0) * frame.time_base if frame.time_base else Fraction(0)
            else:
                # The first frame and not the track knows the rate: AAC with SBR doubles it.
                resampler = resampler or AudioResampler("flt", frame.layout, frame.sample_rate)
                parts = [_interleaved(part) for part in resampler.resample(frame)]
                pieces += zip((time, *[None] * len(parts)), parts, strict=False)
    if not frames:
        raise SignalError(f"{path}: the video track has no frames")
    pictures.warn()
    _warn_of_hidden_alpha(video, path)

    known = [time for time in times if time is not None]
    rate = _frame_rate(video, known if len(known) == len(times) else [])
    if len(known) == len(times):
        rate, shown = even_frames(known, last, rate, frames[0].nbytes, path)
        frames = [frames[index] for index in shown]
    aspect = _pixel_aspect(video, turned=frames[0].shape[0] != video.height)
    picture = picture_signal(frames, rate, aspect | colour_attributes(video.codec_context))
    if resampler is None:
        return [picture]
    pieces += [(None, _interleaved(part)) for part in resampler.resample(None)]
    samples = continuous_sound(pieces, resampler.rate, len(frames) / rate, path)
    delay = min((pieces[0][0] or Fraction(0)) - (times[0] or Fraction(0)), len(frames) / rate)
    return [picture, _sound_signal(np.ascontiguousarray(samples.T), resampler.rate, delay, path)]


def _track(tracks: Iterable[Any]) -> Any:
    """Return the track that is marked as the default, else the first that can be decoded; None without any."""
    known = [track for track in tracks if track.codec_context is not None]
    return next((track for track in known if track.disposition & Disposition.default), known[0] if known else None)


def _interleaved(part: Any) -> np.ndarray:
    """Return packed samples as [n, channels]: PyAV miscounts the planes of eight channels, and crashes."""
    return part.to_ndarray().reshape(-1, part.layout.nb_channels)


def _track_kinds(container: Any) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "no track"


def _warn_of_hidden_alpha(video: Any, path: Path) -> None:
    """Warn of the alpha of VP8 and VP9, which is beside the frames, where FFmpeg's own decoders do not look."""
    if "1" in (value for key, value in video.metadata.items() if key.lower() == "alpha_mode"):
        text = f"{path}: the transparency of the clip is not kept; transparent places show the colours stored there"
        warnings.warn(text, InrcodecWarning, stacklevel=2)


def _frame_rate(video: Any, times: list[Fraction]) -> Fraction:
    """Return the frames per second, from the track's average rate and the times of its first and last frame if known.

    The average wins, being exact, unless it strays from the times by more than a frame over the clip: where
    the container has no rate, it is estimated from the first frames.
    """
    rates = (video.average_rate, video.guessed_rate, video.base_rate)
    rate = next((Fraction(r) for r in rates if r is not None and 0 < r <= MAX_RATE), FOLDER_RATE)
    span, intervals = (times[-1] - times[0] if times else Fraction(0)), len(times) - 1
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

    def rgb(self, frame: VideoFrame) -> np.ndarray:
        """Return [H, W, 3] uint8 RGB on black, converted with the matrix and the range of the frame's tags."""
        self._damaged += frame.is_corrupt
        if not (frame.format.has_palette or any(part.is_alpha for part in frame.format.components)):
            return self._converted(frame, "rgb24")
        rgba = self._converted(frame, "rgba")
        values = np.ascontiguousarray(rgba[..., :3])
        shown = on_black(values, rgba[..., 3:])
        self._translucent += shown is not values
        return shown

    def warn(self) -> None:
        """Warn of frames that are transparent or damaged."""
        warn_of_transparency(self._path, self._translucent)
        if self._damaged:
            text = f"{self._path}: {self._damaged} frames are damaged, and shown as the decoder guesses them"
            warnings.warn(text, InrcodecWarning, stacklevel=2)

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


def _sound_signal(values: np.ndarray, rate: int, delay: Fraction, path: Path) -> Signal:
    """Return the signal of a sound that begins with the picture.

    values: [channels, n] float32, beginning `delay` seconds after the picture (before it if negative).
    """
    # Containers round times to a millisecond: a shift of less than a frame is no shift.
    if abs(delay) > 0.02:
        shift = round(delay * rate)
        values = np.pad(values, ((0, 0), (shift, 0))) if shift > 0 else values[:, min(-shift, values.shape[1] - 1) :]
    if not np.isfinite(values).all():
        raise SignalError(f"{path}: the sound track has samples that are not finite; encode it again")
    peak = float(np.abs(values).max()) or 1.0
    axes = (Axis(values.shape[0], "slice"), Axis(values.shape[1], "start", rate=Fraction(rate)))
    return Signal("audio", values[..., None], axes, (-peak, peak), name="sound")

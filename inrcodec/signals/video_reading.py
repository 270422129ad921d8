"""Decoding video containers: tracks to a picture signal and a sound signal. Importing this imports PyAV."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from inrcodec.errors import SignalError
from inrcodec.signals.signal import Axis, Signal
from inrcodec.signals.video_formats import ACCURATE, MAX_RATE
from inrcodec.signals.video_frames import FOLDER_RATE, check_same_size, picture_signal

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
    """[picture] or [picture, sound] of an open PyAV container; `path` is for messages.

    Raises: SignalError if it has no video track that can be decoded, or what cannot be a signal. PyAV's own
        errors pass through.
    """
    tracks = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not tracks or tracks[0].codec_context is None:
        raise SignalError(f"{path}: no video track that can be decoded; found {_track_kinds(container)}")
    video = tracks[0]
    video.thread_type = "AUTO"
    audio = next((s for s in container.streams.audio if s.codec_context is not None), None)

    frames: list[np.ndarray] = []
    pieces: list[np.ndarray] = []
    reformatter, resampler = VideoReformatter(), None
    times: dict[str, list[Fraction]] = {"video": [], "audio": []}
    for packet in container.demux([video] if audio is None else [video, audio]):
        for frame in packet.decode():
            seconds = Fraction(0) if frame.pts is None else frame.pts * frame.time_base
            times[packet.stream.type].append(seconds)
            if isinstance(frame, VideoFrame):
                frames.append(_upright(_to_rgb(frame, reformatter, path), frame, path))
                check_same_size(frames, path)
            else:
                # The first frame and not the track knows the rate: AAC with SBR doubles it.
                resampler = resampler or AudioResampler("flt", frame.layout, frame.sample_rate)
                pieces += [part.to_ndarray() for part in resampler.resample(frame)]
    if not frames:
        raise SignalError(f"{path}: the video track has no frames")

    rate = _frame_rate(video, times["video"])
    picture = picture_signal(frames, rate, _pixel_aspect(video, turned=frames[0].shape[0] != video.height))
    if resampler is None:
        return [picture]
    pieces += [part.to_ndarray() for part in resampler.resample(None)]
    # Interleaved until here: PyAV miscounts the planes of eight channels, and crashes.
    samples = np.concatenate(pieces, axis=1).reshape(-1, resampler.layout.nb_channels).T
    delay = min(times["audio"][0] - times["video"][0], len(frames) / rate)
    return [picture, _sound_signal(np.ascontiguousarray(samples), resampler.rate, delay, path)]


def _track_kinds(container: Any) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "no track"


def _frame_rate(video: Any, times: list[Fraction]) -> Fraction:
    """Frames per second from the track's average rate and the times of its first and last frame in seconds.

    The average wins, being exact, unless it strays from the times by more than a frame over the clip: where
    the container has no rate, it is estimated from the first frames.
    """
    rates = (video.average_rate, video.guessed_rate, video.base_rate)
    rate = next((Fraction(r) for r in rates if r is not None and 0 < r <= MAX_RATE), FOLDER_RATE)
    span, intervals = times[-1] - times[0], len(times) - 1
    if intervals / Fraction(MAX_RATE) <= span and abs(span - intervals / rate) > 1 / rate:
        return (intervals / span).limit_denominator(1001)
    # Matroska counts nanoseconds: 60000/1001 and its like come back as a fraction some 1e-7 beside.
    ntsc = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    return ntsc if 0 < abs(ntsc - rate) < rate / 2_000_000 and rate.denominator > 100 else rate


def _pixel_aspect(video: Any, turned: bool) -> dict[str, Any]:
    """The attributes of a clip whose pixels are not square, as [width, height] of one."""
    aspect = video.sample_aspect_ratio
    if not aspect or aspect == 1:
        return {}
    aspect = 1 / aspect if turned else aspect
    return {"pixel_aspect": [aspect.numerator, aspect.denominator]}


def _to_rgb(frame: VideoFrame, reformatter: VideoReformatter, path: Path) -> np.ndarray:
    """[H, W, 3] uint8 RGB of a decoded frame, with the matrix and the range it is tagged with."""
    tag = frame.colorspace
    if tag in _UNSPECIFIED:
        tag = 1 if frame.height >= 720 else 5
    if tag not in _MATRICES:
        raise SignalError(f"{path}: colour matrix {tag} is not supported; convert the video to BT.709")
    matrix = int(_MATRICES[tag])
    full_range = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    rgb = reformatter.reformat(
        frame,
        format="rgb24",
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
    """values: [channels, n] float32, beginning `delay` seconds after the picture (before it if negative)."""
    # Containers round times to a millisecond: a shift of less than a frame is no shift.
    if abs(delay) > 0.02:
        shift = round(delay * rate)
        values = np.pad(values, ((0, 0), (shift, 0))) if shift > 0 else values[:, min(-shift, values.shape[1] - 1) :]
    if not np.isfinite(values).all():
        raise SignalError(f"{path}: the sound track has samples that are not finite; encode it again")
    peak = float(np.abs(values).max()) or 1.0
    axes = (Axis(values.shape[0], "slice"), Axis(values.shape[1], "start", rate=Fraction(rate)))
    return Signal("audio", values[..., None], axes, (-peak, peak), name="sound")

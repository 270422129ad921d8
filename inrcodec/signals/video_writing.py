"""Encoding clips into video containers, and what is refused before. Importing this imports PyAV."""

import heapq
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from inrcodec.errors import SignalError
from inrcodec.signals.lazy import AnySignal, slabs_of
from inrcodec.signals.video_colours import colour_of, is_wide
from inrcodec.signals.video_formats import ACCURATE, MAX_RATE, Coding

MAX_SAMPLE_RATE = 655_350  # of FLAC
_SOUND_LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")


def checked(signals: Sequence[AnySignal], coding: Coding, path: Path) -> tuple[AnySignal, AnySignal | None]:
    """Return the picture and the sound of a clip; refuse signals that are no clip.

    Raises: SignalError if shapes, types, rates, colours or the pixel aspect are not what a clip has, or this kind of
        file has no place for its colours.
    """
    if not 1 <= len(signals) <= 2 or signals[0].modality != "video":
        kinds = ", ".join(signal.modality for signal in signals) or "nothing"
        raise SignalError(f"{path}: a clip is a picture and at most one sound, not {kinds}")
    picture, sound = signals[0], signals[1] if len(signals) == 2 else None
    if len(picture.axes) != 3 or picture.channels != 3 or picture.dtype != np.uint8:
        raise SignalError(f"{path}: a picture is [T, H, W, 3] uint8, not {_values(picture)}")
    rate = picture.axes[0].rate
    if rate is None or not Fraction(1, MAX_RATE) <= rate <= MAX_RATE:
        raise SignalError(f"{path}: the frame rate is {rate}; use one from 1/{MAX_RATE} to {MAX_RATE} per second")
    aspect = picture.attributes.get("pixel_aspect", [1, 1])
    if not (isinstance(aspect, list) and len(aspect) == 2 and all(n in range(1, 1 << 16) for n in aspect)):
        raise SignalError(f"{path}: the pixel aspect is {aspect!r}; it must be two numbers from 1 to 65535")
    primaries, transfer, _ = colour_of(picture.attributes, path)
    if is_wide(primaries, transfer) and not coding.names_colours:
        raise SignalError(
            f"{path}: {path.suffix} cannot say that the colours are wide or HDR (primaries {primaries}, transfer "
            f"{transfer}); use .mp4, .mov, .mkv or .webm"
        )
    if sound is None:
        return picture, None
    if len(sound.axes) != 2 or sound.channels != 1 or sound.dtype.kind != "f":
        raise SignalError(f"{path}: a sound is [time, channels, 1] floats, not {_values(sound)}")
    if sound.shape[1] > len(_SOUND_LAYOUTS):
        raise SignalError(f"{path}: sound has at most {len(_SOUND_LAYOUTS)} channels, not {sound.shape[1]}")
    sample_rate = sound.axes[0].rate
    if sample_rate is None or not 1 <= round(sample_rate) <= MAX_SAMPLE_RATE:
        raise SignalError(f"{path}: the sample rate is {sample_rate}; use one from 1 to {MAX_SAMPLE_RATE}")
    return picture, sound


def _values(signal: AnySignal) -> str:
    return f"{(*signal.shape, signal.channels)} {signal.dtype}"


def write_container(container: Any, coding: Coding, picture: AnySignal, sound: AnySignal | None, path: Path) -> None:
    """Write what `checked` returned to a PyAV container open for writing, part by part; PyAV's errors pass through.

    Raises: SignalError if samples of the sound are NaN or infinite.
    """
    assert picture.axes[0].rate is not None
    rate = picture.axes[0].rate.limit_denominator(1_001_000)
    height, width = picture.shape[1:]
    options = dict(coding.picture_options)
    if coding.picture_codec == "ffv1" and width == 1:
        options["slices"] = "1"  # it would split the frame in two by two, and give up
    stream = container.add_stream(coding.picture_codec, rate=rate, options=options)
    odd = height % 2 or width % 2
    pixel_format = "yuv444p" if coding.pixel_format == "yuv420p" and odd else coding.pixel_format
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = width, height, pixel_format
    context.time_base = 1 / rate
    primaries, transfer, matrix = colour_of(picture.attributes, path)
    limits = ColorRange.MPEG
    if pixel_format == "yuvj444p":  # what JPEG is by definition
        matrix, limits = int(Colorspace.ITU601), ColorRange.JPEG
    if pixel_format.startswith("yuv"):
        context.colorspace, context.color_range = matrix, int(limits)
    if pixel_format.startswith("yuv") or "colour" in picture.attributes:
        context.color_primaries, context.color_trc = primaries, transfer
    if aspect := picture.attributes.get("pixel_aspect"):
        context.sample_aspect_ratio = Fraction(*aspect)

    packets = [_picture_packets(stream, picture, rate, matrix, limits)]
    if sound is not None:
        track, sample_rate = _sound_stream(container, coding, sound)
        packets.append(_sound_packets(track, sound, sample_rate, path))
    # In order of time, or the muxer holds one of the two back until the end.
    for _, encoded in heapq.merge(*packets, key=lambda item: item[0]):
        container.mux(encoded)


def _picture_packets(
    stream: Any, picture: AnySignal, rate: Fraction, matrix: int, limits: ColorRange
) -> Iterator[tuple[Fraction, Any]]:
    """Encode [T, H, W, 3] uint8 frames; yield (seconds, packets)."""
    reformatter = VideoReformatter()
    for index, rgb in enumerate(rgb for _, part in slabs_of(picture) for rgb in part.values):
        frame = reformatter.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24"),
            format=stream.codec_context.pix_fmt,
            src_colorspace=Colorspace.ITU601 if matrix == Colorspace.ITU709 else Colorspace.ITU709,
            dst_colorspace=matrix,
            src_color_range=ColorRange.JPEG,
            dst_color_range=limits,
            interpolation=ACCURATE,
        )
        frame.pts, frame.time_base = index, 1 / rate
        yield index / rate, stream.encode(frame)
    yield picture.shape[0] / rate, stream.encode(None)


def _sound_stream(container: Any, coding: Coding, sound: AnySignal) -> tuple[Any, int]:
    """Add a sound track; return it and the sample rate of the signal, which the track may not have."""
    assert sound.axes[0].rate is not None
    rate = round(sound.axes[0].rate)
    known = av.Codec(coding.sound_codec, "w").audio_rates or [rate]
    track_rate = min((r for r in known if r >= rate), default=max(known))
    stream = container.add_stream(coding.sound_codec, rate=track_rate)
    stream.codec_context.layout = _SOUND_LAYOUTS[sound.shape[1] - 1]
    if coding.sound_bit_rate is not None:
        stream.codec_context.bit_rate = coding.sound_bit_rate * sound.shape[1]
    return stream, rate


def _sound_packets(stream: Any, sound: AnySignal, rate: int, path: Path) -> Iterator[tuple[Fraction, Any]]:
    """Encode [time, channels, 1] in pieces of up to a second; yield (seconds, packets)."""
    layout = _SOUND_LAYOUTS[sound.shape[1] - 1]
    for begin, part in slabs_of(sound):
        part.check_finite(path)
        for start in range(0, len(part.values), rate):
            piece = np.ascontiguousarray(part.values[start : start + rate, :, 0], dtype=np.float32)
            frame = AudioFrame.from_ndarray(piece.reshape(1, -1), format="flt", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, begin + start, Fraction(1, rate)
            yield Fraction(begin + start, rate), stream.encode(frame)
    yield Fraction(sound.shape[0], rate), stream.encode(None)

"""Video through FFmpeg's encoders: bare streams of 4:2:0 frames; PSNR is of RGB frames made of them."""

import io
from fractions import Fraction
from functools import partial
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from rivals import Rival, missing_encoder

from inrcodec.signals.signal import Signal

_WITHOUT_TEXT = {"h264": "filter_units=remove_types=6", "hevc": "filter_units=remove_types=39"}
_ACCURATE = 0x4 | 0x2000 | 0x4000 | 0x40000  # bicubic, full chroma both ways, accurate rounding


def _convert(frame: Any, format: str) -> Any:
    """Convert BT.709 of limited range to RGB and back."""
    to_rgb = format == "rgb24"
    limited, full = ColorRange.MPEG, ColorRange.JPEG
    # RGB has no matrix; naming another one than that of the other side keeps PyAV from ignoring both.
    return VideoReformatter().reformat(
        frame,
        format=format,
        src_colorspace=Colorspace.ITU709 if to_rgb else Colorspace.ITU601,
        dst_colorspace=Colorspace.ITU601 if to_rgb else Colorspace.ITU709,
        src_color_range=limited if to_rgb else full,
        dst_color_range=full if to_rgb else limited,
        interpolation=_ACCURATE,
    )


def _encode_video(signal: Signal, crf: int, *, codec: str, format: str, options: dict[str, str]) -> bytes:
    rate = signal.axes[0].rate or Fraction(25)
    # 4:2:0 needs even sizes; the line that is added is cut off after decoding.
    even = np.pad(signal.values, ((0, 0), *((0, size % 2) for size in signal.shape[1:]), (0, 0)), mode="edge")
    file = io.BytesIO()
    with av.open(file, "w", format=format) as container:
        stream: Any = container.add_stream(
            codec, rate=rate.limit_denominator(1_001_000), options={**options, "crf": str(crf)}
        )
        stream.height, stream.width = even.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # x264 writes its settings into the stream as text, 700 bytes that decoders do not need.
        without_text = BitStreamFilterContext(_WITHOUT_TEXT[format], stream)

        def write(packets: list[Any]) -> None:
            for packet in packets:
                container.mux(without_text.filter(packet))

        for number, values in enumerate(even):
            frame = _convert(av.VideoFrame.from_ndarray(np.ascontiguousarray(values), format="rgb24"), "yuv420p")
            frame.pts, frame.time_base = number, 1 / rate
            write(stream.encode(frame))
        write(stream.encode(None))
    return file.getvalue()


def _decode_video(data: bytes, signal: Signal, *, format: str) -> np.ndarray:
    with av.open(io.BytesIO(data), "r", format=format) as container:
        frames = [_convert(frame, "rgb24").to_ndarray() for frame in container.decode(video=0)]
    values = np.stack(frames)[:, : signal.shape[1], : signal.shape[2]]
    if values.shape != signal.values.shape:
        raise ValueError(f"it returned {len(values)} frames of {len(signal.values)}")
    return values


def _video_obstacle(signal: Signal, *, codec: str, smallest: int) -> str | None:
    height, width = signal.shape[1:]
    if min(height, width) < smallest:
        return f"it needs {smallest} samples along both axes, the video has {height}x{width}"
    return missing_encoder(signal, codec=codec)


def _video_rival(name: str, codec: str, format: str, smallest: int = 1, **options: str) -> Rival:
    return Rival(
        name=name,
        unit="CRF",
        settings=(18, 23, 28, 33, 38, 43, 48),
        encode=partial(_encode_video, codec=codec, format=format, options={"preset": "medium", **options}),
        decode=partial(_decode_video, format=format),
        obstacle=partial(_video_obstacle, codec=codec, smallest=smallest),
    )


RIVALS = (
    _video_rival("x264", "libx264", "h264"),
    # Below a coding tree unit x265 writes beyond its buffers.
    _video_rival("x265", "libx265", "hevc", smallest=64, **{"x265-params": "log-level=error:info=0"}),
)

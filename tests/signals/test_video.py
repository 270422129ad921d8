"""Video files and folders of frames: what is written comes back, what is no video is refused by name."""

import contextlib
import re
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loaded import loaded
from peak_memory import peak_growth
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

import inrcodec.signals
from inrcodec.errors import InrcodecWarning, SignalError
from inrcodec.signals import audio_blocks, image_opening, video, video_frames, video_timing
from inrcodec.signals import lazy as lazy_signals
from inrcodec.signals.lazy import LazySignal, lazy_like
from inrcodec.signals.signal import Axis, Signal

SAMPLES = Path(__file__).parents[2] / "assets" / "samples"
WRITTEN = (".mp4", ".mov", ".mkv", ".webm", ".avi")


def picture_of(values: np.ndarray, rate: Fraction = Fraction(25), **attributes: object) -> Signal:
    axes = (Axis(values.shape[0], "start", rate=rate), Axis(values.shape[1]), Axis(values.shape[2]))
    return Signal("video", values, axes, (0.0, 255.0), attributes=attributes)


def sound_of(values: np.ndarray, rate: int | Fraction) -> Signal:
    axes = (Axis(values.shape[0], "start", rate=Fraction(rate)), Axis(values.shape[1], "slice"))
    return Signal("audio", values[..., None].astype(np.float32), axes, (-1.0, 1.0), name="sound")


def waves(frames: int = 6, height: int = 48, width: int = 64) -> np.ndarray:
    """[T, H, W, 3] uint8 of smooth moving colours, gentle enough for halved chroma."""
    t, y, x = np.ogrid[:frames, :height, :width]
    phases = ((x + 2 * t) / 17 + 0 * y, (y - t) / 19 + 0 * x, (x + y + t) / 23)
    return np.stack([np.rint(127 + 90 * np.sin(phase)) for phase in phases], axis=-1).astype(np.uint8)


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def tones(channels: int, samples: int, rate: int) -> np.ndarray:
    """[time, channels] float: a tone per channel, faded in as codecs stumble over a hard start."""
    seconds = np.arange(samples)[:, None] / rate
    pitches = 300 + 70 * np.arange(channels)
    return 0.4 * np.sin(2 * np.pi * pitches * seconds) * np.minimum(1, seconds / 0.1)


def frame_rate(signal: Signal) -> Fraction | None:
    return signal.axes[0].rate


# -- round trips --------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 2**32 - 1),
    rate=st.sampled_from([Fraction(24), Fraction(24000, 1001), Fraction(60000, 1001), Fraction(10, 3)]),
)
def test_matroska_is_lossless(tmp_path_factory, shape, seed, rate):
    values = noise((*shape, 3), seed)
    path = tmp_path_factory.mktemp("lossless") / "clip.mkv"
    video.write([picture_of(values, rate)], path)
    (signal,) = loaded(video, path)
    assert np.array_equal(signal.values, values)
    assert frame_rate(signal) == rate
    assert [axis.kind for axis in signal.axes] == ["start", "cell", "cell"]
    assert (signal.modality, signal.name, signal.value_range, signal.attributes) == (
        "video",
        "",
        (0, 255),
        {},
    )


@pytest.mark.parametrize("extension", [e for e in WRITTEN if e != ".mkv"])
@pytest.mark.parametrize("shape", [(6, 48, 64), (1, 48, 64), (3, 47, 63), (2, 1, 1)])
def test_lossy_formats_stay_close(tmp_path, extension, shape):
    values = waves(*shape)
    video.write([picture_of(values)], tmp_path / f"clip{extension}")
    (signal,) = loaded(video, tmp_path / f"clip{extension}")
    assert signal.values.shape == values.shape
    assert peak_signal_noise_ratio(values, signal.values, data_range=255) > 38


@pytest.mark.parametrize("extension", WRITTEN)
def test_colours_survive(tmp_path, extension):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)]
    values = np.array(colours, np.uint8)[:, None, None].repeat(32, axis=1).repeat(48, axis=2)
    video.write([picture_of(values)], tmp_path / f"clip{extension}")
    (signal,) = loaded(video, tmp_path / f"clip{extension}")
    assert np.abs(signal.values.astype(int) - values).max() <= 4


@pytest.mark.parametrize("extension", WRITTEN)
@pytest.mark.parametrize("rate", ["24", "24000/1001", "60000/1001", "179/6", "25/2", "1", "1000"])
def test_frame_rate_is_exact(tmp_path, extension, rate):
    video.write([picture_of(waves(5, 16, 16), Fraction(rate))], tmp_path / f"clip{extension}")
    (signal,) = loaded(video, tmp_path / f"clip{extension}")
    assert frame_rate(signal) == Fraction(rate)
    assert signal.shape[0] == 5


def test_awkward_frame_rate_is_kept_closely(tmp_path):
    rate = Fraction(24) * 123456791 / 123456789
    video.write([picture_of(waves(5, 16, 16), rate)], tmp_path / "clip.mp4")
    assert frame_rate(loaded(video, tmp_path / "clip.mp4")[0]) == pytest.approx(float(rate), rel=1e-6)


@pytest.mark.parametrize("extension", [".mp4", ".mov", ".avi"])
def test_pixel_aspect_is_kept(tmp_path, extension):
    video.write([picture_of(waves(2), pixel_aspect=[64, 45])], tmp_path / f"clip{extension}")
    assert loaded(video, tmp_path / f"clip{extension}")[0].attributes == {"pixel_aspect": [64, 45]}


# -- colour and orientation, against files not written by the module ----------------------------------------


def write_planes(path: Path, yuv: np.ndarray, matrix: int, limits: int) -> None:
    """A lossless file of one 4:4:4 frame from its [3, H, W] planes, tagged as said (FFmpeg's numbers)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "0"})
        context = stream.codec_context
        context.height, context.width, context.pix_fmt = *yuv.shape[1:], "yuv444p"
        context.colorspace, context.color_range = matrix, limits
        frame = av.VideoFrame.from_ndarray(yuv, format="yuv444p")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("matrix", "red", "blue"),
    [(1, 0.2126, 0.0722), (5, 0.299, 0.114), (6, 0.299, 0.114), (9, 0.2627, 0.0593), (2, 0.299, 0.114)],
    ids=["bt709", "bt470bg", "smpte170m", "bt2020", "untagged"],
)
def test_yuv_is_converted_as_tagged(tmp_path, matrix, red, blue, full):
    rgb = noise((32, 48, 3)).astype(np.float64)
    luma = rgb @ [red, 1 - red - blue, blue]
    chroma = [(rgb[..., 2] - luma) / (2 - 2 * blue), (rgb[..., 0] - luma) / (2 - 2 * red)]
    scale, offset = ((1, 1), 0) if full else ((219 / 255, 224 / 255), 16)
    planes = [offset + scale[0] * luma, *(128 + scale[1] * c for c in chroma)]
    yuv = np.clip(np.rint(planes), 0, 255).astype(np.uint8)
    write_planes(tmp_path / "tagged.mp4", yuv, matrix, 2 if full else 1)
    (signal,) = loaded(video, tmp_path / "tagged.mp4")
    assert np.abs(signal.values[0] - rgb).max() <= 2.5


def test_written_files_are_tagged_as_they_are_converted(tmp_path):
    values = np.full((1, 32, 32, 3), (220, 60, 20), np.uint8)
    video.write([picture_of(values)], tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_range) == (1, 1)
    luma = values[0, 0, 0] @ [0.2126, 0.7152, 0.0722]
    assert frame.to_ndarray()[:32].mean() == pytest.approx(16 + 219 / 255 * luma, abs=1)


@pytest.mark.parametrize("extension", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize(("colour", "matrix"), [([9, 16], 9), ([9, 18], 9), ([12, 16], 1), ([6, 6], 1), ([1, 13], 1)])
def test_other_colours_are_kept_and_told(tmp_path, extension, colour, matrix):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)]
    values = np.array(colours, np.uint8)[:, None, None].repeat(32, axis=1).repeat(48, axis=2)
    video.write([picture_of(values, colour=colour)], tmp_path / f"clip{extension}")
    with av.open(str(tmp_path / f"clip{extension}")) as container:
        frame = next(container.decode(video=0))
        context = container.streams.video[0].codec_context
        assert [context.color_primaries, context.color_trc] == colour
        assert extension == ".mkv" or frame.colorspace == matrix
    (signal,) = loaded(video, tmp_path / f"clip{extension}")
    assert signal.attributes == {"colour": colour}
    assert np.abs(signal.values.astype(int) - values).max() <= 4


def test_hdr_video_keeps_its_tags(tmp_path):
    with av.open(str(tmp_path / "hdr.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "0"})
        context = stream.codec_context
        context.width = context.height = 32
        context.pix_fmt, context.color_range = "yuv420p10le", 1
        context.color_primaries, context.color_trc, context.colorspace = 9, 16, 9
        frame = av.VideoFrame(32, 32, "yuv420p10le")
        for plane, level in zip(frame.planes, (500, 512, 512), strict=True):
            plane.update(np.full(plane.buffer_size // 2, level, np.uint16).tobytes())
        container.mux([*stream.encode(frame), *stream.encode(None)])
    (signal,) = loaded(video, tmp_path / "hdr.mp4")
    assert signal.attributes == {"colour": [9, 16]}
    assert np.abs(signal.values.astype(int) - round((500 / 4 - 16) * 255 / 219)).max() <= 1


@pytest.mark.parametrize("colour", [[9, 16], [1, 16], [1, 18], [12, 1], [9, 14]])
def test_colours_that_a_format_cannot_tell_are_refused(tmp_path, colour):
    with pytest.raises(SignalError, match=r"\.avi cannot say .*use \.mp4"):
        video.write([picture_of(waves(2), colour=colour)], tmp_path / "clip.avi")
    video.write([picture_of(waves(2), colour=[6, 6])], tmp_path / "clip.avi")


def test_hidden_colours_are_not_shown(tmp_path):
    """A picture with noise below fully transparent places, and half a gray."""
    rgba = noise((2, 16, 24, 4))
    rgba[..., 3] = [[0] * 8 + [128] * 8 + [255] * 8] * 16
    with av.open(str(tmp_path / "clip.mov"), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.codec_context.width, stream.codec_context.height, stream.codec_context.pix_fmt = 24, 16, "rgba"
        for values in rgba:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values, format="rgba")))
        container.mux(stream.encode(None))
    with pytest.warns(InrcodecWarning, match="2 frames are transparent in places; black"):
        (signal,) = loaded(video, tmp_path / "clip.mov")
    assert np.array_equal(signal.values, np.rint(rgba[..., :3] * (rgba[..., 3:] / 255.0)))


def test_alpha_beside_the_frames_is_told(tmp_path):
    """VP9 in WebM has alpha in a second stream of each packet."""
    rgba = np.full((16, 24, 4), 128, np.uint8)
    with av.open(str(tmp_path / "clip.webm"), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=25)
        stream.codec_context.width, stream.codec_context.height, stream.codec_context.pix_fmt = 24, 16, "yuva420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format="yuva420p")))
        container.mux(stream.encode(None))
    with pytest.warns(InrcodecWarning, match=r"clip\.webm: the transparency of the clip is not kept"):
        loaded(video, tmp_path / "clip.webm")


def test_opaque_alpha_is_nothing_to_tell(tmp_path):
    rgba = noise((1, 16, 24, 4))
    rgba[..., 3] = 255
    with av.open(str(tmp_path / "clip.mov"), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.codec_context.width, stream.codec_context.height, stream.codec_context.pix_fmt = 24, 16, "rgba"
        container.mux([*stream.encode(av.VideoFrame.from_ndarray(rgba[0], format="rgba")), *stream.encode(None)])
    (signal,) = loaded(video, tmp_path / "clip.mov")
    assert np.array_equal(signal.values, rgba[..., :3])


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((1, 0, 0, 1), lambda a: a),
        ((0, 1, -1, 0), lambda a: np.rot90(a, -1)),
        ((-1, 0, 0, -1), lambda a: np.rot90(a, 2)),
        ((0, -1, 1, 0), lambda a: np.rot90(a, 1)),
        ((-1, 0, 0, 1), np.fliplr),
        ((0, 1, 1, 0), lambda a: a.transpose(1, 0, 2)),
    ],
    ids=["upright", "clockwise", "half turn", "counterclockwise", "mirrored", "transposed"],
)
def test_pictures_are_turned_upright(tmp_path, matrix, expected):
    values = waves(2, 32, 48)
    path = tmp_path / "phone.mp4"
    video.write([picture_of(values)], path)
    write_display_matrix(path, matrix)
    (signal,) = loaded(video, path)
    shown = np.stack([expected(frame) for frame in values])
    assert peak_signal_noise_ratio(shown, signal.values, data_range=255) > 35


def test_slanted_pictures_are_refused(tmp_path):
    video.write([picture_of(waves(2))], tmp_path / "slanted.mp4")
    write_display_matrix(tmp_path / "slanted.mp4", (1, 1, -1, 1))
    with pytest.raises(SignalError, match="quarter turns"):
        loaded(video, tmp_path / "slanted.mp4")


def write_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Overwrite (a, b, c, d) of the matrix in the track header of an MP4 file."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value * 65536 for value in matrix)
    data[start : start + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(data)


# -- time ---------------------------------------------------------------------------------------------------


def write_at(path: Path, values: np.ndarray, times: list[int]) -> None:
    """A lossless file of frames shown from `times`, in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=50)
        stream.codec_context.height, stream.codec_context.width = values.shape[1:3]
        stream.codec_context.pix_fmt, stream.codec_context.time_base = "bgr0", Fraction(1, 1000)
        for time, rgb in zip(times, values, strict=True):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("times", "rate"),
    [
        ([0, 40, 60, 200, 220, 300, 500, 520, 640, 1000], 50),
        ([0, 1000, 4000, 6000, 7000], 1),
        ([0, 2000, 5000, 7000], 1),
        ([0, 40, 80, 2080, 2120, 2160], 25),
        ([0, 33, 67, 100, 133, 400, 433, 467], Fraction(30)),
        ([500, 540, 580, 620, 900, 940], 25),
    ],
)
def test_frames_at_uneven_times_are_repeated(tmp_path, times, rate):
    values = waves(len(times), 16, 32)
    write_at(tmp_path / "clip.mkv", values, times)
    (signal,) = loaded(video, tmp_path / "clip.mkv")
    assert frame_rate(signal) == pytest.approx(rate, rel=0.0011)  # 29.97 is as good as 30
    for time, frame in zip(times, values, strict=True):
        tick = round((time - times[0]) / 1000 * rate)
        assert np.array_equal(signal.values[tick], frame)
        assert tick == 0 or not np.array_equal(signal.values[tick - 1], frame)
    span = (times[-1] - times[0]) / 1000
    assert span * rate < signal.shape[0] <= (span + 2.1) * rate


def test_frames_at_odd_times_are_near_them(tmp_path):
    random = np.random.default_rng(0)
    times = np.cumsum(random.integers(20, 60, 60)).tolist()
    values = np.arange(60, dtype=np.uint8)[:, None, None, None].repeat(16, 1).repeat(16, 2).repeat(3, 3)
    write_at(tmp_path / "clip.mkv", values, times)
    (signal,) = loaded(video, tmp_path / "clip.mkv")
    rate = frame_rate(signal)
    shown = signal.values[:, 0, 0, 0]
    assert rate <= 1000
    for tick, number in enumerate(shown):
        # What is shown is the last frame before, or one that begins within half a tick.
        assert times[number] - times[0] <= 1000 * (tick + 0.5) / rate + 1
        assert number == 59 or times[number + 1] - times[0] > 1000 * (tick - 0.5) / rate


def test_jittery_times_of_a_constant_rate_stay_constant(tmp_path):
    jitter = np.random.default_rng(0).integers(-12, 13, 50)
    times = (np.arange(50) * 40 + 100 + jitter).tolist()
    values = waves(50, 16, 16)
    write_at(tmp_path / "clip.mkv", values, times)
    (signal,) = loaded(video, tmp_path / "clip.mkv")
    assert np.array_equal(signal.values, values)
    assert frame_rate(signal) == pytest.approx(25, rel=0.02)


@pytest.mark.parametrize(
    ("delays", "rate"), [([100, 200, 50, 400], 20), ([100, 100, 100, 100], 10), ([500, 1500, 500, 2000], 2)]
)
def test_delays_of_a_gif_are_kept(tmp_path, delays, rate):
    frames = [Image.new("RGB", (16, 16), (60 * number, 0, 0)) for number in range(4)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:], duration=delays)
    (signal,) = loaded(video, tmp_path / "x.gif")
    assert frame_rate(signal) == rate
    expected = np.repeat([0, 60, 120, 180], [delay * rate // 1000 for delay in delays])
    assert np.array_equal(signal.values[:, 0, 0, 0], expected)


def test_a_clip_that_would_become_endless_is_refused(tmp_path):
    write_at(tmp_path / "clip.mkv", waves(3, 16, 16), [0, 20, 10_000_000])
    with pytest.raises(SignalError, match="3 frames at uneven times would become 500001 at 50 per second"):
        loaded(video, tmp_path / "clip.mkv")


def test_time_does_not_run_backwards():
    with pytest.raises(SignalError, match=r"jump back by 1\.000 s"):
        video_timing.even_frames(np.array([0, 2, 1, 5]), Fraction(1), Fraction(0), Fraction(1), Path("clip"))


def test_time_of_sound():
    block = np.ones((1000, 2), np.float32)

    def placed(*times: float | None) -> np.ndarray:
        pieces = [(None if time is None else Fraction(time), block) for time in times]
        return np.concatenate(list(video_timing.continuous_sound(pieces, 1000, Fraction(20), Path("clip"))))[:, 0]

    assert placed(5, 6, 7).tolist() == [1] * 3000
    assert placed(5, None, 7).tolist() == [1] * 3000
    assert placed(5, 6.01, 6.99).tolist() == [1] * 3000  # as accurate as time stamps are
    assert placed(5, 6.5, 7.5).tolist() == [1] * 1000 + [0] * 500 + [1] * 2000
    assert placed(5, 5.75, 6.75).tolist() == [1] * 2750
    assert placed(None, None).tolist() == [1] * 2000
    for times in ((5, 5.1), (0, 22)):
        with pytest.raises(SignalError, match="time stamps of the sound jump"):
            placed(*times)


FLASH = 30
"""Number of the frame that is bright, at 25 per second: while it is shown, there is a beep."""


def write_flash_and_beep(path: Path, lost: range) -> None:
    """40 frames and 1.6 s of sound, without the packets that begin while a frame of `lost` is shown."""
    rate = 48000
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg2video", rate=25, options={"g": "1", "bf": "0"})
        pictures.codec_context.width = pictures.codec_context.height = 32
        pictures.codec_context.pix_fmt = "yuv420p"
        sound = container.add_stream("mp2", rate=rate)
        sound.codec_context.layout = "mono"
        packets = []
        for index in range(40):
            rgb = np.full((32, 32, 3), 255 if index == FLASH else 0, np.uint8)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            packets += pictures.encode(frame)
        packets += pictures.encode(None)
        samples = np.zeros((1, 64_512), np.int16)
        samples[:, FLASH * 1920 : (FLASH + 1) * 1920] = (20000 * np.sin(np.arange(1920) / 8)).astype(np.int16)
        for start in range(0, samples.shape[1], 1152):
            frame = av.AudioFrame.from_ndarray(samples[:, start : start + 1152], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            packets += sound.encode(frame)
        packets += sound.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            if int(packet.pts * packet.time_base * 25) not in lost:
                container.mux(packet)


@pytest.mark.parametrize("extension", [".ts", ".mkv"])
@pytest.mark.parametrize("lost", [range(0), range(10, 14), range(6, 7), range(3, 29)])
def test_lost_packets_leave_picture_and_sound_together(tmp_path, extension, lost):
    write_flash_and_beep(tmp_path / f"clip{extension}", lost)
    picture, sound = loaded(video, tmp_path / f"clip{extension}")
    assert frame_rate(picture) == 25
    assert picture.shape[0] == 40
    (flashes,) = np.nonzero(picture.values.mean((1, 2, 3)) > 128)
    assert flashes.tolist() == [FLASH]
    (beep,) = np.nonzero(np.abs(sound.values[:, 0, 0]) > 0.1)
    assert beep[0] / 48000 == pytest.approx(FLASH / 25, abs=0.03)
    assert beep[-1] / 48000 == pytest.approx((FLASH + 1) / 25, abs=0.03)


@pytest.mark.parametrize("delay", [0.3, -0.3])
def test_sound_begins_with_the_picture(tmp_path, delay):
    rate, beep = 8000, np.full((1, 8000), 0.5, np.float32)
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        pictures = container.add_stream("ffv1", rate=10)
        pictures.codec_context.width, pictures.codec_context.height = 16, 16
        pictures.codec_context.pix_fmt = "bgr0"
        sound = container.add_stream("flac", rate=rate)
        sound.codec_context.layout = "mono"
        samples = av.AudioFrame.from_ndarray((beep * 32768).astype(np.int16), format="s16", layout="mono")
        samples.sample_rate, samples.time_base = rate, Fraction(1, rate)
        samples.pts = round(max(delay, 0) * rate)
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
        for index in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = index * 100 + round(max(-delay, 0) * 1000), Fraction(1, 1000)
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
    values = loaded(video, tmp_path / "clip.mkv")[1].values[:, 0, 0]
    assert len(values) == 8000 + round(delay * rate)
    assert np.count_nonzero(values) == min(8000, len(values))


# -- tracks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("default", [0, 1, None])
def test_the_track_marked_as_default_is_read(tmp_path, default):
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        pictures = [container.add_stream("ffv1", rate=10) for _ in range(2)]
        sounds = [container.add_stream("pcm_s16le", rate=8000, layout="mono") for _ in range(2)]
        for number, stream in enumerate(pictures):
            stream.codec_context.width = stream.codec_context.height = 16
            stream.codec_context.pix_fmt = "bgr0"
            stream.disposition = 1 if number == default else 0
        for number, stream in enumerate(sounds):
            stream.disposition = 1 if number == default else 0
        for number, stream in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 100 + number, np.uint8), format="rgb24")
            container.mux([*stream.encode(frame), *stream.encode(None)])
        for number, stream in enumerate(sounds):
            frame = av.AudioFrame.from_ndarray(np.full((1, 800), 100 + number, np.int16), format="s16", layout="mono")
            frame.sample_rate = 8000
            container.mux([*stream.encode(frame), *stream.encode(None)])
    picture, sound = loaded(video, tmp_path / "clip.mkv")
    assert picture.values[0, 0, 0, 0] == 100 + (default or 0)
    assert sound.values[0, 0, 0] * 32768 == 100 + (default or 0)


# -- sound --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [".mkv", ".avi"])
@pytest.mark.parametrize(("channels", "samples", "rate"), [(1, 1, 8000), (2, 44101, 44100), (8, 5000, 12345)])
def test_lossless_sound(tmp_path, extension, channels, samples, rate):
    values = np.random.default_rng(1).uniform(-1, 1, (samples, channels))
    video.write([picture_of(waves(2, 16, 16)), sound_of(values, rate)], tmp_path / f"clip{extension}")
    _, sound = loaded(video, tmp_path / f"clip{extension}")
    assert (sound.modality, sound.name, sound.shape) == ("audio", "sound", (samples, channels))
    assert sound.values.dtype == np.float32
    assert [axis.kind for axis in sound.axes] == ["start", "slice"]
    assert sound.axes[0].rate == rate
    assert np.abs(sound.values[..., 0] - values).max() <= 1 / 32768
    peak = np.abs(sound.values).max()
    assert sound.value_range == (-peak, peak)


@pytest.mark.parametrize("extension", [".mp4", ".mov", ".webm"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_lossy_sound_is_aligned(tmp_path, extension, channels):
    values = tones(channels, 48000, 48000)
    video.write([picture_of(waves(10, 16, 16)), sound_of(values, 48000)], tmp_path / f"clip{extension}")
    _, sound = loaded(video, tmp_path / f"clip{extension}")
    assert sound.axes[0].rate == 48000
    assert 48000 <= sound.shape[0] < 48000 + 2048
    middle = slice(9600, 38400)
    # The fourth of six channels is the one for low frequencies, which codecs cut short.
    for index in set(range(channels)) - ({3} if channels == 6 else set()):
        error = sound.values[middle, index, 0] - values[middle, index]
        assert np.sum(values[middle, index] ** 2) > 100 * np.sum(error**2)


@pytest.mark.parametrize(("extension", "rate"), [(".mp4", 12345), (".webm", 22050), (".mp4", 192000)])
def test_sound_is_resampled_to_a_rate_the_codec_knows(tmp_path, extension, rate):
    video.write([picture_of(waves(5, 16, 16)), sound_of(tones(1, rate, rate), rate)], tmp_path / f"clip{extension}")
    _, sound = loaded(video, tmp_path / f"clip{extension}")
    assert sound.axes[0].rate is not None
    assert float(sound.shape[0] / sound.axes[0].rate) == pytest.approx(1, abs=0.2)


def test_silence_has_a_value_range(tmp_path):
    silence = sound_of(np.zeros((100, 1)), Fraction(16001, 2))
    video.write([picture_of(waves(2, 16, 16)), silence], tmp_path / "clip.mkv")
    assert loaded(video, tmp_path / "clip.mkv")[1].value_range == (-1.0, 1.0)


# -- folders of frames --------------------------------------------------------------------------------------


def test_folder_of_frames(tmp_path):
    values = noise((3, 5, 7, 3))
    for name, frame in zip(("frame2.png", "Frame10.PNG", "frame11.png"), values, strict=True):
        Image.fromarray(frame).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / ".frame1.png").write_text("not a frame either")
    (signal,) = loaded(video, tmp_path)
    assert np.array_equal(signal.values, values)
    assert frame_rate(signal) == 25


def test_frames_with_palette_alpha_or_gray(tmp_path):
    frame = Image.fromarray(noise((6, 8, 3)))
    frame.convert("L").save(tmp_path / "0.png")
    frame.convert("RGBA").save(tmp_path / "1.webp", lossless=True)
    frame.quantize(16).save(tmp_path / "2.png", transparency=b"\x00\x80")
    with pytest.warns(InrcodecWarning, match="1 frames are transparent in places; black"):
        (signal,) = loaded(video, tmp_path)
    shown = np.asarray(frame.quantize(16).convert("RGB")).astype(float)
    index = np.asarray(frame.quantize(16))
    expected = np.rint(shown * np.array([0, 128, *[255] * 14])[index][..., None] / 255)
    assert np.array_equal(signal.values[2], expected)
    assert signal.values.shape == (3, 6, 8, 3)
    assert np.array_equal(signal.values[1], np.asarray(frame))


def test_folders_that_are_no_clip(tmp_path):
    with pytest.raises(SignalError, match="no frames"):
        loaded(video, tmp_path)
    Image.fromarray(noise((4, 4, 3))).save(tmp_path / "0.png")
    Image.fromarray(noise((4, 6, 3))).save(tmp_path / "1.png")
    with pytest.raises(SignalError, match="frame 1 is 6x4, the first is 4x4"):
        loaded(video, tmp_path)
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes()[:50])
    with pytest.raises(SignalError, match=r"1\.png: cannot be read as an image"):
        loaded(video, tmp_path)
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "1.png")
    with pytest.raises(SignalError, match="8 bits"):
        loaded(video, tmp_path)


def test_frames_come_through_the_gate_of_all_pictures(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    def run(*arguments: object, **options: object) -> None:
        raise AssertionError("Ghostscript must not run")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "0.png").write_bytes(page)
    with pytest.raises(SignalError, match=r"0\.png: not an image"):
        loaded(video, tmp_path)
    with pytest.raises(SignalError, match=r"0\.png: not an image"):
        inrcodec.signals.read(tmp_path / "0.png")


def test_frames_have_the_limit_of_all_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(image_opening, "MAX_PIXELS", 99)
    Image.new("RGB", (10, 10)).save(tmp_path / "0.png")
    with pytest.raises(SignalError, match="more than 99 pixels"):
        loaded(video, tmp_path)


# -- what is no video ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", WRITTEN)
def test_truncated_files(tmp_path, extension):
    path = tmp_path / f"clip{extension}"
    video.write([picture_of(waves()), sound_of(tones(1, 2000, 8000), 8000)], path)
    whole = path.read_bytes()
    for share in (0.01, 0.3, 0.6, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(SignalError):
            loaded(video, path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.mp4", b""),
        ("text.mp4", b"this is no video\n" * 100),
        ("ansi.txt", b"text is decoded as terminal art by FFmpeg\n" * 100),
        ("noise.mp4", noise((5000,)).tobytes()),
        ("header.mp4", b"\0\0\0\x14ftypisom\0\0\0\0isom"),
        ("header.mkv", b"\x1a\x45\xdf\xa3"),
        ("header.avi", b"RIFF\x04\0\0\0AVI "),
    ],
)
def test_not_a_video(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SignalError, match=name):
        loaded(video, tmp_path / name)


def test_missing_file(tmp_path):
    with pytest.raises(SignalError, match="no such file"):
        loaded(video, tmp_path / "missing.mp4")


def test_playlists_are_not_followed(tmp_path):
    video.write([picture_of(waves(2))], tmp_path / "clip.mp4")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile 'clip.mp4'\n")
    with pytest.raises(SignalError):
        loaded(video, tmp_path / "list.mp4")


def test_sound_without_picture(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        stream.codec_context.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(SignalError, match="no video track"):
        loaded(video, tmp_path / "sound.mp4")


@settings(deadline=None, max_examples=40)
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=8))
def test_damage_is_an_error_or_a_clip(tmp_path_factory, flips):
    data = bytearray((SAMPLES / "video" / "bottle.mp4").read_bytes())
    for place, value in flips:
        data[-1 - place % len(data)] ^= value
    path = tmp_path_factory.mktemp("damaged") / "clip.mp4"
    path.write_bytes(data)
    with contextlib.suppress(SignalError, InrcodecWarning):
        assert loaded(video, path)[0].channels == 3


def test_frames_that_the_decoder_guesses_are_told(tmp_path):
    data = (SAMPLES / "video" / "bottle.mp4").read_bytes()
    begin, told = data.index(b"mdat") + 8, []
    for place in np.linspace(begin + 100, len(data) - 3000, 12).astype(int):
        (tmp_path / "clip.mp4").write_bytes(data[:place] + bytes(40) + data[place + 40 :])
        with warnings.catch_warnings(record=True) as caught, contextlib.suppress(SignalError):
            warnings.simplefilter("always")
            loaded(video, tmp_path / "clip.mp4")
        told += [str(warning.message) for warning in caught]
    assert told
    assert all(re.fullmatch(r".*clip\.mp4: \d+ frames are damaged, and shown as .*", text) for text in told)


def test_unknown_extension_lists_the_known_ones(tmp_path):
    with pytest.raises(SignalError, match=r"use one of .*\.mp4"):
        inrcodec.signals.write([picture_of(waves(2, 16, 16))], tmp_path / "clip.xyz")


def test_write_refuses_what_is_no_clip(tmp_path):
    clip, path = picture_of(waves(2, 16, 16)), tmp_path / "clip.mp4"
    sound = sound_of(tones(1, 100, 8000), 8000)
    for signals, path_, message in [
        ([clip], tmp_path / "missing" / "clip.mp4", "cannot write"),
        ([], path, "nothing"),
        ([sound], path, "audio"),
        ([clip, clip], path, "floats"),
        ([clip, sound, sound], path, "at most one sound"),
        ([picture_of(np.zeros((1, 4, 4, 1), np.uint8))], path, "uint8"),
        ([picture_of(np.zeros((1, 4, 4, 3), np.float32))], path, "uint8"),
        ([picture_of(waves(1, 4, 4), Fraction(0))], path, "frame rate is 0"),
        ([picture_of(waves(1, 4, 4), Fraction(1, 10**9))], path, "frame rate"),
        ([picture_of(waves(1, 4, 4), pixel_aspect=[1, 0])], path, "pixel aspect"),
        ([picture_of(waves(1, 4, 4), colour=[1, 999])], path, "colour is"),
        ([picture_of(waves(1, 4, 4), colour="bt709")], path, "colour is"),
        ([clip, sound_of(np.zeros((100, 9)), 8000)], path, "at most 8 channels"),
        ([clip, sound_of(np.zeros((100, 1)), 10**7)], path, "sample rate is 10000000"),
    ]:
        with pytest.raises(SignalError, match=message):
            video.write(signals, path_)


# -- samples ------------------------------------------------------------------------------------------------


def test_sample_clip():
    picture, sound = loaded(video, SAMPLES / "clip.mp4")
    assert picture.shape == (24, 144, 256)
    assert frame_rate(picture) == 24
    assert sound.shape[1] == 2
    assert sound.axes[0].rate == 24000


def test_sample_folder():
    paths = sorted((SAMPLES / "video").glob("*.mp4"))
    assert [path.stem for path in paths] == ["book", "bottle", "bunny", "car"]
    for path in paths:
        (signal,) = loaded(video, path)
        assert signal.shape[0] == 20
        assert signal.shape[2] == 160


# -- part by part -------------------------------------------------------------------------------------------


@pytest.fixture
def nothing_kept(monkeypatch):
    """Take every clip for a long one."""
    monkeypatch.setattr(audio_blocks, "KEPT_SAMPLES", 0)
    monkeypatch.setattr(video_frames, "KEPT_BYTES", 0)


def clips(folder: Path) -> list[Path]:
    """Write clips of every format and at uneven times, with sound that is early, late or lost, and folders."""
    for extension in WRITTEN:
        sound = sound_of(tones(2, 50_000, 24000), 24000)
        video.write([picture_of(waves(30)), sound], folder / f"clip{extension}")
    write_at(folder / "uneven.mkv", waves(6, 16, 32), [0, 40, 60, 200, 220, 1000])
    write_at(folder / "dropped.mkv", waves(5, 16, 32), [0, 3, 4, 150, 1000])
    write_flash_and_beep(folder / "lost.ts", range(10, 14))
    write_flash_and_beep(folder / "late.mkv", range(9))
    frames = [Image.new("RGB", (16, 16), (60 * number, 0, 0)) for number in range(4)]
    frames[0].save(folder / "x.gif", save_all=True, append_images=frames[1:], duration=[100, 200, 50, 400])
    (folder / "frames").mkdir()
    for number, frame in enumerate(waves(12)):
        Image.fromarray(frame).save(folder / "frames" / f"{number}.png")
    video.write([picture_of(waves(2, 32, 48))], folder / "turned.mp4")
    write_display_matrix(folder / "turned.mp4", (0, 1, -1, 0))
    return sorted(folder.iterdir())


def test_long_clips_are_read_again_as_short_ones(tmp_path, monkeypatch):
    paths = clips(tmp_path)
    assert len(paths) == len(WRITTEN) + 7
    for path in paths:
        whole = loaded(video, path)
        monkeypatch.setattr(audio_blocks, "KEPT_SAMPLES", 0)
        monkeypatch.setattr(video_frames, "KEPT_BYTES", 0)
        with video.opened(path) as signals:
            assert len(signals) == len(whole)
            for lazy, signal in zip(signals, whole, strict=True):
                assert isinstance(lazy, LazySignal)
                assert np.array_equal(lazy.loaded().values, signal.values), path
                assert (lazy.modality, lazy.name, lazy.shape, lazy.channels, lazy.dtype) == (
                    (signal.modality, signal.name, signal.shape, signal.channels, signal.dtype)
                )
                assert (lazy.value_range, lazy.attributes) == (signal.value_range, signal.attributes)
                assert [vars(axis) for axis in lazy.axes] == [vars(axis) for axis in signal.axes]
        monkeypatch.undo()


@pytest.mark.usefixtures("nothing_kept")
@pytest.mark.parametrize("name", ["clip.mkv", "uneven.mkv", "frames"])
def test_parts_are_had_in_any_order(tmp_path, name):
    clips(tmp_path)
    whole, *_ = loaded(video, tmp_path / name)
    last = whole.shape[0]
    with video.opened(tmp_path / name) as signals:
        for begin, end in [(0, 1), (4, 9), (8, 11), (2, 3), (3, 4), (last - 1, last), (0, last)]:
            part = signals[0].part(begin, end)
            assert np.array_equal(part.values, whole.values[begin:end])
            assert part.axes[0].size == end - begin


@pytest.mark.usefixtures("nothing_kept")
def test_clips_that_change_while_they_are_open_are_told(tmp_path):
    clip, frames = tmp_path / "clip.mkv", tmp_path / "frames"
    video.write([picture_of(noise((20, 16, 16, 3)))], clip)
    with video.opened(clip) as (picture,):
        video.write([picture_of(noise((10, 16, 16, 3)))], clip)
        with pytest.raises(SignalError, match="the file has changed"):
            picture.loaded()
    with video.opened(clip) as (picture,):
        clip.write_bytes(b"something else")
        with pytest.raises(SignalError, match=r"clip\.mkv: cannot be read as a video"):
            picture.loaded()
    frames.mkdir()
    for number in range(3):
        Image.fromarray(waves(1)[0]).save(frames / f"{number}.png")
    with video.opened(frames) as (picture,):
        Image.fromarray(waves(1, 8, 9)[0]).save(frames / "1.png")
        with pytest.raises(SignalError, match=r"1\.png: frame 1 is 9x8"):
            picture.part(0, 3)
        assert np.array_equal(picture.part(2, 3).values, waves(1))


@pytest.mark.usefixtures("nothing_kept")
def test_files_are_closed(tmp_path):
    video.write([picture_of(waves(9)), sound_of(tones(1, 5000, 8000), 8000)], tmp_path / "clip.mkv")
    handles = len(list(Path("/proc/self/fd").iterdir()))
    with video.opened(tmp_path / "clip.mkv") as signals:
        for begin in (5, 2, 7, 0):
            for signal in signals:
                signal.part(begin, begin + 1)
    assert len(list(Path("/proc/self/fd").iterdir())) == handles


@pytest.mark.usefixtures("nothing_kept")
def test_warnings_are_told_once(tmp_path):
    Image.fromarray(noise((37, 50, 3))).quantize(16).save(tmp_path / "0.png", transparency=b"\x00\x80")
    Image.fromarray(noise((37, 50, 3))).save(tmp_path / "1.jpg")
    (tmp_path / "1.jpg").write_bytes((tmp_path / "1.jpg").read_bytes()[:-2])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with video.opened(tmp_path) as (picture,):
            picture.loaded()
    assert sorted(str(each.message).split(": ")[1][:24] for each in caught) == [
        "1 frames are transparent",
        "the JPEG data lacks its ",
    ]


def lazy_of(signal: Signal) -> LazySignal:
    return lazy_like(signal, lambda begin, end: (signal.values[begin:end], None))


@pytest.mark.parametrize("extension", [".mkv", ".avi", ".webm"])  # x264's files differ from one time to the next
def test_lazy_clips_are_written_as_those_in_memory(tmp_path, extension, monkeypatch):
    clip = [picture_of(waves(30), pixel_aspect=[64, 45]), sound_of(tones(2, 50_000, 24000), 24000)]
    video.write(clip, tmp_path / f"a{extension}")
    monkeypatch.setattr(lazy_signals, "SLAB_VALUES", 30_000)
    video.write([lazy_of(signal) for signal in clip], tmp_path / f"b{extension}")
    for one, other in zip(*(loaded(video, tmp_path / f"{name}{extension}") for name in "ab"), strict=True):
        assert np.array_equal(one.values, other.values)


def test_sound_that_is_not_finite_is_told(tmp_path):
    sound = sound_of(tones(2, 50_000, 24000), 24000)
    sound.values[40_000, 1] = np.nan
    with pytest.raises(SignalError, match=r"1 of .* values of the signal 'sound' are NaN"):
        video.write([picture_of(waves(30)), lazy_of(sound)], tmp_path / "clip.mkv")


@pytest.mark.parametrize(("shift", "expected"), [(0, range(10)), (3, [0, 0, 0, *range(10)]), (-4, range(4, 10))])
def test_sound_is_shifted(shift, expected):
    blocks = np.split(np.arange(10.0)[:, None], [2, 2, 7])
    shifted = np.concatenate(list(video_timing.shifted_sound(iter(blocks), shift)))
    assert shifted.ravel().tolist() == list(expected)


@pytest.mark.parametrize("shift", [-9, -10, -99])
def test_the_last_sample_stays(shift):
    blocks = np.split(np.arange(10.0)[:, None], [2, 9, 10])
    assert np.concatenate(list(video_timing.shifted_sound(iter(blocks), shift))).tolist() == [[9.0]]


LONG = 2000
"""Frames of 160 x 120: 115 MB."""
CLIP = f"""
import numpy as np
from fractions import Fraction
from inrcodec.signals import Axis, LazySignal, video, video_frames, video_reading, video_writing
from inrcodec.signals.lazy import slabs_of

video_frames.KEPT_BYTES = 1 << 22
rows, columns = np.ogrid[:120, :160]

def frames(begin, end):
    some = [(rows + 2 * columns + number) % 256 for number in range(begin, end)]
    return np.stack(some).astype(np.uint8)[..., None].repeat(3, -1), None

def sound(begin, end):
    return (0.5 * np.sin(np.arange(begin, end) / 20)).astype(np.float32)[:, None, None], None

axes = Axis({LONG}, "start", rate=Fraction(25)), Axis(120), Axis(160)
picture = LazySignal("video", np.dtype(np.uint8), axes, 3, (0.0, 255.0), read=frames)
axes = Axis({LONG} * 320, "start", rate=Fraction(8000)), Axis(1, "slice")
track = LazySignal("audio", np.dtype(np.float32), axes, 1, (-1.0, 1.0), read=sound, name="sound")
"""


def test_long_clips_take_little_memory(tmp_path):
    write = 'video.write([picture, track], video.Path("clip.mkv"))'
    assert peak_growth(CLIP, write, tmp_path) < 100 << 20
    read = """
        with video.opened(video.Path("clip.mkv")) as signals:
            for found, known in zip(signals, (picture, track), strict=True):
                assert found.shape == known.shape
                for begin, part in slabs_of(found):
                    values, _ = known.read(begin, begin + len(part.values))
                    assert np.abs(part.values - values).max() < 1e-4
    """
    assert peak_growth(CLIP, read, tmp_path) < 100 << 20

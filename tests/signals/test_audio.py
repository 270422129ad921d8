"""Reading and writing sound, checked against arrays and against bytes written by hand."""

import io
import struct
import wave
from fractions import Fraction
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loaded import loaded
from peak_memory import peak_growth

import inrcodec.signals
from inrcodec.errors import SignalError
from inrcodec.signals import audio, audio_blocks
from inrcodec.signals import lazy as lazy_signals
from inrcodec.signals.audio_reading import _Source
from inrcodec.signals.lazy import LazySignal, lazy_like
from inrcodec.signals.signal import Axis, Signal

SAMPLES = Path(__file__).parents[2] / "assets" / "samples"
LOSSLESS = [".wav", ".flac", ".aiff", ".au", ".caf", ".w64", ".rf64"]
LOSSY = [".mp3", ".ogg", ".opus"]


def sound(values: np.ndarray, rate: Fraction | int | None = 16000, subtype: str | None = None) -> list[Signal]:
    """values: [time, channels]"""
    length, channels = values.shape
    axes = (
        Axis(length, "start", rate=None if rate is None else Fraction(rate)),
        Axis(channels, "slice"),
    )
    attributes = {"subtype": subtype} if subtype else {}
    dtype = np.float64 if subtype in ("PCM_32", "DOUBLE") else np.float32
    return [Signal("audio", values.astype(dtype)[..., None], axes, (-1.0, 1.0), attributes=attributes)]


def noise(length: int, channels: int, bits: int = 16) -> np.ndarray:
    """Random samples that `bits` bits hold exactly."""
    levels = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (length, channels))
    return levels / 2.0 ** (bits - 1)


def tones(length: int, channels: int, rate: int) -> np.ndarray:
    time = np.arange(length) / rate
    return np.stack([0.4 * np.sin(2 * np.pi * 220 * (channel + 1) * time) for channel in range(channels)], axis=1)


def wav16(path: Path, samples: np.ndarray, rate: int = 16000) -> None:
    """samples: [time, channels] int16. Python's own writer is the oracle."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


# Reading


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_wav(tmp_path: Path, channels: int, rate: int) -> None:
    samples = np.random.default_rng(0).integers(-20000, 20000, (100, channels)).astype(np.int16)
    samples[3, 0] = -24576
    wav16(tmp_path / "x.wav", samples, rate)
    (signal,) = loaded(audio, tmp_path / "x.wav")
    assert signal.values.shape == (100, channels, 1)
    assert signal.values.dtype == np.float32
    assert np.array_equal(signal.values[..., 0] * 32768, samples)
    assert [(axis.size, axis.kind, axis.rate) for axis in signal.axes] == [
        (100, "start", rate),
        (channels, "slice", None),
    ]
    assert (signal.modality, signal.name, signal.value_range) == ("audio", "", (-0.75, 0.75))
    assert signal.attributes == {}


def test_quiet_file_has_a_narrow_range(tmp_path: Path) -> None:
    wav16(tmp_path / "x.wav", np.array([[0], [3], [-2]], np.int16))
    (signal,) = loaded(audio, tmp_path / "x.wav")
    assert signal.value_range == (-3 / 32768, 3 / 32768)


def test_range_is_a_32_bit_float(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.array([0.1, -0.3]), 16000, subtype="DOUBLE")
    (signal,) = loaded(audio, tmp_path / "x.wav")
    assert signal.value_range == (-float(np.float32(0.3)), float(np.float32(0.3)))


@pytest.mark.parametrize("value", [0.0, 1e-40])
def test_silent_file(tmp_path: Path, value: float) -> None:
    soundfile.write(tmp_path / "x.wav", np.full(10, value, np.float32), 16000, subtype="FLOAT")
    (signal,) = loaded(audio, tmp_path / "x.wav")
    assert signal.value_range == (-1, 1)


def test_loud_float_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.array([2.5, -1.0], np.float32), 16000, subtype="FLOAT")
    read = loaded(audio, tmp_path / "x.wav")
    assert read[0].value_range == (-2.5, 2.5)
    audio.write(read, tmp_path / "y.wav")
    assert loaded(audio, tmp_path / "y.wav")[0].values.ravel().tolist() == [2.5, -1.0]


def test_one_sample(tmp_path: Path) -> None:
    wav16(tmp_path / "x.wav", np.array([[-32768]], np.int16))
    read = loaded(audio, tmp_path / "x.wav")
    assert read[0].values.tolist() == [[[-1.0]]]
    for suffix in LOSSLESS:
        audio.write(read, tmp_path / f"y{suffix}")
        assert loaded(audio, tmp_path / f"y{suffix}")[0].values.tolist() == [[[-1.0]]]


# Round trips


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    samples=st.integers(1, 4).flatmap(
        lambda channels: st.lists(
            st.lists(st.integers(-32768, 32767), min_size=channels, max_size=channels),
            min_size=1,
            max_size=20,
        )
    ),
    rate=st.integers(1, 65_535),
    suffix=st.sampled_from([".wav", ".aiff", ".flac", ".w64"]),
)
def test_16_bit_samples_are_exact(tmp_path: Path, samples: list[list[int]], rate: int, suffix: str) -> None:
    values = np.array(samples) / 32768
    audio.write(sound(values, rate), tmp_path / f"x{suffix}")
    (signal,) = loaded(audio, tmp_path / f"x{suffix}")
    assert np.array_equal(signal.values[..., 0], values)
    assert signal.axes[0].rate == rate
    assert signal.attributes == {}


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize(
    ("subtype", "bits"), [("PCM_16", 16), ("PCM_24", 24), ("PCM_32", 32), ("FLOAT", 24), ("DOUBLE", 53)]
)
def test_sample_format_is_kept(tmp_path: Path, suffix: str, subtype: str, bits: int) -> None:
    values = noise(50, 2, min(bits, 24) if suffix == ".flac" else bits)
    audio.write(sound(values, subtype=subtype), tmp_path / f"x{suffix}")
    (signal,) = loaded(audio, tmp_path / f"x{suffix}")
    assert np.array_equal(signal.values[..., 0], values)
    assert signal.values.dtype == (np.float64 if bits > 24 and suffix != ".flac" else np.float32)
    written = "PCM_24" if suffix == ".flac" and subtype != "PCM_16" else subtype
    assert soundfile.info(tmp_path / f"x{suffix}").subtype == written
    assert signal.attributes == ({} if subtype == "PCM_16" else {"subtype": written})


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_U8"])
def test_8_bits_stay_8_bits(tmp_path: Path, suffix: str, subtype: str) -> None:
    values = noise(50, 1, 8)
    audio.write(sound(values, subtype=subtype), tmp_path / f"x{suffix}")
    assert soundfile.info(tmp_path / f"x{suffix}").subtype in ("PCM_S8", "PCM_U8")
    assert np.array_equal(loaded(audio, tmp_path / f"x{suffix}")[0].values[..., 0], values)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff"])
def test_samples_are_rounded_to_nearest_and_clipped(tmp_path: Path, suffix: str) -> None:
    levels = np.array([0.4, 0.6, -0.4, -0.6, 7.25, 40000, -40000])
    audio.write(sound(levels[:, None] / 32768), tmp_path / f"x{suffix}")
    written, _ = soundfile.read(tmp_path / f"x{suffix}", dtype="int16")
    assert written.tolist() == [0, 1, 0, -1, 7, 32767, -32768]


@pytest.mark.parametrize("suffix", LOSSY)
@pytest.mark.parametrize("channels", [1, 2])
def test_lossy_formats(tmp_path: Path, suffix: str, channels: int) -> None:
    values = tones(48000, channels, 48000)
    audio.write(sound(values, 48000, "PCM_24"), tmp_path / f"x{suffix}")
    (signal,) = loaded(audio, tmp_path / f"x{suffix}")
    assert signal.values.shape == (48000, channels, 1)
    inner = slice(4800, -4800)
    error = signal.values[inner, :, 0] - values[inner]
    assert np.mean(error**2) < 0.01 * np.mean(values**2)
    # What a lossy format calls its samples must not travel to a WAV file.
    assert signal.attributes == {}
    audio.write([signal], tmp_path / "y.wav")
    assert soundfile.info(tmp_path / "y.wav").subtype == "PCM_16"


def test_many_blocks(tmp_path: Path) -> None:
    values = noise(200_001, 2)
    audio.write(sound(values), tmp_path / "x.flac")
    assert np.array_equal(loaded(audio, tmp_path / "x.flac")[0].values[..., 0], values)


# Lengths that nobody knows, and sounds in several parts


def mp3_without_length(path: Path) -> int:
    """Take the first frame, Xing's, out of an MP3 file; returns how many frames it said there are."""
    data = path.read_bytes()
    place = max(data.find(b"Xing"), data.find(b"Info"))
    following = data.index(data[:2], place)
    path.write_bytes(data[following:])
    return int.from_bytes(data[place + 8 : place + 12], "big")


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("loud_first", [False, True])
def test_estimated_lengths_neither_reject_nor_cut(tmp_path: Path, mode: str, loud_first: bool) -> None:
    values = np.zeros(400_000)
    values[: len(values) // 4] = np.random.default_rng(0).uniform(-0.5, 0.5, len(values) // 4)
    values = values if loud_first else values[::-1]
    path = tmp_path / "x.mp3"
    soundfile.write(path, values, 44100, bitrate_mode=mode, compression_level=0.3)
    frames = mp3_without_length(path)
    (signal,) = loaded(audio, path)
    assert signal.axes[0].size == frames * 1152
    rest = signal.values[:, 0, 0]
    loud = rest[:100_000] if loud_first else rest[-100_000:]
    assert loud.std() > 100 * (rest[200_000:-2000] if loud_first else rest[2000:200_000]).std()


@pytest.mark.parametrize("suffix", [".mp3", ".opus", ".ogg", ".flac"])
def test_a_sound_is_decoded_once_from_its_beginning_to_its_end(tmp_path: Path, suffix: str) -> None:
    loudness = np.abs(np.sin(np.arange(300_000) / 30_000))[:, None]
    values = np.random.default_rng(0).uniform(-0.5, 0.5, (300_000, 1)) * loudness
    audio.write(sound(values, 24000), tmp_path / f"x{suffix}")
    whole, _ = soundfile.read(tmp_path / f"x{suffix}", dtype="float32")
    difference = loaded(audio, tmp_path / f"x{suffix}")[0].values[:, 0, 0] - whole
    assert np.abs(difference).max() <= (2.0**-22 if suffix == ".mp3" else 0)  # MP3 decoders round as memory is aligned


def test_a_cut_mp3_that_states_its_length_is_refused(tmp_path: Path) -> None:
    audio.write(sound(noise(50_000, 1)), tmp_path / "x.mp3")
    data = (tmp_path / "x.mp3").read_bytes()
    (tmp_path / "y.mp3").write_bytes(b"ID3\4\0\0\0\0\1\0" + bytes(128) + data)  # a tag before it
    assert loaded(audio, tmp_path / "y.mp3")[0].axes[0].size == 50_000
    for cut in (data[:-2000], b"ID3\4\0\0\0\0\1\0" + bytes(128) + data[:-2000]):
        (tmp_path / "x.mp3").write_bytes(cut)
        with pytest.raises(SignalError, match=r"ends after .* of 50000 samples"):
            loaded(audio, tmp_path / "x.mp3")


@pytest.mark.parametrize("bits", [16, 24])
def test_flac_of_unknown_length(tmp_path: Path, bits: int) -> None:
    values = noise(150_000, 2, bits)
    audio.write(sound(values, subtype=f"PCM_{bits}"), tmp_path / "x.flac")
    data = bytearray((tmp_path / "x.flac").read_bytes())
    assert int.from_bytes(data[21:26], "big") & (1 << 36) - 1 == 150_000  # of STREAMINFO
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    (tmp_path / "x.flac").write_bytes(data)
    assert np.array_equal(loaded(audio, tmp_path / "x.flac")[0].values[..., 0], values)


def wav_header(riff: int, data: int, kind: int = 1, bits: int = 16) -> bytes:
    head = struct.pack(
        "<4sI4s4sIHHIIHH", b"RIFF", riff, b"WAVE", b"fmt ", 16, kind, 2, 16000, 4000 * bits, bits // 4, bits
    )
    return head + struct.pack("<4sI", b"data", data)


@pytest.mark.parametrize(("kind", "bits"), [(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64)])
@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_wav_written_to_a_pipe(tmp_path: Path, kind: int, bits: int, length: int) -> None:
    audio.write(
        sound(noise(3000, 2, min(bits, 32)), subtype={1: f"PCM_{bits}" if bits > 8 else "PCM_U8", 3: "DOUBLE"}[kind]),
        tmp_path / "x.wav",
    )
    if (kind, bits) == (3, 32):
        audio.write(sound(noise(3000, 2, 16), subtype="FLOAT"), tmp_path / "x.wav")
    (whole,) = loaded(audio, tmp_path / "x.wav")
    data = (tmp_path / "x.wav").read_bytes()
    start = data.index(b"data") + 8
    end = start + int.from_bytes(data[start - 4 : start], "little")
    (tmp_path / "y.wav").write_bytes(wav_header(length, length, kind, bits) + data[start:end])
    (signal,) = loaded(audio, tmp_path / "y.wav")
    assert np.array_equal(signal.values, whole.values)
    assert signal.values.dtype == whole.values.dtype
    assert signal.attributes == whole.attributes


def test_wav_without_samples_and_with_other_chunks(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(wav_header(60, 0) + b"LIST\x10\0\0\0INFOISFT\4\0\0\0abc\0")
    with pytest.raises(SignalError, match="no samples"):
        loaded(audio, tmp_path / "x.wav")


def test_au_and_caf_of_unknown_length(tmp_path: Path) -> None:
    values = noise(3000, 2)
    for suffix, length in ((".au", b"\x7f\xff\xff\xff"), (".au", b"\xff" * 4), (".caf", b"\xff" * 8)):
        audio.write(sound(values), tmp_path / f"x{suffix}")
        data = bytearray((tmp_path / f"x{suffix}").read_bytes())
        place = 8 if suffix == ".au" else data.index(b"data") + 4
        data[place : place + len(length)] = length
        (tmp_path / f"y{suffix}").write_bytes(data)
        (signal,) = loaded(audio, tmp_path / f"y{suffix}")
        assert np.array_equal(signal.values[..., 0], values)


@pytest.mark.parametrize("suffix", [".ogg", ".opus"])
def test_all_links_of_a_chained_ogg_file_are_read(tmp_path: Path, suffix: str) -> None:
    joined, expected = b"", []
    for number in range(3):
        path = tmp_path / f"{number}{suffix}"
        audio.write(sound(tones(30_000 + 7000 * number, 2, 24000), 24000), path)
        expected.append(soundfile.read(path, dtype="float32")[0])
        joined += path.read_bytes()
    (tmp_path / f"x{suffix}").write_bytes(joined)
    (signal,) = loaded(audio, tmp_path / f"x{suffix}")
    assert np.array_equal(signal.values[..., 0], np.concatenate(expected))


@pytest.mark.parametrize(("channels", "rate"), [(1, 16000), (2, 24000)])
def test_links_that_differ_are_refused(tmp_path: Path, channels: int, rate: int) -> None:
    audio.write(sound(tones(8000, 1, 24000), 24000), tmp_path / "a.ogg")
    audio.write(sound(tones(8000, channels, rate), rate), tmp_path / "b.ogg")
    (tmp_path / "x.ogg").write_bytes((tmp_path / "a.ogg").read_bytes() + (tmp_path / "b.ogg").read_bytes())
    with pytest.raises(SignalError, match=f"1 channels at 24000 Hz is followed by one of {channels} at {rate} Hz"):
        loaded(audio, tmp_path / "x.ogg")


@pytest.mark.parametrize("tag", [b"", b"ID3\4\0\0\0\0\1\0" + bytes(128)])
@pytest.mark.parametrize("old_tag", [b"", b"TAG" + bytes(125)])
def test_joined_mp3_files_are_all_read(tmp_path: Path, tag: bytes, old_tag: bytes) -> None:
    joined, expected = b"", []
    for number in range(3):
        path = tmp_path / f"{number}.mp3"
        audio.write(sound(tones(30_000 + 7000 * number, 2, 24000), 24000), path)
        expected.append(soundfile.read(path, dtype="float32")[0])
        joined += tag + path.read_bytes() + old_tag
    (tmp_path / "x.mp3").write_bytes(joined)
    (signal,) = loaded(audio, tmp_path / "x.mp3")
    assert signal.axes[0].size == 30_000 + 37_000 + 44_000
    assert np.abs(signal.values[..., 0] - np.concatenate(expected)).max() < 2.0**-22
    (tmp_path / "x.mp3").write_bytes(joined[:-3000])
    with pytest.raises(SignalError, match="of 44000 samples"):
        loaded(audio, tmp_path / "x.mp3")


# Fine samples


def test_64_bit_floats_are_exact(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(-0.7, 0.7, 1000)
    soundfile.write(tmp_path / "x.wav", values, 16000, subtype="DOUBLE")
    read = loaded(audio, tmp_path / "x.wav")
    assert np.array_equal(read[0].values.ravel(), values)
    audio.write(read, tmp_path / "y.wav")
    assert np.array_equal(soundfile.read(tmp_path / "y.wav")[0], values)
    assert audio.stored_step(read[0]) == 0
    assert np.array_equal(audio.read_back(read[0]), read[0].values)


def test_32_bit_integers_are_exact(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(-(2**31), 2**31, 1000).astype(np.int32)
    levels[:2] = -(2**31), 2**31 - 1
    soundfile.write(tmp_path / "x.wav", levels, 16000, subtype="PCM_32")
    read = loaded(audio, tmp_path / "x.wav")
    assert np.array_equal(read[0].values.ravel() * 2.0**31, levels)
    audio.write(read, tmp_path / "y.wav")
    assert np.array_equal(soundfile.read(tmp_path / "y.wav", dtype="int32")[0], levels)
    assert audio.stored_step(read[0]) == 2.0**-31
    assert np.array_equal(audio.read_back(read[0]), read[0].values)


# What cannot be read


@pytest.mark.parametrize("data", [b"", b"RIFF", b"this is no sound\n" * 50])
def test_not_a_sound_file(tmp_path: Path, data: bytes) -> None:
    for name in ("x.wav", "x.raw"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SignalError, match=r"cannot be read as sound.*\.flac"):
            loaded(audio, tmp_path / name)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.wav", tmp_path):
        with pytest.raises(SignalError, match="no such file"):
            loaded(audio, path)


def test_no_samples(tmp_path: Path) -> None:
    wav16(tmp_path / "x.wav", np.empty((0, 1), np.int16))
    with pytest.raises(SignalError, match="no samples"):
        loaded(audio, tmp_path / "x.wav")


def test_strange_samples_are_counted(tmp_path: Path) -> None:
    values = np.zeros((100, 2), np.float32)
    values[3, 0], values[4, 1], values[5, 0], values[6, 0] = np.nan, np.inf, -np.inf, 3e38
    soundfile.write(tmp_path / "x.wav", values, 16000, subtype="FLOAT")
    with pytest.raises(SignalError, match="4 of 200 samples"):
        loaded(audio, tmp_path / "x.wav")


@pytest.mark.parametrize("suffix", [".flac", ".mp3", ".caf"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    audio.write(sound(noise(20000, 1)), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SignalError):
        loaded(audio, path)


def test_wav_of_open_length_is_read_to_its_end(tmp_path: Path) -> None:
    samples = np.arange(8, dtype="<i2")
    header = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    (tmp_path / "x.wav").write_bytes(header + b"data\xff\xff\xff\xff" + samples.tobytes())
    assert np.array_equal(loaded(audio, tmp_path / "x.wav")[0].values.ravel() * 32768, samples)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".wav", ".flac", ".ogg", ".aiff"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damage_gives_samples_or_a_signal_error(tmp_path: Path, suffix: str, changes: list[tuple[float, int]]) -> None:
    audio.write(sound(noise(300, 1)), tmp_path / f"x{suffix}")
    data = bytearray((tmp_path / f"x{suffix}").read_bytes())
    for place, value in changes:
        data[int(place * len(data))] = value
    (tmp_path / f"x{suffix}").write_bytes(data)
    try:
        (signal,) = loaded(audio, tmp_path / f"x{suffix}")
    except SignalError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(signal.values).all()


@pytest.mark.parametrize("opened", [io.BytesIO, None])
def test_seeking_before_the_beginning_stays_in_place(tmp_path: Path, opened: type[io.BytesIO] | None) -> None:
    (tmp_path / "x").write_bytes(b"abcd")
    with opened(b"abcd") if opened else (tmp_path / "x").open("rb") as file:
        source, byte = _Source(file), bytearray(1)
        assert (source.seek(3), source.seek(-2), source.readinto(byte), byte) == (3, 3, 1, b"d")


# What cannot be written


@pytest.mark.parametrize("name", ["x.xyz", "x", "x.m4a"])
def test_unknown_extension_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(SignalError, match=r"\.wav .*\.mp3"):
        inrcodec.signals.write(sound(noise(10, 1)), tmp_path / name)


@pytest.mark.parametrize("rate", [Fraction(44100, 11), Fraction(1, 2), None])
def test_rate_must_be_an_integer(tmp_path: Path, rate: Fraction | None) -> None:
    with pytest.raises(SignalError, match="samples per second"):
        audio.write(sound(noise(10, 1), rate), tmp_path / "x.wav")


def test_what_a_format_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match=r"6 channels.*\.mp3"):
        audio.write(sound(noise(10, 6)), tmp_path / "x.mp3")
    with pytest.raises(SignalError, match=r"44100 samples per second as \.opus"):
        audio.write(sound(noise(10, 1), 44100), tmp_path / "x.opus")


def test_too_long_for_32_bit_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "_CLASSIC_LIMIT", 100)
    with pytest.raises(SignalError, match=r"not 102 bytes.*\.flac"):
        audio.write(sound(noise(51, 1)), tmp_path / "x.wav")
    audio.write(sound(noise(51, 1)), tmp_path / "x.w64")


def test_unwritable_place(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match="cannot write"):
        audio.write(sound(noise(10, 1)), tmp_path / "missing" / "x.wav")


def test_every_extension_is_written_and_read(tmp_path: Path) -> None:
    for suffix in audio.EXTENSIONS:
        audio.write(sound(tones(4800, 1, 16000)), tmp_path / f"x{suffix}")
        assert loaded(audio, tmp_path / f"x{suffix}")[0].shape[1] == 1


# The shipped samples


@pytest.mark.parametrize("path", [SAMPLES / "speech.flac", *sorted((SAMPLES / "audio").glob("*"))])
def test_samples_are_ordinary(path: Path) -> None:
    (signal,) = loaded(audio, path)
    assert (signal.shape[1], signal.channels, signal.attributes) == (1, 1, {})
    assert signal.axes[0].rate == 16000
    assert signal.axes[0].size == (48000 if path.name == "speech.flac" else 32000)
    assert 0.01 < signal.values.std() < 0.5


def test_samples_are_there() -> None:
    assert len(sorted((SAMPLES / "audio").glob("*.flac"))) == 5


# Part by part


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every sound for a long one."""
    monkeypatch.setattr(audio_blocks, "KEPT_SAMPLES", 0)


def long_in_many_ways(folder: Path) -> list[Path]:
    """Write sounds of every format, and those that are read in other ways: links, and lengths that nobody knows."""
    values = tones(150_000, 2, 24000)
    for suffix in sorted(audio.EXTENSIONS):
        audio.write(sound(values, 24000), folder / f"x{suffix}")
    for suffix in (".ogg", ".mp3"):
        joined = (folder / f"x{suffix}").read_bytes() + (folder / f"x{suffix}").read_bytes()
        (folder / f"joined{suffix}").write_bytes(joined)
    audio.write(sound(values, subtype="DOUBLE"), folder / "fine.wav")
    (folder / "without.mp3").write_bytes((folder / "x.mp3").read_bytes())
    mp3_without_length(folder / "without.mp3")
    data = (folder / "x.wav").read_bytes()
    (folder / "open.wav").write_bytes(wav_header(0, 0) + data[data.index(b"data") + 8 :])
    data = bytearray((folder / "x.caf").read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 8] = b"\xff" * 8
    (folder / "open.caf").write_bytes(data)
    return sorted(folder.iterdir())


def test_long_sounds_are_read_again_as_short_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in long_in_many_ways(tmp_path):
        (whole,) = loaded(audio, path)
        monkeypatch.setattr(audio_blocks, "KEPT_SAMPLES", 0)
        with audio.opened(path) as (lazy,):
            assert isinstance(lazy, LazySignal), path
            again = lazy.loaded()
        monkeypatch.undo()
        tolerance = 2.0**-22 if path.suffix == ".mp3" else 0  # MP3 decoders round as memory is aligned
        np.testing.assert_allclose(again.values, whole.values, rtol=0, atol=tolerance, err_msg=path.name)
        np.testing.assert_allclose(lazy.value_range, whole.value_range, rtol=0, atol=tolerance)
        assert (lazy.shape, lazy.dtype, lazy.attributes) == (whole.shape, whole.dtype, whole.attributes)
        assert [(axis.size, axis.kind, axis.rate) for axis in lazy.axes] == [
            (axis.size, axis.kind, axis.rate) for axis in whole.axes
        ]


@pytest.mark.usefixtures("nothing_kept")
def test_parts_are_had_in_any_order(tmp_path: Path) -> None:
    values = noise(200_001, 2)
    audio.write(sound(values), tmp_path / "x.flac")
    with audio.opened(tmp_path / "x.flac") as (lazy,):
        for begin, end in [(0, 1), (70_000, 150_000), (149_999, 200_001), (3, 8), (8, 9), (200_000, 200_001), (0, 10)]:
            part = lazy.part(begin, end)
            assert np.array_equal(part.values[..., 0], values[begin:end])
            assert part.shape == (end - begin, 2)


@pytest.mark.usefixtures("nothing_kept")
def test_a_file_that_changes_while_it_is_open_is_told(tmp_path: Path) -> None:
    audio.write(sound(noise(200_000, 1)), tmp_path / "x.flac")
    with audio.opened(tmp_path / "x.flac") as (lazy,):
        audio.write(sound(noise(100_000, 1)), tmp_path / "x.flac")
        with pytest.raises(SignalError, match="the file has changed"):
            lazy.loaded()
    with audio.opened(tmp_path / "x.flac") as (lazy,):
        (tmp_path / "x.flac").write_bytes(b"something else")
        with pytest.raises(SignalError, match=r"x\.flac: cannot be read as sound"):
            lazy.loaded()


@pytest.mark.usefixtures("nothing_kept")
def test_files_are_closed(tmp_path: Path) -> None:
    audio.write(sound(noise(200_000, 1)), tmp_path / "x.flac")
    handles = len(list(Path("/proc/self/fd").iterdir()))
    with audio.opened(tmp_path / "x.flac") as (lazy,):
        for begin in (5, 2, 70_000, 0):
            lazy.part(begin, begin + 10)
    assert len(list(Path("/proc/self/fd").iterdir())) == handles


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_lazy_sounds_are_written_as_those_in_memory(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy_signals, "SLAB_VALUES", 1 << 17)
    (signal,) = sound(noise(300_001, 2))
    audio.write([lazy_of(signal)], tmp_path / f"x{suffix}")
    monkeypatch.undo()
    audio.write([signal], tmp_path / f"y{suffix}")
    (one,), (other,) = (loaded(audio, tmp_path / f"{name}{suffix}") for name in "xy")
    assert np.array_equal(one.values, other.values)


def lazy_of(signal: Signal) -> LazySignal:
    return lazy_like(signal, lambda begin, end: (signal.values[begin:end], None))


def test_what_is_not_finite_is_told_in_the_middle_of_a_lazy_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy_signals, "SLAB_VALUES", 1 << 17)
    (signal,) = sound(noise(300_000, 1))
    signal.values[250_000] = np.nan
    for suffix in (".wav", ".mp3"):
        with pytest.raises(SignalError, match=r"1 of .* values of the audio are NaN"):
            audio.write([lazy_of(signal)], tmp_path / f"x{suffix}")


LONG = 16000 * 60 * 20
"""Samples of each of two channels: 150 MB of floats."""
MAKE = """
import numpy as np, soundfile
from fractions import Fraction
from inrcodec.signals import Axis, LazySignal, audio, audio_reading
from inrcodec.signals.lazy import slabs_of

def waves(begin, end):
    waves = 0.9 * np.sin((np.arange(begin, end) % 16000).astype(np.float32) / 9)
    return np.stack([waves, -waves], 1)
"""


def test_long_sounds_take_little_memory_to_read(tmp_path: Path) -> None:
    make = f"""
        with soundfile.SoundFile("x.flac", "w", 16000, 2) as file:
            for begin in range(0, {LONG}, 1 << 18):
                file.write(waves(begin, min(begin + (1 << 18), {LONG})))
    """
    work = f"""
        with audio.opened(audio.Path("x.flac")) as (signal,):
            assert signal.shape == ({LONG}, 2)
            for begin, part in slabs_of(signal):
                assert np.abs(part.values[..., 0] - waves(begin, begin + len(part.values))).max() < 1e-4
    """
    assert peak_growth(MAKE + dedent(make), work, tmp_path) < 100 << 20


def test_long_sounds_take_little_memory_to_write(tmp_path: Path) -> None:
    work = f"""
        axes = Axis({LONG}, "start", rate=Fraction(16000)), Axis(2, "slice")
        read = lambda begin, end: (waves(begin, end)[..., np.newaxis], None)
        signal = LazySignal("audio", np.dtype(np.float32), axes, 1, (-1.0, 1.0), read=read)
        audio.write([signal], audio.Path("x.flac"))
        assert soundfile.info("x.flac").frames == {LONG}
    """
    assert peak_growth(MAKE, work, tmp_path) < 100 << 20

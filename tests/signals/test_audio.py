"""Reading and writing sound, checked against arrays and against bytes written by hand."""

import struct
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import inrcodec.signals
from inrcodec.errors import SignalError
from inrcodec.signals import audio
from inrcodec.signals.signal import Axis, Signal

SAMPLES = Path(__file__).parents[1] / "assets" / "samples"
LOSSLESS = [".wav", ".flac", ".aiff", ".au", ".caf", ".w64", ".rf64"]
LOSSY = [".mp3", ".ogg", ".opus"]


def sound(values: np.ndarray, rate: Fraction | int | None = 16000, subtype: str | None = None) -> list[Signal]:
    """values: [channels, time]"""
    channels, length = values.shape
    axes = (
        Axis(channels, "slice"),
        Axis(length, "start", rate=None if rate is None else Fraction(rate)),
    )
    attributes = {"subtype": subtype} if subtype else {}
    return [Signal("audio", values.astype(np.float32)[..., None], axes, (-1.0, 1.0), attributes=attributes)]


def noise(channels: int, length: int, bits: int = 16) -> np.ndarray:
    """Random samples that `bits` bits hold exactly."""
    levels = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (channels, length))
    return levels / 2.0 ** (bits - 1)


def tones(channels: int, length: int, rate: int) -> np.ndarray:
    time = np.arange(length) / rate
    return np.stack([0.4 * np.sin(2 * np.pi * 220 * (channel + 1) * time) for channel in range(channels)])


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
    (signal,) = audio.read(tmp_path / "x.wav")
    assert signal.values.shape == (channels, 100, 1)
    assert signal.values.dtype == np.float32
    assert np.array_equal(signal.values[..., 0].T * 32768, samples)
    assert [(axis.size, axis.kind, axis.rate) for axis in signal.axes] == [
        (channels, "slice", None),
        (100, "start", rate),
    ]
    assert (signal.modality, signal.name, signal.value_range) == ("audio", "", (-0.75, 0.75))
    assert signal.attributes == {}


def test_quiet_file_has_a_narrow_range(tmp_path: Path) -> None:
    wav16(tmp_path / "x.wav", np.array([[0], [3], [-2]], np.int16))
    (signal,) = audio.read(tmp_path / "x.wav")
    assert signal.value_range == (-3 / 32768, 3 / 32768)


def test_range_is_a_32_bit_float(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.array([0.1, -0.3]), 16000, subtype="DOUBLE")
    (signal,) = audio.read(tmp_path / "x.wav")
    assert signal.value_range == (-float(np.float32(0.3)), float(np.float32(0.3)))


@pytest.mark.parametrize("value", [0.0, 1e-40])
def test_silent_file(tmp_path: Path, value: float) -> None:
    soundfile.write(tmp_path / "x.wav", np.full(10, value, np.float32), 16000, subtype="FLOAT")
    (signal,) = audio.read(tmp_path / "x.wav")
    assert signal.value_range == (-1, 1)


def test_loud_float_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.array([2.5, -1.0], np.float32), 16000, subtype="FLOAT")
    read = audio.read(tmp_path / "x.wav")
    assert read[0].value_range == (-2.5, 2.5)
    audio.write(read, tmp_path / "y.wav")
    assert audio.read(tmp_path / "y.wav")[0].values.ravel().tolist() == [2.5, -1.0]


def test_one_sample(tmp_path: Path) -> None:
    wav16(tmp_path / "x.wav", np.array([[-32768]], np.int16))
    read = audio.read(tmp_path / "x.wav")
    assert read[0].values.tolist() == [[[-1.0]]]
    for suffix in LOSSLESS:
        audio.write(read, tmp_path / f"y{suffix}")
        assert audio.read(tmp_path / f"y{suffix}")[0].values.tolist() == [[[-1.0]]]


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
    values = np.array(samples).T / 32768
    audio.write(sound(values, rate), tmp_path / f"x{suffix}")
    (signal,) = audio.read(tmp_path / f"x{suffix}")
    assert np.array_equal(signal.values[..., 0], values)
    assert signal.axes[1].rate == rate
    assert signal.attributes == {}


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize(
    ("subtype", "bits"), [("PCM_16", 16), ("PCM_24", 24), ("PCM_32", 24), ("FLOAT", 24), ("DOUBLE", 24)]
)
def test_sample_format_is_kept(tmp_path: Path, suffix: str, subtype: str, bits: int) -> None:
    values = noise(2, 50, bits)
    audio.write(sound(values, subtype=subtype), tmp_path / f"x{suffix}")
    (signal,) = audio.read(tmp_path / f"x{suffix}")
    assert np.array_equal(signal.values[..., 0], values)
    written = "PCM_24" if suffix == ".flac" and subtype != "PCM_16" else subtype
    assert soundfile.info(tmp_path / f"x{suffix}").subtype == written
    assert signal.attributes == ({} if subtype == "PCM_16" else {"subtype": written})


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_U8"])
def test_8_bits_stay_8_bits(tmp_path: Path, suffix: str, subtype: str) -> None:
    values = noise(1, 50, 8)
    audio.write(sound(values, subtype=subtype), tmp_path / f"x{suffix}")
    assert soundfile.info(tmp_path / f"x{suffix}").subtype in ("PCM_S8", "PCM_U8")
    assert np.array_equal(audio.read(tmp_path / f"x{suffix}")[0].values[..., 0], values)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff"])
def test_samples_are_rounded_to_nearest_and_clipped(tmp_path: Path, suffix: str) -> None:
    levels = np.array([0.4, 0.6, -0.4, -0.6, 7.25, 40000, -40000])
    audio.write(sound(levels[None] / 32768), tmp_path / f"x{suffix}")
    written, _ = soundfile.read(tmp_path / f"x{suffix}", dtype="int16")
    assert written.tolist() == [0, 1, 0, -1, 7, 32767, -32768]


@pytest.mark.parametrize("suffix", LOSSY)
@pytest.mark.parametrize("channels", [1, 2])
def test_lossy_formats(tmp_path: Path, suffix: str, channels: int) -> None:
    values = tones(channels, 48000, 48000)
    audio.write(sound(values, 48000, "PCM_24"), tmp_path / f"x{suffix}")
    (signal,) = audio.read(tmp_path / f"x{suffix}")
    assert signal.values.shape == (channels, 48000, 1)
    inner = slice(4800, -4800)
    error = signal.values[:, inner, 0] - values[:, inner]
    assert np.mean(error**2) < 0.01 * np.mean(values**2)
    # What a lossy format calls its samples must not travel to a WAV file.
    assert signal.attributes == {}
    audio.write([signal], tmp_path / "y.wav")
    assert soundfile.info(tmp_path / "y.wav").subtype == "PCM_16"


def test_many_blocks(tmp_path: Path) -> None:
    values = noise(2, 200_001)
    audio.write(sound(values), tmp_path / "x.flac")
    assert np.array_equal(audio.read(tmp_path / "x.flac")[0].values[..., 0], values)


# What cannot be read


@pytest.mark.parametrize("data", [b"", b"RIFF", b"this is no sound\n" * 50])
def test_not_a_sound_file(tmp_path: Path, data: bytes) -> None:
    for name in ("x.wav", "x.raw"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SignalError, match=r"cannot be read as sound.*\.flac"):
            audio.read(tmp_path / name)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.wav", tmp_path):
        with pytest.raises(SignalError, match="no such file"):
            audio.read(path)


def test_no_samples(tmp_path: Path) -> None:
    wav16(tmp_path / "x.wav", np.empty((0, 1), np.int16))
    with pytest.raises(SignalError, match="no samples"):
        audio.read(tmp_path / "x.wav")


def test_strange_samples_are_counted(tmp_path: Path) -> None:
    values = np.zeros((100, 2), np.float32)
    values[3, 0], values[4, 1], values[5, 0], values[6, 0] = np.nan, np.inf, -np.inf, 3e38
    soundfile.write(tmp_path / "x.wav", values, 16000, subtype="FLOAT")
    with pytest.raises(SignalError, match="4 of 200 samples"):
        audio.read(tmp_path / "x.wav")


@pytest.mark.parametrize("suffix", [".flac", ".mp3", ".caf"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    audio.write(sound(noise(1, 20000)), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SignalError):
        audio.read(path)


def test_wav_of_open_length_is_read_to_its_end(tmp_path: Path) -> None:
    samples = np.arange(8, dtype="<i2")
    header = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    (tmp_path / "x.wav").write_bytes(header + b"data\xff\xff\xff\xff" + samples.tobytes())
    assert np.array_equal(audio.read(tmp_path / "x.wav")[0].values.ravel() * 32768, samples)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".wav", ".flac", ".ogg", ".aiff"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damage_gives_samples_or_a_signal_error(tmp_path: Path, suffix: str, changes: list[tuple[float, int]]) -> None:
    audio.write(sound(noise(1, 300)), tmp_path / f"x{suffix}")
    data = bytearray((tmp_path / f"x{suffix}").read_bytes())
    for place, value in changes:
        data[int(place * len(data))] = value
    (tmp_path / f"x{suffix}").write_bytes(data)
    try:
        (signal,) = audio.read(tmp_path / f"x{suffix}")
    except SignalError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(signal.values).all()


# What cannot be written


@pytest.mark.parametrize("name", ["x.xyz", "x", "x.m4a"])
def test_unknown_extension_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(SignalError, match=r"\.wav .*\.mp3"):
        inrcodec.signals.write(sound(noise(1, 10)), tmp_path / name)


@pytest.mark.parametrize("rate", [Fraction(44100, 11), Fraction(1, 2), None])
def test_rate_must_be_an_integer(tmp_path: Path, rate: Fraction | None) -> None:
    with pytest.raises(SignalError, match="samples per second"):
        audio.write(sound(noise(1, 10), rate), tmp_path / "x.wav")


def test_what_a_format_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match=r"6 channels.*\.mp3"):
        audio.write(sound(noise(6, 10)), tmp_path / "x.mp3")
    with pytest.raises(SignalError, match=r"44100 samples per second as \.opus"):
        audio.write(sound(noise(1, 10), 44100), tmp_path / "x.opus")


def test_too_long_for_32_bit_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "_CLASSIC_LIMIT", 100)
    with pytest.raises(SignalError, match=r"not 102 bytes.*\.flac"):
        audio.write(sound(noise(1, 51)), tmp_path / "x.wav")
    audio.write(sound(noise(1, 51)), tmp_path / "x.w64")


def test_unwritable_place(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match="cannot write"):
        audio.write(sound(noise(1, 10)), tmp_path / "missing" / "x.wav")


def test_every_extension_is_written_and_read(tmp_path: Path) -> None:
    for suffix in audio.EXTENSIONS:
        audio.write(sound(tones(1, 4800, 16000)), tmp_path / f"x{suffix}")
        assert audio.read(tmp_path / f"x{suffix}")[0].channels == 1


# The shipped samples


@pytest.mark.parametrize("path", [SAMPLES / "speech.flac", *sorted((SAMPLES / "audio").glob("*"))])
def test_samples_are_ordinary(path: Path) -> None:
    (signal,) = audio.read(path)
    assert (signal.channels, signal.attributes) == (1, {})
    assert signal.axes[1].rate == 16000
    assert signal.axes[1].size == (48000 if path.name == "speech.flac" else 32000)
    assert 0.01 < signal.values.std() < 0.5


def test_samples_are_there() -> None:
    assert len(sorted((SAMPLES / "audio").glob("*.flac"))) == 5

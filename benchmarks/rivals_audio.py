"""Sound through MP3, Opus and FLAC.

The lossy codecs have rates of their own (Opus 48 kHz) and return a sound late, longer and softer: they are
measured at the delay and gain that suit them best.
"""

import io
from fractions import Fraction
from functools import partial
from typing import Any

import av
import numpy as np
import soundfile
from rivals import Rival, missing_encoder

from inrcodec.signals.signal import Signal

MAX_DELAY = 3000
"""Samples by which a sound may come back late or early."""


def _encode_sound(signal: Signal, kbps: int, *, codec: str, format: str, options: dict[str, str]) -> bytes:
    """Encode a sound at `kbps`, kbit/s for each channel."""
    rate = _sample_rate(signal)
    known = av.Codec(codec, "w").audio_rates or [rate]
    layout = "mono" if signal.shape[1] == 1 else "stereo"
    file = io.BytesIO()
    with av.open(file, "w", format=format, options=options) as container:
        stream: Any = container.add_stream(
            codec, rate=min((each for each in known if each >= rate), default=max(known))
        )
        stream.layout = layout
        stream.bit_rate = 1000 * kbps * signal.shape[1]
        samples = np.ascontiguousarray(signal.values[..., 0], dtype=np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _decode_sound(data: bytes, signal: Signal) -> np.ndarray:
    channels = signal.shape[1]
    resampler = av.AudioResampler("flt", "mono" if channels == 1 else "stereo", _sample_rate(signal))
    with av.open(io.BytesIO(data), "r") as container:
        parts = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    parts += resampler.resample(None)
    samples = np.concatenate([part.to_ndarray().reshape(-1, channels) for part in parts]).T
    original = signal.values[..., 0].T
    samples = aligned(original, samples)
    # LAME lowers the level by 5 % on purpose, which would limit it to an SNR of 26 dB.
    power = float(np.square(samples, dtype=np.float64).sum())
    gain = float((original.astype(np.float64) * samples).sum()) / power if power else 1.0
    return np.asarray(gain * samples.T, np.float32)[..., np.newaxis]


def aligned(original: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Shift `decoded` [C, m] by up to `MAX_DELAY` samples to where it is most like `original` [C, n].

    Returns [C, n], silent where nothing was decoded.
    """
    length = original.shape[1]
    size = length + decoded.shape[1] + 2 * MAX_DELAY
    # Entry d of the correlation is the sum over t of original[t] decoded[t + d]; negative d lie at the end.
    spectrum = np.fft.rfft(decoded, size) * np.fft.rfft(original, size).conj()
    correlation = np.fft.irfft(spectrum, size).sum(axis=0)
    delays = np.arange(-MAX_DELAY, MAX_DELAY + 1)
    delay = int(delays[correlation[delays].argmax()])
    padded = np.pad(decoded, ((0, 0), (MAX_DELAY, MAX_DELAY + length)))
    return padded[:, MAX_DELAY + delay :][:, :length]


def _sound_obstacle(signal: Signal, *, codec: str) -> str | None:
    if signal.shape[1] > 2:
        return f"it is run on mono and stereo, the sound has {signal.shape[1]} channels"
    return missing_encoder(signal, codec=codec)


def _sample_rate(signal: Signal) -> int:
    return round(signal.axes[0].rate or 1)


def _encode_flac(signal: Signal, level: int) -> bytes:
    """Encode at a level 0..8, as of the flac command: lossless, unless the samples are floats, which get 24 bits."""
    narrow = signal.attributes.get("subtype", "PCM_16") in ("PCM_16", "PCM_S8", "PCM_U8")
    file = io.BytesIO()
    soundfile.write(
        file,
        signal.values[..., 0],
        _sample_rate(signal),
        format="FLAC",
        subtype="PCM_16" if narrow else "PCM_24",
        compression_level=level / 8,
    )
    return file.getvalue()


def _decode_flac(data: bytes, signal: Signal) -> np.ndarray:
    samples, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return np.asarray(samples)[..., np.newaxis]


def _flac_obstacle(signal: Signal) -> str | None:
    return None if signal.shape[1] <= 8 else f"it holds 8 channels, the sound has {signal.shape[1]}"


def _sound_rival(name: str, codec: str, format: str, settings: tuple[int, ...], **options: str) -> Rival:
    return Rival(
        name=name,
        unit="kbit/s",
        settings=settings,
        encode=partial(_encode_sound, codec=codec, format=format, options=options),
        decode=_decode_sound,
        obstacle=partial(_sound_obstacle, codec=codec),
    )


RIVALS = (
    _sound_rival("MP3", "libmp3lame", "mp3", (8, 16, 24, 32, 48, 64, 96, 128), id3v2_version="0"),
    _sound_rival("Opus", "libopus", "ogg", (6, 8, 12, 16, 24, 32, 48, 64, 96)),
    Rival("FLAC", "level", (8,), _encode_flac, _decode_flac, _flac_obstacle),
)

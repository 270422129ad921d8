"""Make the golden files that are not there yet; existing ones are never written again.

    python tests/golden/make.py

For every modality and field, and for every kind of bound on the error: an `.inr` file, the values it decodes to
(`.npy`), and in `symbols.json` the hash of its symbols. Fields without a published initialization get a small random
one, embedded in the file.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from symbols import symbols_digest

import inrcodec
from inrcodec.initialization import Initialization
from inrcodec.meta.presets import preset
from inrcodec.models import PointField
from inrcodec.options import EncodeOptions
from inrcodec.priors import DeltaPrior
from inrcodec.settings import AdaptationConfig
from inrcodec.signals.signal import Axis, Signal
from inrcodec.weights.adaptation import initial_step_sizes

HERE = Path(__file__).parent
FIELDS = {
    "image": ("siren", "ffn", "pyramid"),
    "video": ("siren", "ffn", "nerv", "clip"),
    "audio": ("siren", "ffn", "spectrum"),
    "climate": ("siren", "ffn", "series", "bound", "slices", "share"),
}
BOUNDS = {"bound": {"max_error": 0.5}, "slices": {"max_error": "0.5%"}, "share": {"max_error_rel": 1e-3}}
"""Of series."""

SAMPLES = HERE.parent.parent / "assets" / "samples"


def later(sound: Signal, samples: int) -> Signal:
    """Return a sound without its first samples."""
    return sound.part(samples, sound.axes[0].size)


def cropped(signal: Signal, *sizes: int) -> Signal:
    """Return the first samples of a signal along every axis."""
    values = signal.values[tuple(slice(size) for size in sizes)]
    axes = tuple(_shorter(axis, size) for axis, size in zip(signal.axes, values.shape[:-1], strict=True))
    return replace(signal, values=values, axes=axes, attributes={})


def _shorter(axis: Axis, size: int) -> Axis:
    kind = "node" if axis.kind == "periodic" and size < axis.size else axis.kind
    return replace(axis, size=size, kind=kind, points=None if axis.points is None else axis.points[:size])


def random_initialization(modality: str, kind: str) -> Initialization:
    """Return a field as it is before meta-training, made small. kind: the field's name."""
    usual = preset(modality, kind)
    small = {"width": 8, "depth": 3, "frequencies": 8} if kind == "ffn" else {"stem": 8, "channels": (4, 4, 4, 4)}
    field = replace(usual.field, **small)
    assert isinstance(field, PointField)
    theta_0 = field.initialize(torch.Generator().manual_seed(0))
    adapted = {name: theta_0[name] for name in field.adapted_shapes()}
    scales = {name: torch.full(value.shape, -24, dtype=torch.int16) for name, value in adapted.items()}
    return Initialization(
        modality=modality,
        field=field,
        patches=usual.patches,
        adaptation=AdaptationConfig(steps=2),
        theta_0=theta_0,
        log_step_sizes=initial_step_sizes(adapted, kind="none", alpha=0.1, steps=2),
        prior=DeltaPrior(scales, (-28,) * len(adapted)),
    )


def drifting(signal: Signal) -> Signal:
    """Return five fields, each the one before moved by a point."""
    values = np.concatenate([np.roll(signal.values, step, 2) for step in range(5)])
    return replace(signal, values=values, axes=(Axis(5, "slice"), *signal.axes[1:]))


def signals() -> dict[str, Signal]:
    """Return a small part of a sample signal of every modality."""
    first = {
        "image": inrcodec.read(SAMPLES / "photo.png")[0],
        "video": inrcodec.read(SAMPLES / "clip.mp4")[0],
        "audio": later(inrcodec.read(SAMPLES / "speech.flac")[0], 8000),
        "climate": drifting(inrcodec.read(SAMPLES / "t2m.nc")[0]),
    }
    sizes = {"image": (40, 50), "video": (5, 26, 30), "audio": (1600, 1), "climate": (5, 40, 70)}
    return {modality: cropped(signal, *sizes[modality]) for modality, signal in first.items()}


def main() -> None:
    """Write what is missing, and the hashes of its symbols."""
    known = json.loads((HERE / "symbols.json").read_text()) if (HERE / "symbols.json").exists() else {}
    for modality, signal in signals().items():
        for field in FIELDS[modality]:
            path = HERE / f"v1-{modality}-{field}.inr"
            if path.exists():
                continue
            published = field not in ("ffn", "nerv")
            initialization = (
                inrcodec.named_initialization(f"{modality}-{'series' if field in BOUNDS else field}")
                if published
                else random_initialization(modality, field)
            )
            options = EncodeOptions(steps=8, device="cpu", **BOUNDS.get(field, {}))
            data, decoded = inrcodec.encode([signal], [initialization], options, embed=not published)
            if np.ptp(decoded[0].values) == 0:
                raise SystemExit(f"{path.name} would say nothing: it decodes to the same value everywhere")
            path.write_bytes(data)
            np.save(path.with_suffix(".npy"), decoded[0].values)
            known[path.name] = symbols_digest(data)
            print(path.name, len(data))
    (HERE / "symbols.json").write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()

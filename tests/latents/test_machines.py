"""The bound: every value of a file is within `max_error` on every machine, as all machines decode the very same values.

Machines are told by the instructions that torch, oneDNN and MKL take, by threads, and by libraries. The networks are
wild: their weights are random and as large as they may be.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import bounded_files
import numpy as np
import pytest
from wild_latents import wild_initialization

from inrcodec.coding.container import read_container
from inrcodec.encoder import encode
from inrcodec.initialization import Initialization
from inrcodec.models import LatentClip, LatentField, LatentPyramid, LatentSpectrum
from inrcodec.options import EncodeOptions
from inrcodec.residual import bound as error_bound
from inrcodec.signals.signal import Axis, Signal

MACHINES: dict[str, dict[str, str]] = {
    "plain": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "OMP_NUM_THREADS": "1",
    },
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "passive",
    },
}
"""Libraries read these as they start. A processor without some instructions leaves the variables be."""

Case = tuple[Signal, Initialization, float]


def waves(*shape: int, noise: float = 0.03) -> np.ndarray:
    """Return waves along every axis, and noise, in [0, 1]."""
    random = np.random.default_rng(len(shape))
    places = np.meshgrid(*(np.arange(size) / 9 for size in shape), indexing="ij")
    total = sum(np.sin(along * random.uniform(0.5, 2) + random.uniform(0, 6)) for along in places)
    return (0.5 + 0.4 / len(shape) * total + random.normal(0, noise, shape)).clip(0, 1)


def initialization_of(
    modality: str, field: LatentField, patch: tuple[int, ...], overlap: tuple[int, ...]
) -> Initialization:
    """Return an initialization with wild networks, whose predictions are of the size of the signal."""
    wild = wild_initialization(modality, field, patch, overlap)
    theta_0 = {name: value * (10 if "head" in name else 1) for name, value in wild.theta_0.items()}
    return replace(wild, theta_0=theta_0)


def picture(dtype: str, bound: float, size: int) -> Case:
    """A single patch; where it is large, elementwise work is divided between threads."""
    scale = 255 if dtype == "u1" else 1
    values = (waves(size, size, 3) * scale).astype(dtype)
    signal = Signal("image", values, (Axis(size), Axis(size)), (0.0, float(scale)))
    field = LatentPyramid(2, 3, (3, 3), prediction=6, divided=2)
    return signal, initialization_of("image", field, (size, size), (4, 4)), bound


def climate(dtype: str, bound: float) -> Case:
    """All around the globe, in two patches a slice; so fine that networks see the signal magnified."""
    values = (250 + 60 * waves(2, 25, 40, 1, noise=1e-3)).astype(dtype)
    points = np.linspace(90, -90, 25), np.arange(40) * 9.0
    axes = (Axis(2, "slice"), Axis(25, "node", points=points[0]), Axis(40, "periodic", points=points[1]))
    signal = Signal("climate", values, axes, (float(values.min()), float(values.max())), sphere=True)
    field = LatentPyramid(2, 1, (3, 3), prediction=6, divided=2)
    return signal, initialization_of("climate", field, (16, 64), (4, 4)), bound


def sound(dtype: str, bound: float) -> Case:
    """Two channels, in two patches each."""
    values = (2 * waves(2, 3000, 1) - 1).astype(dtype).swapaxes(0, 1)
    axes = (Axis(3000, "start", rate=Fraction(8000)), Axis(2, "slice"))
    signal = Signal("audio", values, axes, (-1.0, 1.0))
    return signal, initialization_of("audio", LatentSpectrum(1, 1, (2, 4), hop=32), (1600,), (64,)), bound


def clip(dtype: str, bound: float, pictures: int) -> Case:
    """A scene that moves by three samples a picture."""
    scale = 255 if dtype == "u1" else 1
    scene = waves(24, 50, 3) * scale
    values = np.stack([scene[:, 3 * number : 3 * number + 32] for number in range(pictures)])
    axes = (Axis(pictures, "start", rate=Fraction(25)), Axis(24), Axis(32))
    signal = Signal("video", values.astype(dtype), axes, (0.0, float(scale)))
    field = LatentClip(3, 3, (2, 2), prediction=6, divided=1)
    return signal, initialization_of("video", field, (5, 32, 32), (0, 4, 4)), bound


CASES: dict[str, Callable[[], Case]] = {
    "picture of integers": lambda: picture("u1", 3, 144),
    "picture of floats": lambda: picture("f4", 4e-3, 37),
    "climate of integers": lambda: climate("i2", 1),
    "climate of floats": lambda: climate("f4", 1e-2),
    "sound": lambda: sound("f4", 2e-3),
    "clip of integers": lambda: clip("u1", 2, 5),
    "clip of floats": lambda: clip("f4", 1e-2, 2),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encode every case into a file that decodes anywhere, and check the bound on what the encoder says it decodes to.

    Beside each file are the hashes of these values.
    """
    folder = tmp_path_factory.mktemp("bounded")
    for name, make in CASES.items():
        signal, initialization, bound = make()
        options = EncodeOptions(steps=0, device="cpu", max_error=bound)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(error_bound, "CODINGS", 2)  # not the smallest file, but soon
            data, (said,) = encode([signal], [initialization], options, embed=True)
        error = np.abs(said.values.astype(np.float64) - signal.values.astype(np.float64)).max()
        assert 0 < error <= bound, name
        (folder / f"{name}{bounded_files.SUFFIX}").write_bytes(data)
        (folder / f"{name}.txt").write_text(bounded_files.hash_of([said.values]))
    return folder


def said(folder: Path) -> dict[str, str]:
    """Return the hashes of what the encoder says its files decode to."""
    return {name: (folder / f"{name}.txt").read_text() for name in CASES}


def test_other_machines_decode_the_same(folder: Path) -> None:
    program = [sys.executable, bounded_files.__file__, str(folder)]
    started = {
        name: subprocess.Popen(program, env=os.environ | settings, stdout=subprocess.PIPE)
        for name, settings in MACHINES.items()
    }
    printed = {name: process.communicate()[0] for name, process in started.items()}
    for name, process in started.items():
        assert process.returncode == 0, name
        instructions, *found = json.loads(printed[name])
        if name == "plain":
            assert instructions in ("DEFAULT", "NO AVX")
        assert found == [said(folder)] * 2, name


def test_another_library_decodes_the_same(folder: Path) -> None:
    for onednn in (True, False):
        assert bounded_files.hashes(folder, onednn) == said(folder)


def test_the_files_are_what_they_are_made_for(folder: Path) -> None:
    """Fields that say something, and residuals that say more; steps of one are so fine that inputs are magnified."""
    step_indices = []
    for name in CASES:
        (stream,) = read_container((folder / f"{name}{bounded_files.SUFFIX}").read_bytes()).streams
        assert sum(map(len, stream.chunks)) > 500 and stream.residual
        step_indices.append((stream.header.coding[0] ^ 0x80) - 0x80)
    assert min(step_indices) < -56 < max(step_indices)

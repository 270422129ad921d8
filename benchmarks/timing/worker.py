"""A process that runs one revision of the codec: jobs come in as lines of JSON, times go out.

It uses what all revisions have in common, and runs with the tree of its revision in PYTHONPATH.
"""

import gc
import importlib
import inspect
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

import inrcodec

Clocks = tuple[float, float]
"""CPU seconds of this process and of those it waited for, and seconds on the wall."""

LEAST_SECONDS = 1.0
"""CPU seconds of a sample at least: shorter ones tell of the moment more than of the code."""

TRAINING_STEPS = 4
"""Length of the training run of which steps 2 and 3 are measured: the last of its first half, the first of the other.

The halves differ in what is adapted, and most of a run is like one or the other. The step before them makes what lasts.
"""


def clocks() -> Clocks:
    """Read both clocks."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system, time.perf_counter()


def passed(began: Clocks, ended: Clocks, parts: int = 1) -> dict[str, Any]:
    """Return the seconds between two readings, of each of some equal parts."""
    return {name: (end - start) / parts for name, start, end in zip(("cpu", "wall"), began, ended, strict=True)}


def repeated(work: Callable[[], object]) -> dict[str, Any]:
    """Do something for `LEAST_SECONDS` at least, and return the seconds that it takes once."""
    began, parts = clocks(), 0
    while True:
        work()
        parts += 1
        ended = clocks()
        if ended[0] - began[0] >= LEAST_SECONDS:
            return passed(began, ended, parts)


def encode(path: str, output: str, modality: str, options: dict[str, Any]) -> dict[str, Any]:
    """Encode a file."""
    chosen = inrcodec.EncodeOptions(**options)
    return repeated(lambda: inrcodec.encode_file(Path(path), Path(output), chosen, modality=modality))


def decode(path: str, values: str | None = None) -> dict[str, Any]:
    """Decode a file: write the values of its main signal as .npy, or time it."""
    data = Path(path).read_bytes()
    if values is not None:
        np.save(values, inrcodec.decode(data)[0].values)
        return {}
    return repeated(lambda: inrcodec.decode(data))


class _Enough(Exception):
    """The training steps that are measured are done."""


def train(paths: list[str]) -> dict[str, Any]:
    """Meta-train the field of pictures for some outer steps, from its installed initialization; time one of them."""
    run: Any = importlib.import_module("inrcodec.meta.run")
    presets: Any = importlib.import_module("inrcodec.meta.presets")
    signals = [inrcodec.read(Path(path), "image")[0] for path in paths]
    usual = presets.preset("image", "pyramid")
    settings = replace(usual, training=replace(usual.training, outer_steps=TRAINING_STEPS))
    readings: list[Clocks] = []

    def note(progress: Any) -> None:
        readings.append(clocks())
        if progress.step == TRAINING_STEPS - 1:
            raise _Enough

    # Before presets named their modality, it was an argument of its own.
    first = ["image"] if "modality" in inspect.signature(run.meta_train).parameters else []
    with tempfile.TemporaryDirectory() as folder, suppress(_Enough):
        run.meta_train(
            *first,
            settings,
            run.TrainingData(signals, signals, len(signals), {}),
            Path(folder) / "trained.safetensors",
            source="speed",
            start=inrcodec.default_initialization("image"),
            on_progress=note,
        )
    return passed(readings[0], readings[-1], TRAINING_STEPS - 2)


def efforts() -> dict[str, Any]:
    """Return the names of the efforts that this revision has."""
    from inrcodec.options import Effort

    return {"efforts": get_args(Effort)}


WORK: dict[str, Callable[..., dict[str, Any]]] = {
    "encode": encode,
    "decode": decode,
    "train": train,
    "efforts": efforts,
}


def peak_mib() -> float:
    """Return the peak of the resident set of this process.

    Where Linux tells it, it is that since the program was loaded; `ru_maxrss` can be that of the process that began it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def check_origin(tree: Path) -> None:
    """Raises: ImportError if a module of the codec was imported from elsewhere."""
    for name, module in sorted(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if name.split(".")[0] == "inrcodec" and path and not Path(path).resolve().is_relative_to(tree.resolve()):
            raise ImportError(f"{name} is {path}, not below {tree}")


def answer(request: dict[str, Any], tree: Path) -> dict[str, Any]:
    """Do what is asked for; a failure is an answer, too."""
    work = WORK[request.pop("work")]
    gc.collect()
    try:
        result = work(**request)
        check_origin(tree)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return result | {"peak_mib": peak_mib()}


def main() -> None:
    """Answer until there are no more requests."""
    tree, answers = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    with os.fdopen(answers, "w") as lines:
        for line in sys.stdin:
            print(json.dumps(answer(json.loads(line), tree)), file=lines, flush=True)


if __name__ == "__main__":
    main()

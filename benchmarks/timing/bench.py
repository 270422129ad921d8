"""How jobs are run: the two sides that are compared, what they make of the input, and their times, taken in turn."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import report
from sources import Source

from inrcodec.signals.signal import Signal
from timing import processes
from timing.inputs import Inputs, described, seconds_of
from timing.jobs import Job, Options
from timing.processes import Worker, WorkFailed
from timing.revisions import Revision

CLOCKS = ("cpu", "wall")


@dataclass(frozen=True, eq=False)
class Side:
    """This is one of the two revisions that are compared.

    outcome: rate, fidelity and peak memory. take: has one sample taken.
    """

    label: str
    outcome: Mapping[str, float]
    take: Callable[[], Mapping[str, float]]


class Bench:
    """Jobs are run with these settings.

    inputs: the signals. folder: for files. now, before: the revisions; None where the present code is measured alone.
    """

    def __init__(self, inputs: Inputs, folder: Path, now: Revision, before: Revision | None) -> None:
        self._inputs = inputs
        self._folder = folder
        self._revisions = {"now": now} if before is None else {"before": before, "now": now}
        self._coded: dict[tuple[str, str, str], Path] = {}
        self._places = 0

    def run(self, job: Job, repeats: int) -> dict[str, Any]:
        """Take the times of a job in turn; return them with what they are of. Raises: WorkFailed, UsageError."""
        with ExitStack() as stack:
            sides = self._core_sides(job) if job.cores else self._revision_sides(job, stack)
            samples: dict[str, list[Mapping[str, float]]] = {name: [] for name in sides}
            for _ in range(repeats):
                for name, side in sides.items():
                    samples[name].append(side.take())
        measured = {
            name: {"label": side.label, **side.outcome} | _by_clock(samples[name]) for name, side in sides.items()
        }
        return {
            "what": job.what,
            "clock": job.clock,
            "target": job.target,
            "setting": "one core" if job.cores else None,
            "input": self._described(job),
            "before": measured.get("before"),
            "now": measured["now"],
        }

    def _described(self, job: Job) -> list[dict[str, Any]]:
        several = job.source in ("pictures", "folder")
        used = self._inputs.pictures if several else [self._inputs.signal(job.source)]
        return [described(source) for source in used]

    def _revision_sides(self, job: Job, stack: ExitStack) -> dict[str, Side]:
        """Begin a process of each revision for the job.

        What it is asked first is no sample, as it makes what is made once; its peak memory is that of the job.
        """
        kinds = {
            "encode": self._encode,
            "decode": self._decode,
            "shell decode": self._decode_in_shell,
            "train": self._train,
        }
        workers = {name: stack.enter_context(Worker(revision)) for name, revision in self._revisions.items()}
        return {name: kinds[job.kind](job, worker) for name, worker in workers.items()}

    def _encode(self, job: Job, worker: Worker) -> Side:
        source, options = self._inputs.signal(job.source), _options(job, worker)
        path = self._place() / "coded.inr"
        request = _encoding(source, options, path)
        peak = worker.ask("encode", **request)["peak_mib"]
        self._coded[_key(worker.revision, source, options)] = path
        _, fidelity = self._decoded(worker, source, path)
        per = _counted(source)
        return Side(
            worker.revision.label, {**fidelity, "peak_mib": peak}, lambda: _each(worker.ask("encode", **request), per)
        )

    def _decode(self, job: Job, worker: Worker) -> Side:
        source, path = self._file(job, worker)
        peak, fidelity = self._decoded(worker, source, path)
        per = _counted(source)
        return Side(
            worker.revision.label,
            {**fidelity, "peak_mib": peak},
            lambda: _each(worker.ask("decode", path=str(path)), per),
        )

    def _decode_in_shell(self, job: Job, worker: Worker) -> Side:
        source, path = self._file(job, worker)
        _, fidelity = self._decoded(worker, source, path)
        target = path.with_name("decoded.png")

        def decode() -> Mapping[str, float]:
            target.unlink(missing_ok=True)
            times, _ = processes.command(worker.revision, ["decode", str(path), "-o", str(target), "--quiet"])
            return times

        return Side(worker.revision.label, fidelity, decode)

    def _train(self, job: Job, worker: Worker) -> Side:
        def step() -> dict[str, float]:
            return worker.ask("train", paths=[str(source.path) for source in self._inputs.pictures])

        return Side(worker.revision.label, {"peak_mib": step()["peak_mib"]}, step)

    def _core_sides(self, job: Job) -> dict[str, Side]:
        """Return the present code on one core and on several."""
        cores = job.cores or 1
        if processes.usable_cores() < cores:
            raise WorkFailed(f"{cores} cores are needed, and a system that lets a process choose among them")
        folder = job.source == "folder"
        path = self._inputs.folder if folder else self._inputs.signal(job.source).path

        def side(label: str, cores: int) -> Side:
            outcome: dict[str, float] = {}

            def encode() -> Mapping[str, float]:
                target = self._place()
                output = f"{target}/" if folder else str(target / "coded.inr")
                arguments = ["encode", str(path), "-o", output, "--effort", job.options["effort"], "--json", "--quiet"]
                times, reports = processes.command(self._revisions["now"], arguments, cores)
                files = [json.loads(line) for line in reports.splitlines()]
                outcome.update({key: mean(file[key] for file in files) for key in ("bits_per_sample", "psnr_db")})
                return times

            return Side(label, outcome, encode)

        return {"before": side("one core", 1), "now": side(f"{cores} cores", cores)}

    def _file(self, job: Job, worker: Worker) -> tuple[Source, Path]:
        """Return the input of a job and the file that a revision makes of it, made in another process."""
        source, options = self._inputs.signal(job.source), _options(job, worker)
        key = _key(worker.revision, source, options)
        if key not in self._coded:
            path = self._place() / "coded.inr"
            with Worker(worker.revision) as encoder:
                encoder.ask("encode", **_encoding(source, options, path))
            self._coded[key] = path
        return source, self._coded[key]

    def _decoded(self, worker: Worker, source: Source, path: Path) -> tuple[float, dict[str, float]]:
        """Return the peak memory of a process that has decoded a file, and the rate and fidelity of the file."""
        values = path.with_name("values.npy")
        peak = worker.ask("decode", path=str(path), values=str(values))["peak_mib"]
        decoded = replace(source.signal, values=_time_first(np.load(values), source.signal))
        values.unlink()
        rate = 8 * path.stat().st_size / source.signal.samples
        return peak, {"bits_per_sample": rate, **report.measure(source.signal, decoded)}

    def _place(self) -> Path:
        """Make a folder that nothing is in."""
        self._places += 1
        place = self._folder / f"job {self._places}"
        place.mkdir()
        return place


def _options(job: Job, worker: Worker) -> Options:
    """Return the options of a job, or the older ones if a revision has not their effort. Raises: WorkFailed."""
    if job.older is None:
        return job.options
    efforts = worker.ask("efforts")["efforts"]
    if job.options["effort"] in efforts:
        return job.options
    if worker.revision.present:
        raise WorkFailed(f"the present code has no effort {job.options['effort']}")
    return job.older


def _encoding(source: Source, options: Options, output: Path) -> dict[str, Any]:
    return {
        "path": str(source.path),
        "output": str(output),
        "modality": source.signal.modality,
        "options": dict(options),
    }


def _key(revision: Revision, source: Source, options: Options) -> tuple[str, str, str]:
    return revision.label, source.name, repr(sorted(options.items()))


def _counted(source: Source) -> float:
    """Return what the times are divided by: the seconds of a sound."""
    return seconds_of(source.signal) if source.signal.modality == "audio" else 1.0


def _each(times: Mapping[str, float], per: float) -> dict[str, float]:
    return {clock: times[clock] / per for clock in CLOCKS}


def _by_clock(samples: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    return {clock: [sample[clock] for sample in samples] for clock in CLOCKS}


def _time_first(values: np.ndarray, like: Signal) -> np.ndarray:
    """Return decoded values with the axes that a signal has: of sound, earlier revisions had the channels first."""
    turned = like.modality == "audio" and values.shape != like.values.shape
    return values.swapaxes(0, 1) if turned else values

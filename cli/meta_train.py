"""`inrcodec meta-train`: signals to an initialization."""

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inrcodec.cli import console
from inrcodec.cli.interruption import load_torch
from inrcodec.cli.option_groups import with_options
from inrcodec.errors import InrcodecWarning, UsageError
from inrcodec.meta.config import ADAPTATION_OPTIONS, TRAINING_OPTIONS, Option

if TYPE_CHECKING:
    import torch

    from inrcodec.initialization import Initialization
    from inrcodec.meta.data import TrainingData
    from inrcodec.meta.distributed import Processes
    from inrcodec.meta.presets import Preset
    from inrcodec.meta.run import TrainingProgress

_SAMPLES = "the sample signals shipped with inrcodec"

FIELD_OPTIONS = {
    "width": Option("Hidden units of a layer.", 1, whole=True),
    "depth": Option("Layers.", 2, whole=True),
}
"""Options that set the field of their name in the field's configuration."""


@with_options("settings", ADAPTATION_OPTIONS | TRAINING_OPTIONS | FIELD_OPTIONS, "Method")
def meta_train(
    context: typer.Context,
    modality: Annotated[str, typer.Option("--modality", metavar="image|video|audio|climate", help="Of the signals.")],
    settings: dict[str, Any],
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FOLDER", show_default=_SAMPLES, help="Signals to learn from."),
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option("--validation", metavar="FOLDER", help="Signals to evaluate on. [default: a tenth of the data]"),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--source", show_default="its path", help="What the data is, for the model card."),
    ] = None,
    field: Annotated[
        str, typer.Option("--field", metavar="siren|ffn|nerv|pyramid|clip|series|spectrum", help="Neural field.")
    ] = "siren",
    scale: Annotated[
        str,
        typer.Option("--preset", metavar="codec|paper", help="Small fields for files, or GradNCP's experiments."),
    ] = "codec",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            show_default="MODALITY-FIELD.safetensors",
            help="Where to write.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            metavar="NAME|ID|FILE",
            show_default="at random",
            help="Initialization whose fitting tensors to begin with.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint beside the output.")] = False,
    patch: Annotated[
        str | None,
        typer.Option("--patch", metavar="32x32", show_default="the preset's", help="Samples of a patch."),
    ] = None,
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda[:n]", help="Where to compute.")] = "auto",
    threads: Annotated[int | None, typer.Option("--threads", show_default="all cores", help="CPU threads.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object at the end.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show errors only.")] = False,
) -> None:
    """Meta-learn an initialization from a folder of signals.

    Writes the initialization, a model card and a checkpoint beside it. A run that was stopped goes on
    with --resume.

    Several processes share the signals of each step: torchrun --nproc-per-node 2 -m inrcodec meta-train ...
    """
    load_torch()
    from inrcodec.meta.distributed import Processes

    processes = Processes.of_torchrun()
    context.obj.speaks = processes.speaks
    if not processes.first:
        quiet = True
        warnings.simplefilter("ignore", InrcodecWarning)
    preset = configure(modality, field, scale, settings, patch)
    target = output or Path(f"{modality}-{field}.safetensors")
    if processes.first:
        _check_target(target, resume, force)
    if threads is not None:
        import torch

        Option("CPU threads.", 1).check("threads", threads)
        torch.set_num_threads(threads)
    from inrcodec.device import pick_device
    from inrcodec.registry import named_initialization

    chosen_device = pick_device(processes.device(device))
    beginning = named_initialization(start) if start else None
    signals = _load(data, modality, validation)
    if not quiet:
        for reason in signals.unreadable.values():
            console.say(f"left out: {reason}")
        where = f"{len(signals.training)} signals to learn from, {len(signals.held_out)} to evaluate on"
        console.say(f"{where}, {preset.training.outer_steps} outer steps; Ctrl-C keeps the last checkpoint")
    described = source or (str(data) if data else _SAMPLES)
    initialization = _run(preset, signals, target, described, beginning, resume, chosen_device, quiet, processes)
    if initialization is None:
        return
    if json:
        console.json_data(_report(target, initialization, signals))
    if not quiet:
        _show(target, initialization)


def configure(modality: str, field: str, scale: str, settings: dict[str, Any], patch: str | None = None) -> "Preset":
    """Return a preset with some settings changed. Raises: UsageError if the field has no such setting or value."""
    from inrcodec.meta.presets import configured

    for name, option in FIELD_OPTIONS.items():
        if name in settings:
            option.check(name, settings[name])
    sizes = {name: settings[name] for name in FIELD_OPTIONS if name in settings}
    changes = {name: value for name, value in settings.items() if name not in FIELD_OPTIONS}
    return configured(modality, field, scale, changes, sizes, patch)


def _check_target(path: Path, resume: bool, force: bool) -> None:
    """Raises: UsageError if a file cannot be written, or something is in the way."""
    from inrcodec.meta.checkpoint import checkpoint_of

    if path.is_dir() or not path.parent.is_dir() or path.suffix in ("", ".md"):
        raise UsageError(f"-o is {path}: give a file in a folder that exists, as image-siren.safetensors")
    if path.exists() and not (resume or force):
        raise UsageError(f"{path} is there already: give another name with -o, --force or, to go on, --resume")
    checkpoint = checkpoint_of(path)
    if checkpoint.exists() and not path.exists() and not (resume or force):
        raise UsageError(
            f"{checkpoint} is from a run that was stopped: go on with --resume, or begin anew with --force"
        )


def _load(data: Path | None, modality: str, validation: Path | None) -> "TrainingData":
    import inrcodec.assets
    from inrcodec.meta.data import load_data

    for folder in (data, validation):
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{folder} is no folder: give one with files of {modality} in it")
    # The modality's own folder: a folder of pictures would pass for a video.
    samples = Path(next(iter(inrcodec.assets.__path__))) / "samples" / modality
    return load_data(data or samples, modality, validation)


def _run(
    preset: "Preset",
    signals: "TrainingData",
    target: Path,
    source: str,
    start: "Initialization | None",
    resume: bool,
    device: "torch.device",
    quiet: bool,
    processes: "Processes",
) -> "Initialization | None":
    from inrcodec.meta.checkpoint import checkpoint_of
    from inrcodec.meta.run import meta_train as run

    with _nothing_left_by_torch(), console.ProgressLine(quiet=quiet, reports=True) as line:

        def show(progress: "TrainingProgress") -> None:
            if progress.step == progress.steps:
                line.update(f"{target.name}: fit the coding prior, evaluate", 0, None)
            else:
                line.update(f"{target.name}: learn", progress.step, progress.steps, f"{progress.psnr:.2f} dB")

        try:
            return run(
                preset,
                signals,
                target,
                source=source,
                start=start,
                resume=resume,
                device=device,
                on_progress=show,
                processes=processes,
            )
        except KeyboardInterrupt:
            if not processes.speaks():
                raise
            checkpoint = checkpoint_of(target)
            if checkpoint.exists():
                stopped = f"{checkpoint} stays: the same command with --resume goes on from there"
            else:
                stopped = "there was no checkpoint yet, nothing is left"
            console.say(f"stopped; {stopped}")
            raise typer.Exit(130) from None


@contextmanager
def _nothing_left_by_torch() -> Iterator[None]:
    """Take away the folder that torch makes for compiled code, unless the environment names one.

    An optimizer makes it, though nothing is compiled.
    """
    name = "TORCHINDUCTOR_CACHE_DIR"
    if name in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="inrcodec-") as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            del os.environ[name]


def _report(target: Path, initialization: "Initialization", signals: "TrainingData") -> dict[str, Any]:
    from inrcodec.meta.checkpoint import checkpoint_of

    return {
        "output": str(target),
        "card": str(target.with_suffix(".md")),
        "checkpoint": str(checkpoint_of(target)),
        "identifier": initialization.identifier.hex(),
        "modality": initialization.modality,
        "field": initialization.field.name,
        "parameters": initialization.coded_parameters,
        "files": signals.files,
        "unreadable": signals.unreadable,
        "seconds": initialization.provenance["seconds"],
        "evaluation": initialization.provenance["evaluation"],
    }


def _show(target: Path, initialization: "Initialization") -> None:
    from inrcodec.meta.evaluation import Evaluation

    evaluation = Evaluation.of(initialization.provenance)
    console.say(f"{target}: identifier {initialization.identifier.hex()}; {evaluation.title}:")
    console.table(evaluation.columns, evaluation.shown_rows(), to_stderr=True)

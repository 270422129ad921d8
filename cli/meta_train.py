"""`inrcodec meta-train`: signals to an initialization."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inrcodec.cli import console
from inrcodec.cli.training_settings import SETTINGS, check_range, configure
from inrcodec.errors import UsageError

if TYPE_CHECKING:
    import torch

    from inrcodec.meta.initialization import Initialization
    from inrcodec.meta.presets import Preset
    from inrcodec.meta.run import TrainingData, TrainingProgress

METHOD = "Method (defaults: the preset's)"

_SAMPLES = "the sample signals shipped with inrcodec"


def meta_train(
    modality: Annotated[str, typer.Option("--modality", metavar="image|video|audio|climate", help="Of the signals.")],
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
        str, typer.Option("--field", metavar="siren|ffn|nerv|pyramid|clip|spectrum", help="Neural field.")
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
            help="Where to write, over what is there.",
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
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint beside the output.")] = False,
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda[:n]", help="Where to compute.")] = "auto",
    threads: Annotated[int | None, typer.Option("--threads", show_default="all cores", help="CPU threads.")] = None,
    inner_steps: Annotated[
        int | None, typer.Option("--inner-steps", "-K", help="Adaptation steps K.", rich_help_panel=METHOD)
    ] = None,
    gamma: Annotated[
        float | None, typer.Option("--gamma", help="Share of the context kept.", rich_help_panel=METHOD)
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            "--score",
            metavar="grad-norm|error|spg|tpg|random|full",
            help="What ranks the context.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    bootstrap_steps: Annotated[
        int | None,
        typer.Option("--bootstrap-steps", "-L", help="Steps L to the bootstrap target.", rich_help_panel=METHOD),
    ] = None,
    bootstrap_weight: Annotated[
        float | None,
        typer.Option("--bootstrap-weight", help="lambda of the distance to it.", rich_help_panel=METHOD),
    ] = None,
    bootstrap_step_ratio: Annotated[
        float | None,
        typer.Option(
            "--bootstrap-step-ratio",
            help="Step size of the L steps over the inner one.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    bootstrap_context: Annotated[
        str | None,
        typer.Option(
            "--bootstrap-context",
            metavar="full|pruned|random",
            help="What the L steps see.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="second-order|fomaml|reptile",
            help="How theta_0 learns from the adaptation. [default: second-order]",
            rich_help_panel=METHOD,
        ),
    ] = None,
    backward_share: Annotated[
        float | None,
        typer.Option(
            "--backward-share",
            metavar="SHARE",
            help="Of the points, those that the second-order gradient goes through (LITE). [default: 1]",
            rich_help_panel=METHOD,
        ),
    ] = None,
    inner_step_size: Annotated[
        float | None,
        typer.Option("--inner-step-size", help="alpha, or where its learning starts.", rich_help_panel=METHOD),
    ] = None,
    step_sizes: Annotated[
        str | None,
        typer.Option(
            "--step-sizes",
            metavar="none|scalar|tensor|tensor-step|element",
            help="Which inner step sizes are learned.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    second_order: Annotated[
        float | None,
        typer.Option(
            "--second-order",
            metavar="SHARE",
            help="Of the outer steps, the last: latents learned through their adaptation. [default: 0]",
            rich_help_panel=METHOD,
        ),
    ] = None,
    step_size_rate: Annotated[
        float | None,
        typer.Option("--step-size-rate", help="Adam's step size on them.", rich_help_panel=METHOD),
    ] = None,
    outer_steps: Annotated[
        int | None, typer.Option("--outer-steps", help="Length of the run.", rich_help_panel=METHOD)
    ] = None,
    outer_step_size: Annotated[
        float | None, typer.Option("--outer-step-size", help="beta, of Adam.", rich_help_panel=METHOD)
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option("--schedule", metavar="constant|cosine", help="Of the outer step sizes.", rich_help_panel=METHOD),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", help="Signals per outer step.", rich_help_panel=METHOD)
    ] = None,
    clip: Annotated[
        float | None,
        typer.Option("--clip", help="Bound on the meta-gradient's norm.", rich_help_panel=METHOD),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of all random choices.", rich_help_panel=METHOD)] = None,
    patch: Annotated[
        str | None,
        typer.Option("--patch", metavar="32x32", help="Samples of a patch along each axis.", rich_help_panel=METHOD),
    ] = None,
    width: Annotated[
        int | None, typer.Option("--width", help="Hidden units of a layer.", rich_help_panel=METHOD)
    ] = None,
    depth: Annotated[int | None, typer.Option("--depth", help="Layers.", rich_help_panel=METHOD)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object at the end.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show errors only.")] = False,
) -> None:
    """Meta-learn an initialization from a folder of signals.

    Writes the initialization, a model card and a checkpoint beside it. A run that was stopped goes on
    with --resume.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    preset = configure(modality, field, scale, {name: given[name] for name in SETTINGS & given.keys()})
    target = _target(output, f"{modality}-{field}.safetensors", resume)
    if threads is not None:
        import torch

        check_range("threads", threads)
        torch.set_num_threads(threads)
    from inrcodec.device import pick_device
    from inrcodec.initializations import named_initialization

    chosen_device = pick_device(device)
    beginning = named_initialization(start) if start else None
    signals = _load(data, modality, validation)
    if not quiet:
        for reason in signals.unreadable.values():
            console.say(f"left out: {reason}")
        where = f"{len(signals.training)} signals to learn from, {len(signals.held_out)} to evaluate on"
        console.say(f"{where}, {preset.training.outer_steps} outer steps; Ctrl-C keeps the last checkpoint")
    described = source or (str(data) if data else _SAMPLES)
    initialization = _run(modality, preset, signals, target, described, beginning, resume, chosen_device, quiet)
    if json:
        console.json_data(_report(target, initialization, signals))
    if not quiet:
        _show(target, initialization)


def _target(output: Path | None, name: str, resume: bool) -> Path:
    """The file to write. Raises: UsageError if something is in the way."""
    path = output or Path(name)
    if path.is_dir() or not path.parent.is_dir() or path.suffix in ("", ".md"):
        raise UsageError(f"-o is {path}: give a file in a folder that exists, as {name}")
    if path.exists() and output is None and not resume:
        raise UsageError(f"{path} is there already: say where to write with -o, or go on with --resume")
    checkpoint = _checkpoint(path)
    if checkpoint.exists() and not path.exists() and not resume:
        raise UsageError(f"{checkpoint} is from a run that was stopped: go on with --resume, or remove it")
    return path


def _checkpoint(target: Path) -> Path:
    from inrcodec.meta.run import checkpoint_of

    return checkpoint_of(target)


def _load(data: Path | None, modality: str, validation: Path | None) -> "TrainingData":
    import inrcodec.assets
    from inrcodec.meta.run import load_data

    for folder in (data, validation):
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{folder} is no folder: give one with files of {modality} in it")
    # The modality's own folder: a folder of pictures would pass for a video.
    samples = Path(next(iter(inrcodec.assets.__path__))) / "samples" / modality
    return load_data(data or samples, modality, validation)


def _run(
    modality: str,
    preset: "Preset",
    signals: "TrainingData",
    target: Path,
    source: str,
    start: "Initialization | None",
    resume: bool,
    device: "torch.device",
    quiet: bool,
) -> "Initialization":
    from inrcodec.meta.run import meta_train as run

    with console.ProgressLine(quiet=quiet, reports=True) as line:

        def show(progress: "TrainingProgress") -> None:
            if progress.step == progress.steps:
                line.update(f"{target.name}: fit the coding prior, evaluate", 0, None)
            else:
                line.update(f"{target.name}: learn", progress.step, progress.steps, f"{progress.psnr:.2f} dB")

        try:
            return run(
                modality,
                preset,
                signals,
                target,
                source=source,
                start=start,
                resume=resume,
                device=device,
                on_progress=show,
            )
        except KeyboardInterrupt:
            checkpoint = _checkpoint(target)
            if checkpoint.exists():
                stopped = f"{checkpoint} stays: the same command with --resume goes on from there"
            else:
                stopped = "there was no checkpoint yet, nothing is left"
            console.say(f"stopped; {stopped}")
            raise typer.Exit(130) from None


def _report(target: Path, initialization: "Initialization", signals: "TrainingData") -> dict[str, Any]:
    return {
        "output": str(target),
        "card": str(target.with_suffix(".md")),
        "checkpoint": str(_checkpoint(target)),
        "identifier": initialization.identifier.hex(),
        "modality": initialization.modality,
        "field": initialization.model.name,
        "parameters": initialization.delta_size,
        "files": signals.files,
        "unreadable": signals.unreadable,
        "seconds": initialization.provenance["seconds"],
        "evaluation": initialization.provenance["evaluation"],
    }


def _show(target: Path, initialization: "Initialization") -> None:
    from inrcodec.meta.initialization import ContextPrior

    evaluation = initialization.provenance["evaluation"]
    named = f"{target}: identifier {initialization.identifier.hex()}"
    if isinstance(initialization.prior, ContextPrior):
        console.say(f"{named}; held-out patches:")
        titles: tuple[str, ...] = ("quality", "steps", "bits per sample", "PSNR in dB")
        rows: list[tuple[str, ...]] = [
            (quality, steps, f"{measured['bits']:.3f}", f"{measured['psnr']:.2f}")
            for quality, by_steps in evaluation.items()
            for steps, measured in by_steps.items()
        ]
    else:
        console.say(f"{named}; PSNR of held-out patches in dB:")
        titles = ("steps", "this initialization", "random initialization")
        rows = [
            (steps, f"{psnr:.2f}", f"{evaluation['random'][steps]:.2f}")
            for steps, psnr in evaluation["initialization"].items()
        ]
    console.table(titles, rows, to_stderr=True)

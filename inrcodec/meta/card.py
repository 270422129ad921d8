"""The model card of an initialization: what it is, what it was trained on, and what that brought."""

from dataclasses import asdict
from typing import Any

from inrcodec.meta.initialization import ContextPrior, Initialization
from inrcodec.models import Parameters


def model_card(name: str, initialization: Initialization) -> str:
    """What a user should know of an initialization, as Markdown."""
    provenance = initialization.provenance
    training = provenance["training"]
    model = {"name": initialization.model.name, **asdict(initialization.model)}
    return "\n".join(
        [
            f"# {name}",
            "",
            f"Initialization for {initialization.modality}, identifier `{initialization.identifier.hex()}`.",
            "",
            f"- Field: {', '.join(f'{key} {value}' for key, value in model.items())}; {_coded(initialization)}.",
            f"- Patches: {', '.join(f'{key} {value}' for key, value in asdict(initialization.patches).items())}.",
            f"- Data: {provenance['data']} ({provenance['files']} files).",
            f"- Meta-training: {training['outer_steps']} outer steps of {training['batch']} signals, "
            f"K = {training['adaptation']['steps']}, gamma = {training['adaptation']['gamma']}, "
            f"score {training['adaptation']['score']}, L = {training['bootstrap_steps']}, "
            f"lambda = {training['bootstrap_weight']}, step sizes learned: {training['learned_step_sizes']}, "
            f"seed {training['seed']}{_second_order(training)}{_method(training)}.",
            *([f"- Learned on from the initialization `{provenance['start']}`."] if provenance.get("start") else []),
            f"- Machine: {provenance['device']}, {provenance['machine']}, torch {provenance['torch']}; "
            f"{provenance['seconds'] / 60:.0f} minutes.",
            "",
            *_evaluation(initialization),
            "",
        ]
    )


def _second_order(training: dict[str, Any]) -> str:
    """Of latents; what is older had none."""
    share = training.get("second_order", 0)
    return f"; through the adaptation in the last {share:.0%} of the steps" if share else ""


def _method(training: dict[str, Any]) -> str:
    """Of other fields, where it is not the usual one."""
    parts = []
    if training.get("method", "second-order") != "second-order":
        parts.append(training["method"])
    if training.get("backward_share", 1) != 1:
        parts.append(f"second-order gradients through {training['backward_share']:.0%} of the points")
    if training["bootstrap_steps"] and training.get("bootstrap_context", "full") != "full":
        parts.append(f"bootstrap on a {training['bootstrap_context']} context")
    return "".join(f"; {part}" for part in parts)


def _coded(initialization: Initialization) -> str:
    if isinstance(initialization.prior, ContextPrior):
        return f"the latents are coded, with an entropy model of {_size(initialization.prior.weights)} weights"
    return f"{initialization.delta_size} parameters coded per patch"


def _size(parameters: Parameters) -> int:
    return sum(value.numel() for value in parameters.values())


def _evaluation(initialization: Initialization) -> list[str]:
    evaluation = initialization.provenance["evaluation"]
    if isinstance(initialization.prior, ContextPrior):
        rows = [
            f"| {quality} | {steps} | {measured['bits']:.3f} | {measured['psnr']:.2f} |"
            for quality, by_steps in evaluation.items()
            for steps, measured in by_steps.items()
        ]
        return [
            "Held-out patches, means over patches of the entropy model's bits per sample and of PSNR in dB:",
            "",
            "| quality | steps | bits | PSNR |",
            "|---|---|---|---|",
            *rows,
        ]
    rows = [
        f"| {steps} | {psnr:.2f} | {evaluation['random'][steps]:.2f} |"
        for steps, psnr in sorted(evaluation["initialization"].items(), key=lambda row: int(row[0]))
    ]
    return [
        "Held-out patches, PSNR in dB (mean over patches, values in [0, 1]), against the same field from a random "
        "initialization at its best step size:",
        "",
        "| steps | this initialization | random initialization |",
        "|---|---|---|",
        *rows,
    ]

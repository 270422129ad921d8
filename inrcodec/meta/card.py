"""The model card of an initialization: what it is, what it was trained on, and what that brought."""

from dataclasses import asdict
from typing import Any

from inrcodec.initialization import Initialization
from inrcodec.meta.evaluation import Evaluation


def model_card(name: str, initialization: Initialization) -> str:
    """Return what a user should know of an initialization, as Markdown."""
    provenance = initialization.provenance
    training = provenance["training"]
    field = {"name": initialization.field.name, **asdict(initialization.field)}
    evaluation = Evaluation.of(provenance)
    learned = _learned_weights if initialization.field.family == "weights" else _learned_latents
    return "\n".join(
        [
            f"# {name}",
            "",
            f"Initialization for {initialization.modality}, identifier `{initialization.identifier.hex()}`.",
            "",
            f"- Field: {_listed(field)}; {initialization.prior.summary}.",
            f"- Patches: {_listed(asdict(initialization.patches))}.",
            f"- Data: {provenance['data']} ({provenance['files']} files).",
            f"- Meta-training: {training['outer_steps']} outer steps of {training['batch']} signals, "
            f"{learned(training)}, seed {training['seed']}.",
            *([f"- Learned on from the initialization `{provenance['start']}`."] if provenance["start"] else []),
            f"- Machine: {provenance['device']}, {provenance['machine']}, torch {provenance['torch']}; "
            f"{provenance['seconds'] / 60:.0f} minutes.",
            "",
            f"{evaluation.title}:",
            "",
            f"| {' | '.join(evaluation.columns)} |",
            "|" + "---|" * len(evaluation.columns),
            *(f"| {' | '.join(row)} |" for row in evaluation.shown_rows()),
            "",
        ]
    )


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def _learned_weights(training: dict[str, Any]) -> str:
    """Say how theta_0 of a weight field was learned."""
    adaptation = training["adaptation"]
    parts = [_through_adaptation(training, f"gamma = {adaptation['gamma']}", f"score {adaptation['score']}")]
    if training["method"] != "second-order":
        parts.append(training["method"])
    if training["backward_share"] != 1:
        parts.append(f"second-order gradients through {training['backward_share']:.0%} of the points")
    if training["bootstrap_steps"] and training["bootstrap_context"] != "full":
        parts.append(f"bootstrap on a {training['bootstrap_context']} context set")
    return "; ".join(parts)


def _learned_latents(training: dict[str, Any]) -> str:
    """Say how what latents share was learned."""
    finest, coarsest = training["quantization"]
    said = f"step indices {finest} to {coarsest}"
    share = training["second_order"]
    return f"{said}; through the adaptation in the last {share:.0%}: {_through_adaptation(training)}" if share else said


def _through_adaptation(training: dict[str, Any], *pruning: str) -> str:
    return ", ".join(
        [
            f"K = {training['adaptation']['steps']}",
            *pruning,
            f"L = {training['bootstrap_steps']}",
            f"lambda = {training['bootstrap_weight']}",
            f"step sizes learned: {training['step_sizes']}",
        ]
    )

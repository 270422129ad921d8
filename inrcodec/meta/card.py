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
            f"K = {training['adaptation']['steps']}, gamma = {training['adaptation']['gamma']}, "
            f"score {training['adaptation']['score']}, L = {training['bootstrap_steps']}, "
            f"lambda = {training['bootstrap_weight']}, step sizes learned: {training['step_sizes']}, "
            f"seed {training['seed']}{_second_order(training)}{_method(training)}.",
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


def _second_order(training: dict[str, Any]) -> str:
    share = training["second_order"]
    return f"; through the adaptation in the last {share:.0%} of the steps" if share else ""


def _method(training: dict[str, Any]) -> str:
    """Say how theta_0 was learned, where that is not the usual way."""
    parts = []
    if training["method"] != "second-order":
        parts.append(training["method"])
    if training["backward_share"] != 1:
        parts.append(f"second-order gradients through {training['backward_share']:.0%} of the points")
    if training["bootstrap_steps"] and training["bootstrap_context"] != "full":
        parts.append(f"bootstrap on a {training['bootstrap_context']} context set")
    return "".join(f"; {part}" for part in parts)

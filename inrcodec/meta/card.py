"""The model card of an initialization: what it is, what it was trained on, and what that brought."""

from dataclasses import asdict

from inrcodec.meta.initialization import Initialization


def model_card(name: str, initialization: Initialization) -> str:
    """What a user should know of an initialization, as Markdown."""
    provenance = initialization.provenance
    training = provenance["training"]
    model = {"name": initialization.model.name, **asdict(initialization.model)}
    rows = [
        f"| {steps} | {psnr:.2f} | {provenance['evaluation']['random'][steps]:.2f} |"
        for steps, psnr in sorted(provenance["evaluation"]["initialization"].items(), key=lambda row: int(row[0]))
    ]
    return "\n".join(
        [
            f"# {name}",
            "",
            f"Initialization for {initialization.modality}, identifier `{initialization.identifier.hex()}`.",
            "",
            f"- Field: {', '.join(f'{key} {value}' for key, value in model.items())}; "
            f"{initialization.delta_size} parameters coded per patch.",
            f"- Patches: {', '.join(f'{key} {value}' for key, value in asdict(initialization.patches).items())}.",
            f"- Data: {provenance['data']} ({provenance['files']} files).",
            f"- Meta-training: {training['outer_steps']} outer steps of {training['batch']} signals, "
            f"K = {training['adaptation']['steps']}, gamma = {training['adaptation']['gamma']}, "
            f"score {training['adaptation']['score']}, L = {training['bootstrap_steps']}, "
            f"lambda = {training['bootstrap_weight']}, step sizes learned: {training['learned_step_sizes']}, "
            f"seed {training['seed']}.",
            f"- Machine: {provenance['device']}, {provenance['machine']}, torch {provenance['torch']}; "
            f"{provenance['seconds'] / 60:.0f} minutes.",
            "",
            "Held-out patches, PSNR in dB (mean over patches, values in [0, 1]), against the same field from a random "
            "initialization at its best step size:",
            "",
            "| steps | this initialization | random initialization |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )

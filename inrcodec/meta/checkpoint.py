"""Checkpoints: what a cut run needs to go on as if it had not been cut."""

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from inrcodec.errors import UsageError
from inrcodec.meta.trainer import Trainer
from inrcodec.signals import write_whole

_METADATA_KEY = "inrcodec"


def checkpoint_of(output: Path) -> Path:
    """Return where a run that writes `output` keeps what it needs to go on."""
    return output.with_name(f"{output.name}.checkpoint")


def save_checkpoint(trainer: Trainer, settings: dict[str, Any], path: Path, seconds: float) -> None:
    """Write the state of a run. settings: what it depends on beside its data. seconds: trained so far."""
    metadata = {_METADATA_KEY: json.dumps({"settings": settings, "seconds": seconds}, sort_keys=True)}
    content = safetensors.torch.save(trainer.state(), metadata=metadata)
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def read_checkpoint(path: Path) -> bytes:
    """Return the content of a checkpoint. Raises: UsageError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot resume from {path}: {error.strerror}") from error


def load_checkpoint(trainer: Trainer, settings: dict[str, Any], content: bytes, path: Path) -> float:
    """Load a checkpoint into the trainer; return the seconds trained before.

    content: of the checkpoint at `path`. Raises: UsageError if it is none, or is of other settings.
    """
    try:
        length = int.from_bytes(content[:8], "little")
        document = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_METADATA_KEY])
        saved, seconds = document["settings"], float(document["seconds"])
        changed = [
            f"{group}.{key} was {saved[group].get(key)}, is {value}"
            for group, values in settings.items()
            for key, value in values.items()
            if saved[group].get(key) != value
        ]
        tensors = safetensors.torch.load(content)
    except (ValueError, KeyError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise UsageError(f"cannot resume: {path} is not a checkpoint ({error!r})") from error
    if changed:
        raise UsageError(f"cannot resume with other settings: {'; '.join(changed)}")
    try:
        trainer.load_state(tensors)
    except KeyError as error:
        raise UsageError(f"cannot resume: {path} has no {error}") from error
    return seconds

"""Trainers in several processes that belong together, as torchrun starts them."""

import multiprocessing
import os
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from tiny_latents import CPU, Cut, textured_image
from tiny_latents import tiny_preset as tiny_latents
from tiny_weights import tiny_preset as tiny_weights

from inrcodec.errors import UsageError
from inrcodec.meta import evaluation, weight_trainer
from inrcodec.meta import run as library
from inrcodec.meta.data import PatchSampler, TrainingData
from inrcodec.meta.distributed import ALONE, Processes
from inrcodec.meta.latent_trainer import LatentTrainer
from inrcodec.meta.presets import Preset, preset
from inrcodec.meta.run import meta_train
from inrcodec.meta.trainers import trainer_of
from inrcodec.models import LatentSeries
from inrcodec.patches import PatchConfig
from inrcodec.settings import AdaptationConfig
from inrcodec.signals.signal import Axis, Signal

STEPS = 4
BATCH = 3
"""Signals of a step, which two processes cannot share evenly."""

_THROUGH = {
    "adaptation": AdaptationConfig.unpruned(3),
    "step_sizes": "tensor-step",
    "bootstrap_steps": 2,
    "bootstrap_weight": 1.0,
}
_RANDOM = {"adaptation": AdaptationConfig(2, 0.5, "random"), "backward_share": 0.5, "bootstrap_context": "random"}


def _series() -> Preset:
    usual = preset("climate", "series")
    field = LatentSeries(3, 1, (2, 2), prediction=4, divided=2)
    patches = PatchConfig((3, 16, 16), (0, 0, 0), normalize=False)
    return replace(usual, field=field, patches=patches, crop=(3, 16, 16), hidden=4)


TRAININGS = {
    "weights": tiny_weights(),
    "weights at random points": tiny_weights(**_RANDOM),
    "weights to first order": tiny_weights(method="fomaml"),
    "latents": tiny_latents(),
    "latents through their adaptation": tiny_latents(second_order=1.0, **_THROUGH),
    "series": _series(),
}


def learn(name: str, processes: Processes = ALONE) -> dict[str, torch.Tensor]:
    """Take some outer steps of a training; return the state of its trainer, and the losses on the way."""
    settings = TRAININGS[name]
    training = replace(settings.training, outer_steps=STEPS)
    trainer = trainer_of(replace(settings, training=training), None, CPU)
    trainer.processes = processes
    if isinstance(trainer, LatentTrainer):
        _disturb(trainer)
    signals = [_weather(seed) if name == "series" else textured_image(seed) for seed in range(4)]
    sampler = PatchSampler(signals, settings.training_patches, settings.field.out_features, seed=0)
    losses = []
    for step in range(STEPS):
        loss = trainer.train_step(sampler.batch(step, BATCH, processes.share).context_set(CPU))
        losses += [loss.total, loss.reconstruction, loss.bootstrap]
    return trainer.state() | {"losses": torch.stack(losses)}


def run(output: Path, *, resume: bool = False, cut: int = 0, processes: Processes = ALONE) -> None:
    """Make a whole run, or one that is cut after so many steps."""
    data = TrainingData([textured_image(seed) for seed in range(3)], [textured_image(9)], 3, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weight_trainer, "PRIOR_PATCHES", 6)
        patch.setattr(evaluation, "WEIGHT_PATCHES", 4)
        patch.setattr(library, "CHECKPOINT_SECONDS", -1.0)
        settings, progress = tiny_weights(batch=BATCH), Cut(cut) if cut else None
        try:
            meta_train(settings, data, output, source="waves", resume=resume, on_progress=progress, processes=processes)
        except KeyboardInterrupt:
            assert cut


def learn_together(folder: Path, count: int = 2) -> None:
    """Have so many processes do the same things; each writes into the folder what it has learned and heard.

    They learn all `TRAININGS`, make a run "theirs" that is cut, and go on with a run "mine".
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_learn_all, args=(folder, rank, count, port)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        process.kill()
        process.join()
        assert process.exitcode == 0


def _learn_all(folder: Path, rank: int, count: int, port: int) -> None:
    os.environ |= {"RANK": f"{rank}", "WORLD_SIZE": f"{count}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    torch.set_num_threads(1)
    processes = Processes.of_torchrun()
    for name in TRAININGS:
        safetensors.torch.save_file(learn(name, processes), folder / f"{name} {rank}")
    heard = processes.content(lambda: b"read by %d" % rank)
    processes.check_same("settings", "the same")
    try:
        processes.check_same("signals", f"those of {rank}")
    except UsageError as error:
        heard += f"; {error}".encode()
    (folder / f"heard {rank}").write_bytes(heard)
    run(folder / "theirs.safetensors", cut=4, processes=processes)
    run(folder / "mine.safetensors", resume=True, processes=processes)


def _disturb(trainer: LatentTrainer) -> None:
    """Give a trainer networks that matter, as in the middle of a run."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in (*trainer.theta_0.values(), *trainer.weights.values()):
            value += 0.1 * torch.randn(value.shape, generator=generator)
    trainer.started = True


def _weather(seed: int) -> Signal:
    """Return fields that drift, with some noise."""
    random = np.random.default_rng(seed)
    times, rows, columns = np.indices((6, 24, 24))
    values = 0.5 + 0.3 * np.sin(0.3 * rows - 0.2 * columns + 0.4 * times + seed) + random.normal(0, 0.01, times.shape)
    axes = (Axis(6, "slice"), Axis(24, "node"), Axis(24, "node"))
    return Signal("climate", values[..., None].astype(np.float32), axes, (0.0, 1.0))

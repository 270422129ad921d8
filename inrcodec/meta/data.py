"""Signals to learn from: files below a folder, and random patches of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from inrcodec.errors import InrcodecError, UsageError
from inrcodec.patches import PatchConfig, Patches, fits
from inrcodec.signals import find_files, read
from inrcodec.signals.signal import Signal
from inrcodec.weights.context_set import PatchContextSets, patch_context_sets


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Signals to learn from, signals to evaluate on, and the files that could not be read, with the reason."""

    training: list[Signal]
    held_out: list[Signal]
    files: int
    unreadable: dict[str, str]


def load_data(folder: Path, modality: str, validation: Path | None = None) -> TrainingData:
    """Read all signals of a modality below a folder; without a validation folder, every tenth file is held out.

    Raises: UsageError if there are too few files.
    """
    files = find_files(folder, modality)
    held_out = find_files(validation, modality) if validation else files[::10]
    apart = {path.resolve() for path in held_out}
    training = [path for path in files if path.resolve() not in apart]
    if not held_out and validation:
        raise UsageError(f"{validation} has no files of {modality} to evaluate on")
    if not training and len(files) > 1:
        raise UsageError(f"all files of {modality} in {folder} are in {validation} too: none is left to learn from")
    if not training or not held_out:
        raise UsageError(f"{folder} has {len(files)} files of {modality}: give two or more, one to hold out")
    unreadable: dict[str, str] = {}

    def load(paths: Sequence[Path]) -> list[Signal]:
        signals = []
        for path in paths:
            try:
                signals += [signal for signal in read(path, modality) if signal.modality == modality]
            except InrcodecError as error:
                unreadable[str(path)] = str(error)
        return signals

    data = TrainingData(load(training), load(held_out), len(training), unreadable)
    if not data.training or not data.held_out:
        raise UsageError(f"none of the files in {folder} can be read: {next(iter(unreadable.values()), '')}")
    return data


class PatchSampler:
    """Random patches of nominal size from a set of signals, for meta-training.

    Every signal is as likely as any other, whatever its size; axes whose direction means nothing (pixels) are
    flipped half of the time.
    """

    def __init__(
        self, signals: Sequence[Signal], config: PatchConfig, channels: int, seed: int, *, smaller: bool = False
    ) -> None:
        """Sort the signals by the shape of their patches, of which a batch has one.

        smaller: whether to take signals that are smaller than a patch whole. Their batches have the more patches; the
            more signals there are of a shape, the likelier it is, by the square root.
        Raises: UsageError if no signal is large enough for a patch.
        """
        self._signals: dict[tuple[int, ...], list[Signal]] = {}
        for signal in signals:
            shape = _patch_shape(signal, config)
            if shape == config.shape or (smaller and shape is not None):
                self._signals.setdefault(shape, []).append(signal)
        if not self._signals:
            largest = [signal.shape for signal in signals[:3]]
            raise UsageError(
                f"none of {len(signals)} signals is as large as a patch of {config.shape} samples "
                f"(the first ones: {largest}): give larger signals or smaller patches"
            )
        self.config = config
        self.channels = channels
        self.seed = seed

    @property
    def signals(self) -> list[Signal]:
        return [signal for signals in self._signals.values() for signal in signals]

    def batch(self, step: int, size: int, share: slice = slice(None)) -> PatchContextSets:
        """Return the patches of an outer step: the same for the same (seed, step). share: only these of them."""
        random = np.random.default_rng([self.seed, step])
        shape, *others = self._signals
        if others:
            shapes = [shape, *others]
            weights = np.sqrt([len(signals) for signals in self._signals.values()])
            shape = shapes[random.choice(len(shapes), p=weights / weights.sum())]
            # The first axis is not learned from whole.
            size = size * math.prod(self.config.shape[1:]) // math.prod(shape[1:])
        config = replace(self.config, shape=shape, overlap=(0,) * len(shape))
        drawn = [self._drawn(self._signals[shape], config, random) for _ in range(size)]
        return PatchContextSets.concatenated([self._cut(*each) for each in drawn[share]], shared=not self.config.sphere)

    def _drawn(
        self, signals: Sequence[Signal], config: PatchConfig, random: np.random.Generator
    ) -> tuple[Signal, Patches, tuple[int, ...]]:
        """Draw a signal, a patch of it, and the axes along which that is flipped."""
        signal = signals[int(random.integers(len(signals)))]
        patches = Patches.random(signal.axes, config, random)
        if self.config.sphere:
            return signal, patches, ()
        flips = (i for i, axis in enumerate(patches.axes) if axis.axis.kind == "cell" and random.random() < 0.5)
        return signal, patches, tuple(flips)

    def _cut(self, signal: Signal, patches: Patches, flipped: tuple[int, ...]) -> PatchContextSets:
        sets = patch_context_sets(signal, patches, self.channels)
        if not flipped:
            return sets
        values = sets.values.reshape(*(axis.size for axis in patches.axes), self.channels)
        values = np.ascontiguousarray(np.flip(values, flipped)).reshape(sets.values.shape)
        return replace(sets, values=values)


def _patch_shape(signal: Signal, config: PatchConfig) -> tuple[int, ...] | None:
    """Return the shape of a patch that is no larger than the signal, None if it has other axes."""
    if not fits(signal.axes, config):
        return None
    single = len(config.shape) < len(signal.axes)
    sizes = [axis.size for axis in signal.axes if not (single and axis.kind == "slice")]
    return tuple(min(size, nominal) for size, nominal in zip(sizes, config.shape, strict=True))

"""The codec of a field's family: what the encoder and the decoder ask of it, and the one place that chooses it."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from inrcodec.coding.header import StreamHeader
from inrcodec.initialization import Initialization
from inrcodec.latents.codec import LatentCodec
from inrcodec.models import Family
from inrcodec.options import EncodeOptions, ProgressCallback
from inrcodec.patches import Patches, PatchSamples, RenderedPatch
from inrcodec.signals.lazy import AnySignal, Window
from inrcodec.weights.codec import WeightCodec


class PreparedSignal(Protocol):
    """A signal cut into patches: what is left is to choose the quantization and to code.

    Weight fields are adapted by now; latent fields are adapted while they are coded, as the rate takes part in it.
    """

    @property
    def signal(self) -> AnySignal: ...
    @property
    def initialization(self) -> Initialization: ...
    @property
    def patches(self) -> Patches: ...
    @property
    def device(self) -> torch.device: ...
    def choose(self, trade_off: float, start: Any) -> Any:
        """Return the quantization for a trade-off of rate against distortion."""

    def header(self, quantization: Any, /) -> StreamHeader:
        """Return the header of the coded signal."""

    def code(
        self, quantization: Any, rows: Window, samples: Iterator[PatchSamples], /
    ) -> Iterator[bytes | RenderedPatch]:
        """Yield each chunk, and after it what its patches decode to where each asks for `samples`, all of its own.

        rows: the signal; they are asked for in about ascending order.
        """

    def quick(self) -> "PreparedSignal":
        """Return the same with the least adaptation: for trials, which tell more or less of the same."""

    def corrected(self, bound: float) -> "PreparedSignal":
        """Return the same for a signal whose errors beyond a bound, in what fields show, are corrected at a cost."""


class StreamReader(Protocol):
    """A stream whose header was checked, ready to be decoded."""

    @property
    def patches(self) -> Patches: ...
    def symbols(self, chunks: Sequence[bytes]) -> Iterator[list[np.ndarray]]:
        """Decode the integers of one chunk after the other, the same on every machine. Raises: CorruptFile."""

    def render(
        self,
        chunks: Sequence[bytes],
        samples: Iterator[PatchSamples],
        damaged: frozenset[int] = frozenset(),
        processes: int = 1,
        numbers: Sequence[int] | None = None,
    ) -> Iterator[RenderedPatch]:
        """Yield the fields' values in [0, 1], [points, C], where each patch asks for `samples`.

        numbers: the chunks whose patches are wanted, all unless given.
        damaged: numbers of chunks of which nothing is known; there values are the middle of the range.
        processes: that may share the work.
        Raises: CorruptFile.
        """


class FieldCodec(Protocol):
    """A family of fields as the encoder and the decoder see it.

    machine_margin: how far apart, as a share of the value range, two machines may decode values of the original grid
        for a bound to hold on both; 0 where they decode the same.
    """

    machine_margin: float

    def steps(self, options: EncodeOptions, initialization: Initialization) -> int:
        """Return K_test, how many adaptation steps a signal gets."""

    def prepare(
        self,
        signal: AnySignal,
        initialization: Initialization,
        options: EncodeOptions,
        device: torch.device,
        on_progress: ProgressCallback | None = None,
    ) -> PreparedSignal:
        """Cut a signal into patches and do all that does not depend on the quantization.

        Raises: UsageError if the initialization does not fit.
        """

    def open(self, header: StreamHeader, initialization: Initialization, device: torch.device) -> StreamReader:
        """Prepare to decode a stream. Raises: CorruptFile if the header is not one of such fields."""


_CODECS: dict[Family, FieldCodec] = {"weights": WeightCodec(), "latents": LatentCodec()}


def codec_of(initialization: Initialization) -> FieldCodec:
    """Return the codec of an initialization's fields."""
    return _CODECS[initialization.field.family]

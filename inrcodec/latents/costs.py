"""The cost of symbols in bits, as the entropy model has it, differentiable."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class Costs:
    """The cost of symbols in bits, linear in the magnitude beyond 1; shaped like the symbols.

    zero: of a 0; one: of a 1 or -1, sign included; more: of every further unit.
    """

    zero: Tensor
    one: Tensor
    more: Tensor

    @classmethod
    def of(cls, flags: Tensor, scales: Tensor) -> Self:
        """Return the costs under log odds and log2 scales, differentiable in both."""
        decay = torch.exp2(-scales.clamp(-2, 14))
        one = functional.softplus(-flags) + math.log(2) - torch.log(-torch.expm1(-decay))
        return cls(functional.softplus(flags) / math.log(2), one / math.log(2), decay / math.log(2))

    def __call__(self, magnitudes: Tensor) -> Tensor:
        """Return the bits of symbols of these integer magnitudes."""
        return torch.where(magnitudes < 0.5, self.zero, self.one + (magnitudes - 1) * self.more)

"""The cost of symbols in bits, as the entropy model has it, differentiable."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from inrcodec.models.exact import ACTIVATION_UNIT


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
        """Return the costs under log odds and log2 scales, in units of activations; differentiable in both."""
        odds = flags * (1 / (ACTIVATION_UNIT * math.log(2)))
        zero = functional.softplus(odds * math.log(2)) * (1 / math.log(2))
        more = torch.exp2((scales * (-1 / ACTIVATION_UNIT)).clamp(-14, 2)) * (1 / math.log(2))
        one = zero - odds + 1 - torch.log2(-torch.expm1(more * -math.log(2)))
        return cls(zero, one, more)

    def __call__(self, magnitudes: Tensor) -> Tensor:
        """Return the bits of symbols of these integer magnitudes."""
        return torch.where(magnitudes < 0.5, self.zero, self.one + (magnitudes - 1) * self.more)

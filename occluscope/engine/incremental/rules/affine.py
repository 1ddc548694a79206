"""Batch normalisation in eval mode: a scale and a shift for each channel."""

from dataclasses import dataclass

import torch
from torch import Tensor

from occluscope.engine.incremental.rules.pointwise import Pointwise


@dataclass
class Affine(Pointwise):
    """x · scale + shift, both float64 [channels]; computed in `dtype`."""

    def __init__(self, scale: Tensor, shift: Tensor, dtype: torch.dtype) -> None:
        self.scale, self.shift = scale, shift
        factor, addend = (value.to(dtype)[:, None, None] for value in (scale, shift))
        super().__init__(lambda x: torch.addcmul(addend, x, factor), layouts=("nchw",))

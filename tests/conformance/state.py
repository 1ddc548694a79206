"""What a caller could see of a model."""

import zlib
from typing import Any

import torch
from torch import Tensor, nn


def state(module: nn.Module) -> dict[str, Any]:
    """Every parameter, buffer, flag and hook."""
    seen: dict[str, Any] = {name: checksum(value) for name, value in module.state_dict().items()}
    for name, part in module.named_modules():
        flags = {key: value for key, value in vars(part).items() if isinstance(value, bool | int | float | str)}
        seen[f"{name}: is"] = (type(part), sorted(vars(part)), flags)
        seen[f"{name}: hooks"] = (len(part._forward_hooks), len(part._forward_pre_hooks))
    return seen


def checksum(value: Tensor) -> int:
    """Of all its bits: a copy of the largest models would take gigabytes."""
    in_memory = value.detach().permute(sorted(range(value.dim()), key=value.stride, reverse=True))
    return zlib.crc32(in_memory.contiguous().flatten().view(torch.uint8).numpy().data)

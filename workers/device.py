"""The device that a worker computes on, in words."""

import torch


def describe_device(device: torch.device) -> str:
    """The device as people know it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU, {torch.get_num_threads()} threads"

"""The name of the device that a worker computes on."""

import torch


def describe_device(device: torch.device) -> str:
    """The device's name for people, such as 'CPU, 2 threads'."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU, {torch.get_num_threads()} threads"

"""What is held is counted wherever it hides, and once."""

from functools import partial

import numpy as np
import torch
from torch import nn

from occluscope.engine.holding import held_bytes

MIB = 2**20


def test_tensors_and_arrays_are_found_in_attributes_containers_and_closures() -> None:
    hidden = torch.zeros(MIB, dtype=torch.uint8)
    array = np.zeros(MIB, np.uint8)
    module = nn.Linear(256, 1024, bias=False)  # 1 MiB of float32

    def closure() -> torch.Tensor:
        return hidden

    roots = {"a": [closure], "b": (partial(print, array),), "c": module}
    assert held_bytes(roots) == {"cpu": 3 * MIB}


def test_what_shares_storage_is_counted_once_and_a_view_as_all_of_it() -> None:
    whole = torch.zeros(MIB, dtype=torch.uint8)
    assert held_bytes([whole[:10], whole[5:], whole.view(2, -1), whole.numpy()]) == {"cpu": MIB}
    assert held_bytes([whole[:10]]) == {"cpu": MIB}


def test_a_cycle_ends_and_classes_and_modules_are_not_entered() -> None:
    cycle: list[object] = [nn.Linear, torch, np, print]
    cycle.append(cycle)
    assert held_bytes(cycle) == {}


def test_what_takes_no_memory_counts_nothing() -> None:
    assert held_bytes(torch.zeros(MIB, device="meta")) == {}

"""Memory that runs out: a smaller batch goes on, a single window's failure is told."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from occluscope.engine.covers import constant_cover
from occluscope.engine.incremental import IncrementalNetwork
from occluscope.engine.memory import is_out_of_memory
from occluscope.engine.naive import occluded_outputs
from occluscope.engine.ordering import in_order
from occluscope.windows import WindowGrid

GRID = WindowGrid.over((32, 32), (8, 8), (4, 4))
COVER = constant_cover(torch.zeros(3, 1, 1), (8, 8))
PICTURE = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))


class Hungry(nn.Module):
    """A layer that a device has room for `most` pictures of; torch.fx keeps it whole, as it keeps torch's own."""

    __module__ = "torch.nn.hungry"

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError(f"no room for {len(x)}")
        return x * 2


def network(most: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), Hungry(most), nn.Linear(4096, 5)
    ).eval()


@pytest.mark.parametrize("most", [1, 3, 11])
def test_a_smaller_batch_goes_on_and_nothing_is_lost(most: int) -> None:
    expected = in_order(occluded_outputs(network(1000), PICTURE, GRID, COVER))
    hungry = network(most)
    incremental = IncrementalNetwork(hungry)
    with pytest.warns(UserWarning, match="out of memory with 48 windows at once; going on with 24"):
        found = in_order(incremental.occluded(PICTURE, GRID, COVER, batch_size=48))
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    sizes = [len(outputs) for _, outputs in incremental.occluded(PICTURE, GRID, COVER)]
    assert max(sizes) <= most  # the next picture starts with what fits
    if most < 8:
        with pytest.warns(UserWarning, match="out of memory"):
            plain = in_order(occluded_outputs(hungry, PICTURE, GRID, COVER))
        assert torch.equal(plain, expected) or (plain - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_sampled_windows_go_on_too() -> None:
    expected = in_order(occluded_outputs(network(1000), PICTURE, GRID, COVER))
    run = IncrementalNetwork(network(5)).sampler(PICTURE, GRID, COVER, margin=None, batch_size=20)
    with pytest.warns(UserWarning, match="out of memory"):
        found = run(torch.arange(len(GRID)).numpy())
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_where_one_window_is_too_many_the_error_is_told() -> None:
    with pytest.raises(torch.OutOfMemoryError), pytest.warns(UserWarning, match="going on with 1"):
        list(occluded_outputs(network(0), PICTURE, GRID, COVER))


def test_other_errors_are_not_taken_for_it() -> None:
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator"))


REAL = """
import resource, warnings, torch
from torch import nn
from occluscope.engine.covers import constant_cover
from occluscope.engine.naive import occluded_outputs
from occluscope.engine.ordering import in_order
from occluscope.windows import WindowGrid

torch.set_num_threads(1)
module = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
picture, grid = torch.randn(3, 512, 512), WindowGrid.over((512, 512), (128, 128), (64, 64))
cover = constant_cover(torch.zeros(3, 1, 1), (128, 128))
expected = in_order(occluded_outputs(module, picture, grid, cover, 1))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 1_200_000_000, -1))  # 64 MiB a window and layer: 49 do not fit
warnings.simplefilter("error")
warnings.filterwarnings("always", "out of memory")
found = in_order(occluded_outputs(module, picture, grid, cover, 49))
assert (found - expected).abs().max() < 1e-5
print("went on")
"""


@pytest.mark.slow
def test_a_host_that_really_has_no_memory_left_goes_on(tmp_path: Path) -> None:
    script = tmp_path / "real.py"
    script.write_text(REAL)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "went on\n", done.stderr
    assert "out of memory with 49 windows at once; going on with 24" in done.stderr

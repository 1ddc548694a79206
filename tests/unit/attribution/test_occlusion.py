"""`occluscope.Occlusion` in Captum's place: its arguments, its numbers."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Occlusion as CaptumOcclusion
from torch import Tensor, nn

import occluscope
from occluscope.models.loading import LoadedModel

LIMIT = 1e-5


def network(outputs: int = 5) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, 2, 1), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, outputs),
    ).eval()  # fmt: skip


PICTURES = torch.randn(2, 3, 30, 41, generator=torch.Generator().manual_seed(1))
CASES: dict[str, dict[str, Any]] = {
    "steps that land on the edge": {"sliding_window_shapes": (3, 6, 5), "strides": (3, 6, 4), "target": 1},
    "windows that hang over it": {"sliding_window_shapes": (3, 7, 9), "strides": (3, 5, 7), "target": 1},
    "one stride for all": {"sliding_window_shapes": (3, 8, 8), "strides": 3, "target": 0},
    "some channels only": {"sliding_window_shapes": (1, 8, 8), "strides": (1, 8, 8), "target": 2},
    "channels that hang over": {"sliding_window_shapes": (2, 8, 8), "strides": (2, 8, 8), "target": 2},
    "the whole picture": {"sliding_window_shapes": (3, 30, 41), "strides": 2, "target": 2},
    "a number as baseline": {"sliding_window_shapes": (3, 9, 9), "strides": (3, 6, 6), "target": 1, "baselines": 0.7},
    "a baseline for each": {
        "sliding_window_shapes": (3, 9, 9), "strides": (3, 6, 6), "target": 1, "baselines": PICTURES.flip(0) / 2
    },
    "one baseline picture": {
        "sliding_window_shapes": (3, 9, 9), "strides": (3, 6, 6), "target": 1, "baselines": PICTURES[:1] * 2
    },
    "targets as a list": {"sliding_window_shapes": (3, 9, 9), "strides": (3, 9, 9), "target": [4, 0]},
    "targets as a tensor": {"sliding_window_shapes": (3, 9, 9), "strides": (3, 9, 9), "target": torch.tensor([3, 1])},
    "a target in a tuple": {"sliding_window_shapes": (3, 9, 9), "strides": (3, 9, 9), "target": (2,)},
    "many at once": {
        "sliding_window_shapes": (3, 9, 9), "strides": (3, 9, 9), "target": 2, "perturbations_per_eval": 8
    },
}  # fmt: skip


def agree(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert theirs.abs().max() > 1e-3
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), atol=LIMIT)


@pytest.mark.parametrize("name", CASES)
def test_captums_numbers(name: str) -> None:
    theirs = CaptumOcclusion(network()).attribute(PICTURES, **CASES[name])
    agree(occluscope.Occlusion(network()).attribute(PICTURES, **CASES[name]), theirs)


def test_no_target_for_one_number_a_picture() -> None:
    module = nn.Sequential(network(1), nn.Flatten(0))
    arguments: dict[str, Any] = {"sliding_window_shapes": (3, 9, 9), "strides": (3, 9, 9)}
    theirs = CaptumOcclusion(module).attribute(PICTURES, **arguments)
    agree(occluscope.Occlusion(module.eval()).attribute(PICTURES, **arguments), theirs)


def test_no_strides_is_one() -> None:
    picture = PICTURES[:1, :, :7, :8]
    arguments: dict[str, Any] = {"sliding_window_shapes": (3, 3, 4), "target": 1}
    theirs = CaptumOcclusion(network()).attribute(picture, **arguments)
    agree(occluscope.Occlusion(network()).attribute(picture, show_progress=True, **arguments), theirs)


def test_on_a_real_model(lite0: LoadedModel) -> None:
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    arguments: dict[str, Any] = {"sliding_window_shapes": (3, 60, 60), "strides": (3, 45, 50), "target": 281}
    with torch.inference_mode():
        theirs = CaptumOcclusion(lite0.module).attribute(x, perturbations_per_eval=8, **arguments)
    ours = occluscope.Occlusion(lite0.module).attribute(x, **arguments)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=LIMIT)


def test_a_model_that_cannot_be_traced_gives_them_too() -> None:
    class Undecided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.inner(x if x.sum() > -1e9 else -x)
            return y

    module = Undecided().eval()
    arguments: dict[str, Any] = {"sliding_window_shapes": (3, 9, 9), "strides": (3, 9, 9), "target": 2}
    with pytest.warns(UserWarning, match="whole forward passes"):
        ours = occluscope.Occlusion(module).attribute(PICTURES, **arguments)
    agree(ours, CaptumOcclusion(module).attribute(PICTURES, **arguments))


def test_a_model_that_tracing_misreads_gives_them_too() -> None:
    class Aliased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: Tensor) -> Tensor:
            y = x * 1.0
            z = y
            y += 0.5  # changes z as well, which torch.fx does not see
            out: Tensor = self.inner(z * 2)
            return out

    module = Aliased().eval()
    arguments: dict[str, Any] = {"sliding_window_shapes": (3, 9, 9), "strides": (3, 9, 9), "target": 2}
    with pytest.warns(UserWarning, match="other numbers than the model; whole forward passes"):
        ours = occluscope.Occlusion(module).attribute(PICTURES, **arguments)
    agree(ours, CaptumOcclusion(module).attribute(PICTURES, **arguments))


class Heads(nn.Module):
    """Two outputs of very different size; the second depends on all that can be changed of it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first, self.large, self.small = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 1, 3), nn.Conv2d(8, 1, 3)
        self.stride, self.settings, self.factor = (1, 1), {"times": 1.0}, torch.tensor(1.0)

    def forward(self, x: Tensor, times: float = 1.0) -> Tensor:
        y = nn.functional.relu(self.first(x))
        z = nn.functional.conv2d(y, self.small.weight, self.small.bias, self.stride)
        z = z.mean((2, 3)) * self.settings["times"] * self.factor
        return torch.cat([self.large(y).mean((2, 3)) * 1e6, z], 1) * times


def weights_through_data(module: Heads) -> None:
    module.small.weight.data.mul_(-2)


def weights_in_order(module: Heads) -> None:
    module.small.weight.data.copy_(module.small.weight.data.flip(1))


def a_tuple(module: Heads) -> None:
    module.stride = (3, 3)


def an_entry(module: Heads) -> None:
    module.settings["times"] = 4.0


def a_tensor(module: Heads) -> None:
    module.factor.mul_(5)


@pytest.mark.parametrize("change", [weights_through_data, weights_in_order, a_tuple, an_entry, a_tensor])
@pytest.mark.parametrize("between", [False, True])
def test_what_was_changed_of_a_model_counts_at_the_next_call(change: Callable[[Heads], None], between: bool) -> None:
    """Also where another call, which is not followed, lies between."""
    module = Heads().eval().requires_grad_(requires_grad=False)
    ours = occluscope.Occlusion(module)
    arguments: dict[str, Any] = {"sliding_window_shapes": (3, 9, 9), "strides": (3, 9, 9), "target": 1}
    ours.attribute(PICTURES, **arguments)
    change(module)
    if between:
        with pytest.warns(UserWarning, match="additional_forward_args"):
            ours.attribute(PICTURES, additional_forward_args=1.0, **arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is followed anew
        found = ours.attribute(PICTURES, **arguments)
    agree(found, CaptumOcclusion(module).attribute(PICTURES, **arguments))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_buffer_that_holds_no_dense_numbers(device: str) -> None:
    """A graph's sparse adjacency; a meta tensor, of a shape alone."""
    module = network()
    sparse = torch.sparse_coo_tensor(torch.tensor([[0, 1], [1, 0]]), torch.ones(2), (2, 2))
    module.register_buffer("adjacency", sparse if device == "cpu" else torch.empty(3, device="meta"))
    arguments: dict[str, Any] = {"sliding_window_shapes": (3, 9, 9), "strides": (3, 9, 9), "target": 1}
    ours = occluscope.Occlusion(module).attribute(PICTURES, **arguments)
    agree(ours, CaptumOcclusion(network()).attribute(PICTURES, **arguments))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sliding_window_shapes": (3, 99, 9)}, "larger than a sample"),
        ({"sliding_window_shapes": (9, 9)}, "3 positive whole numbers"),
        ({"strides": (3, 10, 9)}, "values would be left out"),
        ({"strides": (0, 1, 1)}, "3 positive whole numbers"),
        ({"baselines": PICTURES[:, :2]}, "baselines must be a number"),
        ({"target": [1, 2, 3]}, "3 entries for outputs"),
        ({"target": "cat"}, "target must be a class"),
        ({"target": (1, 2)}, "does not fit"),
        ({"target": torch.tensor([[1, 0]])}, "as a tensor has one axis"),
        ({"inputs": [PICTURES]}, "inputs must be a tensor"),
        ({"inputs": torch.tensor(1.0)}, "inputs must be a tensor"),
        ({"inputs": (PICTURES, PICTURES)}, "3 shapes for 2 inputs"),
        ({"strides": "3"}, "3 positive whole numbers"),
        ({"baselines": (0, 0)}, "one for each of the 1 inputs"),
        ({"baselines": "grey"}, "baselines must be a number"),
        ({"perturbations_per_eval": 0}, "perturbations_per_eval must be a whole number"),
    ],
)
def test_what_it_cannot_do_is_a_clear_error(change: dict[str, Any], message: str) -> None:
    arguments = {"inputs": PICTURES, "sliding_window_shapes": (3, 9, 9), "strides": (3, 9, 9), "target": 1, **change}
    with pytest.raises(ValueError, match=message) as caught:
        occluscope.Occlusion(network()).attribute(**arguments)
    assert isinstance(caught.value, AssertionError)  # what Captum raises


def test_importing_the_package_loads_no_torch() -> None:
    check = (
        "import sys, occluscope; assert 'torch' not in sys.modules; occluscope.Occlusion; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True)

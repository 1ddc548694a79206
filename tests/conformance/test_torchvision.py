"""Exact means exact: every torchvision classification model, occluded by the engine and by whole forward passes."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from occluscope.engine.covers import constant_cover
from occluscope.engine.following import Followed
from occluscope.engine.naive import occluded_outputs
from occluscope.engine.ordering import in_order
from occluscope.windows import WindowGrid
from tests.conformance.state import state
from tests.effort import some_of

LARGEST_ERROR = 1e-5  # largest difference of a logit relative to the largest logit, float32
OPTIONS: dict[str, dict[str, Any]] = {
    "inception_v3": {"transform_input": True, "init_weights": False},
    "googlenet": {"transform_input": True, "init_weights": False},
}
SIZES = {"inception_v3": (99, 107), "maxvit_t": (224, 224)}
# Variance of the weights times their number: with 1.5 a window is felt at the end, and rounding is not blown up
# on the way, but for families in which so many sums follow each other that it would be.
GAINS = {"efficientnet_v2": 0.9, "maxvit": 0.9}
FIXED_SIZE = ("vit", "swin", "maxvit")
EVERY = models.list_models(module=models)
ONE_OF_EACH_FAMILY = (  # and of each kind of block in it; the rest are the same, wider and deeper
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18",
    "resnet50", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_0", "squeezenet1_1", "swin_t", "swin_v2_t",
    "vgg11", "vgg11_bn", "vit_b_32", "wide_resnet50_2",
)  # fmt: skip


def made(name: str) -> tuple[nn.Module, tuple[int, int]]:
    """The architecture with random weights that let the picture through, and an input size small for it."""
    torch.manual_seed(0)
    options = dict(OPTIONS.get(name, {}))
    size = SIZES.get(name, (64, 64) if name.startswith(FIXED_SIZE) else (64, 83))
    if name.startswith("vit"):
        size = (56, 56) if name == "vit_h_14" else (64, 64)
        options["image_size"] = size[0]
    module: nn.Module = models.get_model(name, weights=None, **options)
    gain = next((gain for family, gain in GAINS.items() if name.startswith(family)), 1.5)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=(gain / layer.weight[0].numel()) ** 0.5)
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
    for parameter_name, parameter in module.named_parameters():
        if parameter_name.endswith("layer_scale"):
            nn.init.uniform_(parameter, 0.2, 0.5)
    return module.eval().requires_grad_(requires_grad=False), size


@pytest.mark.parametrize("name", some_of(EVERY, ONE_OF_EACH_FAMILY))
def test_the_engine_gives_the_models_own_logits(name: str, record_property: Any) -> None:
    module, size = made(name)
    picture = torch.randn(3, *size)
    grid = WindowGrid.over(size, (13, 17), (29, 41))  # neither stride lands on the edge
    cover = constant_cover(torch.full((3, 1, 1), 0.25), grid.window)
    before, kept = state(module), picture.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that it is not followed
        followed = Followed(module, picture)
    with torch.inference_mode():
        expected = in_order(occluded_outputs(module, picture, grid, cover))
        unoccluded = module(picture[None])
        logits = in_order(followed.occluded(picture, grid, cover))
        again = module(picture[None])
    largest = expected.abs().max()
    error = float((logits - expected).abs().max() / largest)
    record_property("error", error)
    assert (expected - unoccluded).abs().max() > 1e-4 * largest  # the windows are felt
    assert error <= LARGEST_ERROR
    assert followed.reason is None
    assert torch.equal(picture, kept)
    assert torch.equal(again, unoccluded)
    after = state(module)
    assert after.keys() == before.keys()
    assert [what for what in before if after[what] != before[what]] == []

"""Families that torchvision has none of, from timm: run as they run by themselves, and left as they were."""

import pytest
import timm
import torch
from torch import Tensor

from occluscope.engine.covers import constant_cover, covered
from occluscope.engine.following import Followed
from occluscope.windows import WindowGrid
from tests.conformance.state import state

# Each with the size of its input and whether it can be followed. The first three take views of maps that exist only
# where those lie as the model itself lays them.
MODELS = {
    "halonet26t": (256, True),
    "maxxvit_rmlp_nano_rw_256": (256, True),
    "hieradet_small": (224, True),
    "levit_128s": (224, True),
    "ghostnet_100": (96, True),
    "convnext_atto": (96, True),
    "poolformer_s12": (96, True),
    "edgenext_xx_small": (96, True),
    "mobilevit_xxs": (96, False),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:.*whole forward passes are used instead")
def test_windows_come_out_as_the_model_itself_gives_them(name: str) -> None:
    length, is_followed = MODELS[name]
    torch.manual_seed(0)
    module = timm.create_model(name, pretrained=False, num_classes=10).eval().requires_grad_(requires_grad=False)
    for parameter_name, parameter in module.named_parameters():  # timm leaves some uninitialised
        if parameter.dim() > 1:
            parameter.normal_(std=(1 / parameter[0].numel()) ** 0.5)
        elif parameter_name.endswith("bias"):
            parameter.normal_(std=0.1)
    picture = torch.randn(3, length, length)
    grid = WindowGrid.over((length, length), (length // 5, length // 4), (length // 3, length // 3))
    cover = constant_cover(torch.full((3, 1, 1), 0.25), grid.window)
    before = state(module)
    with torch.no_grad():
        expected = torch.cat(
            [
                module(covered(picture, one, cover(one)).contiguous())
                for one in torch.from_numpy(grid.origins())[:, None]
            ]
        )
    followed = Followed(module, picture)
    found: dict[int, Tensor] = {}
    for positions, outputs in followed.occluded(picture, grid, cover):
        found.update(zip(positions.tolist(), outputs, strict=True))
    assert (followed.reason is None) == is_followed, followed.reason
    got = torch.stack([found[place] for place in range(len(grid))])
    assert float((expected - expected[:1]).abs().max()) > 1e-4 * float(expected.abs().max())  # windows are felt
    assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert state(module) == before

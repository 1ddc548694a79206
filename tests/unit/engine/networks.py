"""Small networks, each with a forward pass that a test writes, and what windows over them must give."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from occluscope.engine.covers import constant_cover, covered
from occluscope.engine.following import Followed
from occluscope.windows import WindowGrid

SIZE = (33, 29)
GRID = WindowGrid.over(SIZE, (7, 8), (5, 6))
COLOUR = torch.tensor([0.5, -1.0, 0.25]).view(3, 1, 1)
CHANNELS = 8
Forward = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """Layers for a forward pass that a test writes."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, CHANNELS, 3, padding=1), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.norm, self.relu = nn.BatchNorm2d(CHANNELS), nn.ReLU(inplace=True)
        self.leaky, self.dropout = nn.LeakyReLU(0.1, inplace=True), nn.Dropout(0.5, inplace=True)
        self.linear = nn.Linear(CHANNELS, 5)
        self.passed = 0
        nn.init.normal_(self.norm.running_mean)  # type: ignore[arg-type]
        nn.init.uniform_(self.norm.running_var, 0.5, 2)  # type: ignore[arg-type]
        self._forward = forward

    def head(self, x: Tensor) -> Tensor:
        scores: Tensor = self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return scores

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def residual(net: Net, x: Tensor) -> Tensor:
    identity = net.one(x)
    y = functional.relu(net.two(identity))
    y.add_(identity)
    return net.head(net.two(y))


def at_random(net: Net, x: Tensor) -> Tensor:
    return net.head(functional.dropout(net.one(x), 0.5))


def made(forward: Forward, dtype: torch.dtype = torch.float32) -> Net:
    torch.manual_seed(0)
    return Net(forward).eval().to(dtype).requires_grad_(requires_grad=False)


def expected(net: Net, picture: Tensor) -> Tensor:
    """Each window by itself, in the model as its author runs it."""
    outputs = []
    cover = constant_cover(COLOUR.to(picture.dtype), GRID.window)
    with torch.no_grad():
        for origin in torch.from_numpy(GRID.origins())[:, None]:
            outputs.append(net(covered(picture, origin, cover(origin)).contiguous()))  # noqa: PERF401
    return torch.cat(outputs)


def quietly(net: Net, picture: Tensor) -> tuple[Followed, list[str]]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        return Followed(net, picture), [str(one.message) for one in told]


def windows(followed: Followed, picture: Tensor) -> Tensor:
    """What came last for each window counts."""
    found: dict[int, Tensor] = {}
    cover = constant_cover(COLOUR.to(picture.dtype), GRID.window)
    for positions, outputs in followed.occluded(picture, GRID, cover):
        found.update(zip(positions.tolist(), outputs, strict=True))
    return torch.stack([found[place] for place in range(len(GRID))])


def state(net: nn.Module) -> dict[str, Any]:
    """Everything of a model that another could see."""
    seen: dict[str, Any] = {name: value.clone() for name, value in net.state_dict().items()}
    for name, part in net.named_modules():
        seen[f"{name}: is"] = (type(part), part.training, getattr(part, "inplace", None), sorted(vars(part)))
        seen[f"{name}: hooks"] = (len(part._forward_hooks), len(part._forward_pre_hooks))
        seen[f"{name}: plain"] = {key: value for key, value in vars(part).items() if isinstance(value, int | str)}
    for name, parameter in net.named_parameters():
        seen[f"{name}: memory"] = (parameter.data_ptr(), parameter.requires_grad, parameter.grad)
    return seen


def assert_same(now: dict[str, Any], before: dict[str, Any]) -> None:
    assert now.keys() == before.keys()
    for name, value in before.items():
        assert torch.equal(now[name], value) if isinstance(value, Tensor) else now[name] == value, name

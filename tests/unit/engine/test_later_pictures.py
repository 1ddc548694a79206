"""Pictures that come after the one on which a followed model was held against the model itself."""

import warnings

import pytest
import torch
from PIL import Image
from skimage import data
from torch import Tensor

from occluscope import Occlusion
from occluscope.engine.covers import constant_cover
from occluscope.engine.following import Followed
from occluscope.models import catalogue
from occluscope.models.loading import load
from occluscope.windows import WindowGrid
from tests.unit.engine.networks import GRID, SIZE, Net, expected, made, windows

LARGE = 1e6


def plain(net: Net, x: Tensor) -> Tensor:
    return net.head(net.two(net.relu(net.one(x))))


def with_a_large_output(net: Net, x: Tensor) -> Tensor:
    """The first is far larger than the others."""
    return plain(net, x) * torch.tensor([LARGE, 1, 1, 1, 1])


def fail_once(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a picture may bring it on which following goes wrong."""

    def broken(*_: object) -> None:
        raise IndexError("a kernel's own fault")

    monkeypatch.setattr(followed.network, "occluded", broken)


def test_a_picture_that_cannot_be_followed_does_not_end_following(monkeypatch: pytest.MonkeyPatch) -> None:
    net, pictures = made(plain), torch.randn(3, 3, *SIZE)
    followed = Followed(net, pictures[0])
    fail_once(followed, monkeypatch)
    with pytest.warns(UserWarning, match="a kernel's own fault"):
        torch.testing.assert_close(windows(followed, pictures[0]), expected(net, pictures[0]))
    assert followed.reason is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(windows(followed, pictures[1]), expected(net, pictures[1]), rtol=1e-5, atol=1e-6)
    assert followed.reason is None


def test_following_that_goes_wrong_twice_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    net, pictures = made(plain), torch.randn(3, 3, *SIZE)
    followed = Followed(net, pictures[0])
    for picture in pictures[:2]:
        followed.renew(picture)
        fail_once(followed, monkeypatch)
        with pytest.warns(UserWarning, match="a kernel's own fault"):
            windows(followed, picture)
    torch.testing.assert_close(windows(followed, pictures[2]), expected(net, pictures[2]))
    assert followed.network is None
    assert followed.reason is not None


def test_a_picture_that_holds_nan_leaves_the_next_ones_right_and_followed() -> None:
    net, pictures = made(plain), torch.randn(2, 3, *SIZE)
    pictures[0, :, 3:5, 3:5] = torch.nan
    occlusion = Occlusion(net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for picture in pictures:
            found = occlusion.attribute(picture[None], (3, 11, 29), (3, 11, 29), target=1)
    for band in range(3):
        covered = pictures[1].clone()
        covered[:, 11 * band : 11 * band + 11] = 0
        drop = net(pictures[1][None])[0, 1] - net(covered[None])[0, 1]
        torch.testing.assert_close(found[0, 0, 11 * band], drop.expand(29), rtol=0, atol=2e-6)
    assert occlusion._followed is not None
    assert occlusion._followed.reason is None


def test_a_small_output_beside_a_large_one_is_held_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off by a hundredth of itself it is off by far less than the large one's rounding."""
    net, picture = made(with_a_large_output), torch.randn(3, *SIZE)
    followed = Followed(net, picture)
    assert followed.network is not None
    usual = followed.network.occluded

    def off(*args: object) -> object:
        for positions, outputs in usual(*args):  # type: ignore[arg-type]
            yield positions, outputs * torch.tensor([1.0, 1.01, 1.0, 1.0, 1.0])

    monkeypatch.setattr(followed.network, "occluded", off)
    with pytest.warns(UserWarning, match="gives other numbers"):
        got = windows(followed, picture)
    torch.testing.assert_close(got, expected(net, picture))


def test_an_output_near_zero_by_cancelling_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """It differs by the rounding of what cancels, of which nothing was seen where the output was zero altogether."""
    net = made(lambda net, x: torch.relu(plain(net, x)))
    with torch.no_grad():
        net.linear.bias.add_(1)  # all outputs are above zero
        pictures = torch.randn(8, 3, *SIZE).unbind()
        lowest, *_, highest = sorted(pictures, key=lambda picture: float(net(picture[None])[0, 0]))
        net.linear.bias[0] -= expected(net, highest)[len(GRID) // 2, 0] - 1e-6
    followed = Followed(net, lowest)
    assert float(expected(net, lowest)[:, 0].max()) == 0
    assert followed.network is not None
    usual = followed.network.occluded

    def rounded(*args: object) -> object:
        for positions, outputs in usual(*args):  # type: ignore[arg-type]
            yield positions, outputs + 1e-7

    monkeypatch.setattr(followed.network, "occluded", rounded)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        windows(followed, highest)
    assert followed.reason is None


@pytest.mark.slow
@pytest.mark.parametrize("depth", [3, 12, 30])
def test_layers_that_are_observed_do_not_end_following(depth: int) -> None:
    """The sum of a channel may be the small difference of large activations."""
    model = load(catalogue.card("efficientnet_lite0"), torch.device("cpu"))
    coffee = Image.fromarray(data.coffee())  # type: ignore[no-untyped-call]
    picture = model.tensor(model.card.preparation.prepare(coffee).rgb)
    followed = model.followed((model.card.map_layers()[depth].name,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grid = WindowGrid.over(model.card.input_size, (32, 32), (48, 48))
        for _ in followed.occluded(picture, grid, constant_cover(torch.zeros(3, 1, 1), grid.window)):
            pass
    assert followed.reason is None

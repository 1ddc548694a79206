import re
from pathlib import Path

import numpy as np
import pytest
import torch

from occluscope.errors import WeightsUnavailableError
from occluscope.models import card
from occluscope.models.architectures import without_weights
from occluscope.models.loading import LoadedModel, load
from tests.conftest import NOWHERE


def test_weights_that_cannot_be_had_name_the_folder_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No network is asked: nothing listens where the proxy should be."""
    torch.hub.set_dir(str(tmp_path))
    monkeypatch.setenv("https_proxy", NOWHERE)
    expected = rf"put squeezenet1_1-.*\.pth into {re.escape(str(tmp_path / 'checkpoints'))}"
    with pytest.raises(WeightsUnavailableError, match=expected):
        load(card("squeezenet1_1"))


def test_weights_in_the_folder_are_loaded_without_a_network(tmp_path: Path) -> None:
    """squeezenet1_1's architecture with weights of our own, under the name its card's weights have."""
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    own = squeezenet1_1(weights=None).state_dict()
    torch.hub.set_dir(str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(own, tmp_path / "checkpoints" / Path(SqueezeNet1_1_Weights.DEFAULT.url).name)
    loaded = load(card("squeezenet1_1"), torch.device("cpu"))
    assert torch.equal(loaded.module.state_dict()["features.0.weight"], own["features.0.weight"])
    assert not loaded.module.training


def test_a_bare_network_takes_no_memory() -> None:
    big = without_weights("torchvision", "regnet_y_128gf", "IMAGENET1K_SWAG_E2E_V1")
    assert {parameter.device.type for parameter in big.parameters()} == {"meta"}
    assert sum(parameter.numel() for parameter in big.parameters()) > 600_000_000


def test_pictures_are_normalised_as_the_card_says(lite0: LoadedModel) -> None:
    rgb = np.array([[[0, 127, 255]]], dtype=np.uint8)
    expected = (np.array([0, 127, 255]) / 255 - 0.498) / 0.502
    np.testing.assert_allclose(lite0.tensor(rgb)[:, 0, 0], expected, atol=1e-6)
    np.testing.assert_allclose(lite0.colour((0, 127, 255))[:, 0, 0], expected, atol=1e-6)

import numpy as np
import torch

from occluscope.engine.covers import constant_cover
from occluscope.models import card
from occluscope.models.loading import LoadedModel, load
from occluscope.windows import WindowGrid
from workers.model_cache import ModelCache, model_bytes, share_of_memory

ONE, TWO, THREE = "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"


def test_a_model_is_loaded_once() -> None:
    models = ModelCache()
    assert models.get(ONE) is models.get(ONE)
    assert models.names == [ONE]


def test_what_was_used_longest_ago_goes_when_memory_is_over() -> None:
    models = ModelCache(sum(model_bytes(load(card(name))) for name in (ONE, THREE)))
    models.get(ONE)
    models.get(TWO)
    models.get(ONE)
    assert models.names == [TWO, ONE]
    models.get(THREE)
    assert models.names == [ONE, THREE]


def test_the_model_asked_for_is_loaded_whatever_its_size() -> None:
    models = ModelCache(1)
    assert models.get(ONE).card.name == ONE
    assert models.get(TWO).card.name == TWO
    assert models.names == [TWO]
    models.clear()
    assert models.names == []


def test_by_default_a_share_of_the_memory_there_is() -> None:
    assert 2**27 < share_of_memory() < 2**40


def occluded(model: LoadedModel) -> np.ndarray:
    """One picture's windows."""
    picture = torch.zeros(3, *model.card.input_size, dtype=model.dtype)
    grid = WindowGrid.over(model.card.input_size, (56, 56), (56, 56))
    cover = constant_cover(torch.ones(3, 1, 1, dtype=model.dtype), grid.window)
    batches = [outputs for _, outputs in model.followed().occluded(picture, grid, cover)]
    return torch.cat(batches).float().numpy()


def test_all_that_a_model_holds_is_counted_and_its_pictures_are_forgotten() -> None:
    models = ModelCache(2**40)
    model = models.get(ONE)
    weights = models.held_bytes
    parameters = 4 * sum(parameter.numel() for parameter in model.module.parameters())
    assert 1.0 < weights / parameters < 1.05  # batch norm's buffers beside them
    before = occluded(model)
    with_picture = models.held_bytes
    models.settle()
    prepared = models.held_bytes
    assert with_picture > 1.5 * prepared > 1.5 * weights
    np.testing.assert_array_equal(occluded(model), before)
    assert model.half.module is not model.module
    assert models.held_bytes > with_picture + 0.4 * weights


def test_where_one_model_alone_is_over_the_limit_only_its_weights_stay() -> None:
    models = ModelCache(1)
    model = models.get(ONE)
    weights = models.held_bytes
    occluded(model)
    occluded(model.half)
    models._memory_when_counted = 0
    models.settle()
    assert models.names == [ONE]
    assert models.held_bytes == weights

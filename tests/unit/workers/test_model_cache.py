from occluscope.models import card
from occluscope.models.loading import load
from workers.model_cache import ModelCache, share_of_memory, weight_bytes

ONE, TWO, THREE = "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"


def test_a_model_is_loaded_once() -> None:
    models = ModelCache()
    assert models.get(ONE) is models.get(ONE)
    assert models.names == [ONE]


def test_weights_are_counted_twice_for_their_prepared_copy() -> None:
    model = load(card(ONE))
    parameters = sum(parameter.numel() for parameter in model.module.parameters())
    assert 1.0 < weight_bytes(model) / (2 * 4 * parameters) < 1.05  # batch norm's buffers beside them


def test_what_was_used_longest_ago_goes_when_memory_is_over() -> None:
    models = ModelCache(sum(weight_bytes(load(card(name))) for name in (ONE, THREE)))
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

import json

import pytest

from occluscope.models import card, cards
from occluscope.models.write_cards import card_text, imagenet_labels, made_cards

pytestmark = pytest.mark.slow


def test_the_files_are_what_the_installed_packages_give() -> None:
    """After torchvision has changed: `make cards`."""
    made = {made.name: card_text(made) for made in made_cards()}
    assert {name: card_text(stored) for name, stored in cards().items()} == made
    assert len(made) == 83


def test_labels_are_imagenets() -> None:
    assert list(card("efficientnet_lite0").labels) == imagenet_labels()
    assert len(imagenet_labels()) == 1000


def test_the_bundled_model_comes_first() -> None:
    assert next(iter(cards())) == "efficientnet_lite0"


def test_layers_have_the_shapes_that_the_model_gives() -> None:
    shapes = {layer.name: layer.shape for layer in card("resnet18").layers}
    assert shapes["layer1"] == (64, 56, 56)
    assert shapes["avgpool"] == (512, 1, 1)
    assert shapes["fc"] == (1000,)


def test_models_keep_their_own_input_size() -> None:
    assert card("vit_h_14").input_size == (518, 518)
    assert card("inception_v3").input_size == (299, 299)


def test_an_unknown_model_brings_close_names() -> None:
    with pytest.raises(LookupError, match="close to it: resnet50"):
        card("resnet5")


def test_a_card_is_plain_json() -> None:
    content = json.loads(card_text(card("alexnet")))
    assert content["weights"] == "IMAGENET1K_V1"
    assert content["preparation"]["mean"] == [0.485, 0.456, 0.406]


def test_a_label_that_differs_only_in_capitals_is_told_apart() -> None:
    """ImageNet has a dog and a jacket of this name."""
    lite0 = card("efficientnet_lite0")
    assert (lite0.class_index("Cardigan"), lite0.class_index("cardigan")) == (264, 474)


def test_a_name_of_absurd_length_is_refused_without_a_search() -> None:
    """The time that a search for close names takes grows with their length."""
    for look in (card, lambda name: card("resnet18").layer(name), lambda name: card("resnet18").class_index(name)):
        with pytest.raises(LookupError) as caught:
            look("resnet18" * 100_000)
        assert "close to it" not in str(caught.value)
        assert len(str(caught.value)) < 200

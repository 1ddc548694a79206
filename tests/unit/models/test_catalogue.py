"""Models by name and owner, and cards written by running a model."""

import pytest
import torch

from occluscope.models import ModelCard, card, cards
from occluscope.models.architectures import with_weights
from occluscope.models.card import Description
from occluscope.models.catalogue import SOURCES
from occluscope.models.inspecting import inspected
from workers.model_cache import ModelCache


class OneOwners:
    """A source with one model, for one owner alone."""

    module = "occluscope.models.sources.bundled"

    def __init__(self, only: str, its_card: ModelCard) -> None:
        self._only, self._card = only, its_card

    def names(self, owner: str) -> list[str]:
        return [self._card.name] if owner == self._only else []

    def card(self, name: str, owner: str) -> ModelCard | None:
        return self._card if name in self.names(owner) else None


def test_a_model_that_is_one_owners_is_there_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    own = card("efficientnet_lite0").model_copy(update={"name": "flowers", "source": "own"})
    monkeypatch.setitem(SOURCES, "own", OneOwners("ada", own))
    assert card("flowers", "ada") == own
    assert list(cards("ada")) == [*cards(), "flowers"]
    for other in ("", "bob"):
        assert "flowers" not in cards(other)
        with pytest.raises(LookupError, match="there is no model 'flowers'"):
            card("flowers", other)


def test_a_kept_model_is_never_that_of_other_weights_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second version of `flowers` has other weights: what is kept of the first is not given for it."""
    models = ModelCache()
    for architecture in ("efficientnet_lite0", "efficientnet_lite1"):
        version = card(architecture).model_copy(update={"name": "flowers", "source": "own"})
        monkeypatch.setitem(SOURCES, "own", OneOwners("ada", version))
        assert models.get("flowers", "ada").card == version
    assert models.names == ["flowers", "flowers"]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18"])
def test_a_model_that_runs_gives_the_card_that_is_shipped(name: str) -> None:
    """As a worker has it: on its device, with numbers in it; and the model is left without hooks."""
    shipped = card(name)
    if shipped.source == "bundled":
        model = with_weights(shipped)
    else:
        from torchvision.models import get_model

        model = get_model(name, weights=None)
    described = Description(**shipped.model_dump(exclude={"layers"}))
    assert inspected(model.eval().requires_grad_(requires_grad=False), described) == shipped
    assert not any(part._forward_hooks for part in model.modules())
    assert torch.is_grad_enabled()

"""Models kept loaded between units."""

from collections import OrderedDict

from occluscope.models import card
from occluscope.models.loading import LoadedModel, load


class ModelCache:
    """The models used last, at most `size` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()

    def get(self, name: str) -> LoadedModel:
        """A model, loaded now if it is not kept.

        Raises
        ------
        occluscope.errors.WeightsUnavailableError
            Its weights are not here and could not be fetched.
        """
        if name not in self._loaded:
            while len(self._loaded) >= self._size:
                self._loaded.popitem(last=False)
            self._loaded[name] = load(card(name))
        self._loaded.move_to_end(name)
        return self._loaded[name]

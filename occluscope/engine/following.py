"""Whether a model can be followed through its layers, or has to be run by whole passes."""

import warnings
from collections.abc import Sequence

from torch import Tensor, nn

from occluscope.engine.incremental import IncrementalNetwork
from occluscope.engine.tracing import UntraceableError


def follow(module: nn.Module, picture: Tensor, layers: Sequence[str] = ()) -> IncrementalNetwork | None:
    """The network prepared for exact occlusion; none, with a warning, where it cannot be traced faithfully.

    picture: [channels, height, width]; on it the traced network is held against the module.
    layers: as of `IncrementalNetwork`.
    """
    try:
        network = IncrementalNetwork(module, layers)
        network.prepare(picture)
    except UntraceableError as error:
        warnings.warn(f"{error}; whole forward passes are used instead", stacklevel=3)
        return None
    return network

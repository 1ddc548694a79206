"""Attributions of inputs with Captum's arguments and numbers, and faster for models that can be followed."""

from occluscope.attribution.arguments import WrongArgumentError
from occluscope.attribution.occlusion import Occlusion

__all__ = ["Occlusion", "WrongArgumentError"]

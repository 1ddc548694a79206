"""Attributions of inputs, in Captum's place: its arguments, its numbers, sooner where a model can be followed."""

from occluscope.attribution.arguments import WrongArgumentError
from occluscope.attribution.occlusion import Occlusion

__all__ = ["Occlusion", "WrongArgumentError"]

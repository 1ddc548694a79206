"""Where a model comes from: its card (no torch) and its weights (torch)."""

from occluscope.models.card import Layer, ModelCard
from occluscope.models.catalogue import card, cards

__all__ = ["Layer", "ModelCard", "card", "cards"]

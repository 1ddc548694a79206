"""The names of `occluscope.pictures.preparation`, where they were before."""

from occluscope.pictures.preparation import Frame, Interpolation, Picture, Preparation

__all__ = ["Frame", "Interpolation", "Picture", "Preparation"]

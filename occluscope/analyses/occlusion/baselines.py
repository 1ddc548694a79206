"""occlusion: what covers a window."""

import numpy as np
import torch
from torch import Tensor

from occluscope.analyses.occlusion.parameters import OcclusionParameters
from occluscope.engine.covers import Cover, blurred, constant_cover, gaussian_cover, mean_cover, picture_cover
from occluscope.models.loading import LoadedModel
from occluscope.pictures.preparation import Picture
from occluscope.windows import Size


def cover(model: LoadedModel, picture: Picture, clear: Tensor, params: OcclusionParameters, size: Size) -> Cover:
    """The baseline for windows of one size. clear: the picture, normalised, [channels, height, width]."""
    match params.baseline:
        case "window_mean":
            return mean_cover(clear, size)
        case "blur":
            return picture_cover(blurred(clear, params.baseline_sigma), size)
        case "noise":
            random = np.random.default_rng(params.baseline_seed)
            noise = random.integers(0, 256, picture.rgb.shape, dtype=np.uint8)
            return picture_cover(model.tensor(noise), size)
        case "gaussian":
            return gaussian_cover(clear, size)
        case _:
            return constant_cover(_colour(model, picture, params), size)


def _colour(model: LoadedModel, picture: Picture, params: OcclusionParameters) -> Tensor:
    """The colour of a baseline of one colour: [3, 1, 1], normalised."""
    if params.baseline == "image_mean":
        return model.colour(picture.rgb.mean(axis=(0, 1)).tolist())
    if params.baseline == "value":
        return model.colour(params.baseline_value or (0, 0, 0))
    return torch.zeros(3, 1, 1, device=model.device, dtype=model.dtype)

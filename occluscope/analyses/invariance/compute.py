"""invariance: runs the model on changed copies of a picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from occluscope.analyses.contract import Outcome, Report, Unit
from occluscope.analyses.invariance.combining import means
from occluscope.analyses.invariance.responses import Response
from occluscope.analyses.invariance.spec import ChosenFamily, InvarianceParameters, single_pixels
from occluscope.analyses.invariance.transforms import Transformations
from occluscope.analyses.layer_choice import layer_names
from occluscope.analyses.target_choice import head_of, index_of
from occluscope.engine.layers import observed
from occluscope.engine.memory import in_batches
from occluscope.models.heads import Head
from occluscope.models.loading import LoadedModel
from occluscope.pictures.preparation import Picture
from occluscope.results import Metric, NamedResult, Strip, Variant

__all__ = ["compute", "means"]

T = TypeVar("T")
_BATCH: Final = 8  # copies in one batch
_STRIP: Final = 9  # copies shown above a curve
_THUMBNAIL: Final = 72  # pixels


def compute(
    model: LoadedModel, pictures: Sequence[Picture], params: InvarianceParameters, unit: Unit, report: Report
) -> Outcome:
    """Curves of one picture: the score p that is followed, and for each layer ‖f(x) − f(Tx)‖ and 1 − cos(f(x), f(Tx)).

    Kept for each family: the scores (named ``probability``), float64 [strengths]; the distances, float64 [layers, 2,
    strengths]; and for each layer the mean activations of its units, float32 [strengths, units]. Kept for pictures
    that are compared with each other: the features of the unchanged picture, float32 [features].
    """
    (picture,) = pictures
    return _Run(model, picture, params, unit, report).outcome()


@dataclass(frozen=True)
class _Changed:
    """The model's answers to a family's changed copies.

    probability: the score that is followed, [copies]. distances: [layers, 2, copies]. units: mean activations by layer,
    [copies, units]. extra: the score while the picture is shifted pixel by pixel.
    """

    chosen: ChosenFamily
    probability: np.ndarray
    distances: np.ndarray
    units: dict[str, np.ndarray]
    extra: np.ndarray
    strip: Strip
    layers: tuple[str, ...]
    head: Head

    def with_unchanged(self, probability: float) -> Response:
        """The response of all strengths, with the unchanged picture inserted at the identity."""
        place = self.chosen.identity()
        return Response(
            self.chosen,
            self.layers,
            self.head,
            np.insert(self.probability, place, probability),
            np.insert(self.distances, place, 0.0, axis=2),
        )


class _Run:
    """Computes one picture's unit: all families share the unchanged picture's features."""

    def __init__(
        self, model: LoadedModel, picture: Picture, params: InvarianceParameters, unit: Unit, report: Report
    ) -> None:
        self._model, self._picture, self._params, self._unit, self._report = model, picture, params, unit, report
        self._head = head_of(params.target, model.card)
        self._layers = layer_names(params.layers, model.card)
        self._transformations = Transformations(picture, model.card.preparation, params.fill, params.seed)
        self._base: dict[str, Tensor] = {}
        self._norms: dict[str, Tensor] = {}
        self._done = 0

    def outcome(self) -> Outcome:
        scores, units = self._run(self._picture.rgb[None], self._read_base)
        head, image = self._head, self._unit.images[0]
        asked = index_of(self._params.target, head)
        target = int(head.top(scores[0])) if asked is None else asked
        base = float(scores[0, target])
        unchanged = {layer: values.float().cpu().numpy() for layer, values in units.items()}
        self._done = 1
        self._report(self._done)
        results: list[NamedResult] = []
        metrics = [Metric("base_probability", base, head.unit, image)]
        kept: dict[str, np.ndarray] = {}
        if self._unit.payload["compared"]:
            kept = {f"{layer}/features": self._base[layer].float().cpu().numpy() for layer in self._layers}
        for chosen in self._params.families:
            changed = self._family(chosen, target)
            response = changed.with_unchanged(base)
            results.append(
                NamedResult(
                    "curves",
                    response.curves(head.shown(target), chosen.about.title, changed.strip),
                    image,
                    Variant.of(family=chosen.family),
                )
            )
            metrics += response.metrics(image)
            if len(changed.extra):
                of_family = Variant.of(family=chosen.family)
                change = np.abs(np.diff(changed.extra, prepend=base)).mean()
                metrics.append(Metric("single_pixel_change", float(change), head.unit, image, of_family))
            kept[f"{chosen.family}/probability"] = response.probability
            kept[f"{chosen.family}/distances"] = response.distances
            for layer, of_copies in changed.units.items():
                with_unchanged = np.insert(of_copies, response.identity, unchanged[layer], axis=0)
                kept[f"{chosen.family}/{layer}/units"] = with_unchanged
        return Outcome(results, metrics, kept)

    def _family(self, chosen: ChosenFamily, target: int) -> "_Changed":
        """Run all copies of a family."""
        strengths = np.delete(chosen.strengths(), chosen.identity())
        extra = single_pixels(chosen)
        copies: list[np.ndarray] = []
        for copy in self._transformations.copies(chosen.about, np.append(strengths, extra)):
            copies.append(copy)
            self._report(self._done)  # hundreds of copies take a while, and a job may be cancelled meanwhile
        followed: list[Tensor] = []
        distances: dict[str, list[Tensor]] = {layer: [] for layer in self._layers}
        units: dict[str, list[Tensor]] = {layer: [] for layer in self._layers}
        batches = in_batches(len(copies), _BATCH, lambda part: self._run(np.stack(copies[part]), self._compare))
        for part, (scores, read) in batches:
            followed.append(scores[:, target])
            for layer, (of_layer, of_units) in read.items():
                distances[layer].append(of_layer)
                units[layer].append(of_units)
            self._report(self._done + part.stop)
        self._done += len(copies)
        count = len(strengths)
        found = torch.cat(followed).cpu().numpy()
        return _Changed(
            chosen,
            found[:count],
            torch.stack([torch.cat(distances[layer], dim=1) for layer in self._layers]).cpu().numpy()[..., :count],
            {layer: torch.cat(values).float().cpu().numpy()[:count] for layer, values in units.items()},
            found[count:],
            self._strip(chosen, dict(zip(strengths.tolist(), copies, strict=False))),
            tuple(self._layers),
            self._head,
        )

    def _strip(self, chosen: ChosenFamily, copies: dict[float, np.ndarray]) -> Strip:
        """Evenly spaced copies, with the first and the last."""
        strengths = chosen.strengths()
        places = strengths[np.linspace(0, len(strengths) - 1, min(len(strengths), _STRIP)).round().astype(int)]
        return Strip(
            tuple(places.tolist()),
            np.stack([_thumbnail(copies.get(place, self._picture.rgb)) for place in places.tolist()]),
        )

    def _run(self, rgb: np.ndarray, read: Callable[[str, Tensor], T]) -> tuple[Tensor, dict[str, T]]:
        """The scores, float64 [batch, scores], and what `read` returns for each layer's output."""
        with torch.inference_mode():
            outputs, found = observed(self._model.module, self._model.tensor(rgb), self._layers, read)
        return self._head.scores(outputs), found

    def _read_base(self, layer: str, output: Tensor) -> Tensor:
        self._base[layer] = _flat(output)[0].clone()
        self._norms[layer] = torch.linalg.vector_norm(self._base[layer])
        return self._units(layer, output)[0]

    def _compare(self, layer: str, output: Tensor) -> tuple[Tensor, Tensor]:
        """Distances from the unchanged picture, [2, batch], and the units' mean activations, [batch, units]."""
        flat, base = _flat(output), self._base[layer]
        euclidean = torch.linalg.vector_norm(flat - base, dim=1)
        norms = torch.linalg.vector_norm(flat, dim=1) * self._norms[layer]
        cosine = 1 - torch.where(norms > 0, (flat @ base) / norms, 0)
        return torch.stack([euclidean, cosine.clamp(min=0)]).double(), self._units(layer, output)

    def _units(self, layer: str, output: Tensor) -> Tensor:
        """The units' activations averaged over space: [batch, units]."""
        axis = self._model.card.unit_axis(layer) + 1
        return output.movedim(axis, -1).flatten(1, -2).mean(1) if output.ndim > 2 else output.clone()


def _thumbnail(rgb: np.ndarray) -> np.ndarray:
    height, width = rgb.shape[:2]
    size = (_THUMBNAIL, max(round(_THUMBNAIL * height / width), 1))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))


def _flat(output: Tensor) -> Tensor:
    """All features of each picture: [batch, features]; a view if the memory format is channels last."""
    return output.movedim(1, -1).flatten(1)

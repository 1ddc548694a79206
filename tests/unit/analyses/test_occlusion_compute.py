import math
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Occlusion
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from occluscope import analyses
from occluscope.analyses.contract import ImageRef, Outcome
from occluscope.analyses.gathering import Gathered
from occluscope.models import card
from occluscope.models.loading import LoadedModel
from occluscope.pictures.preparation import Frame, Picture
from occluscope.results import ClassMap, Heatmap, Table
from tests.conftest import random_picture

pytestmark = pytest.mark.slow

SPEC = analyses.spec("occlusion")
CPU = torch.device("cpu")


def run(model: LoadedModel, picture: Picture, reports: list[int] | None = None, **params: Any) -> Outcome:
    parsed = SPEC.parse(params)
    (unit,) = SPEC.plan(parsed, model.card, [ImageRef("a", 1, 1)], {})

    def report(done: int, _preview: Any = None) -> None:
        if reports is not None:
            reports.append(done)

    return analyses.compute("occlusion")(model, [picture], parsed, unit, Gathered(report))


def heatmap(outcome: Outcome, name: str) -> np.ndarray:
    result = next(named.result for named in outcome.results if named.name == name)
    assert isinstance(result, Heatmap)
    assert result.values.dtype == np.float32
    return result.values


def metric(outcome: Outcome, name: str) -> float:
    return next(metric.value for metric in outcome.metrics if metric.name == name)


class ChannelSum(nn.Module):
    """Two classes: logits (scale · sum of one channel, 0)."""

    def __init__(self, channel: int, scale: float) -> None:
        super().__init__()
        self.channel, self.scale = channel, scale

    def forward(self, x: Tensor) -> Tensor:
        total = self.scale * x[:, self.channel].sum(dim=(1, 2))
        return torch.stack([total, torch.zeros_like(total)], dim=1)


def analytic(size: tuple[int, int], channel: int = 1, scale: float = 0.01) -> LoadedModel:
    """A model whose answer to every occlusion is known in closed form; its input is the picture / 255 itself."""
    base = card("efficientnet_lite0")
    preparation = base.preparation.model_copy(
        update={"crop": size, "resize": min(size), "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    )
    return LoadedModel(base.model_copy(update={"preparation": preparation}), ChannelSum(channel, scale).eval(), CPU)


def whole(picture: Image.Image) -> Picture:
    return Picture(np.array(picture), Frame(0, 0, picture.width, picture.height), lambda: picture)


@pytest.mark.parametrize(
    ("baseline", "covered"),
    [
        ({}, 0.0),
        ({"baseline": "value", "baseline_value": [9, 200, 7]}, 200 / 255),
        ({"baseline": "image_mean"}, None),
    ],
)
def test_an_analytic_model_gives_its_closed_form(baseline: dict[str, Any], covered: float | None) -> None:
    picture = whole(random_picture(5, (30, 20)))
    green = picture.rgb[..., 1] / 255
    level = green.mean() if covered is None else covered
    outcome = run(analytic((20, 30)), picture, window=[4, 6], stride=[3, 5], target=0, **baseline)

    origins_y, origins_x = [0, 3, 6, 9, 12, 15, 16], [0, 5, 10, 15, 20, 24]
    logit = np.array(
        [[0.01 * (green.sum() - green[y : y + 4, x : x + 6].sum() + 24 * level) for x in origins_x] for y in origins_y]
    )
    probability = 1 / (1 + np.exp(-logit))
    base = 1 / (1 + math.exp(-0.01 * green.sum()))
    np.testing.assert_allclose(heatmap(outcome, "probability_map"), probability, atol=1e-6)
    np.testing.assert_allclose(heatmap(outcome, "drop_map"), base - probability, atol=1e-6)
    assert metric(outcome, "base_probability") == pytest.approx(base, abs=1e-6)
    assert metric(outcome, "max_drop") == pytest.approx((base - probability).max(), abs=1e-6)
    row, column = np.unravel_index((base - probability).argmax(), probability.shape)
    assert metric(outcome, "max_drop_y") == origins_y[row] + 2
    assert metric(outcome, "max_drop_x") == origins_x[column] + 3
    assert metric(outcome, "windows") == 42
    assert metric(outcome, "seconds") > 0


def test_the_predicted_class_follows_the_covered_window() -> None:
    light = np.zeros((20, 20, 3), dtype=np.uint8)
    light[:10, :10] = 255  # all that speaks for class 0; class 1 wins where it is covered (a tie goes to class 0)
    model = analytic((20, 20), scale=1.0)
    outcome = run(model, whole(Image.fromarray(light)), window=10, stride=10, baseline="value", baseline_value=0)
    tie_broken = next(named.result for named in outcome.results if named.name == "predicted_class_map")
    assert isinstance(tie_broken, ClassMap)
    negative = LoadedModel(model.card, ChannelSum(1, -1.0).eval(), CPU)
    outcome = run(negative, whole(Image.fromarray(light)), window=10, stride=10, baseline="value", baseline_value=0)
    classes = next(named.result for named in outcome.results if named.name == "predicted_class_map")
    assert isinstance(classes, ClassMap)
    assert classes.classes.tolist() == [[0, 1], [1, 1]]
    assert classes.labels == {0: model.card.labels[0], 1: model.card.labels[1]}


def test_the_pixel_map_is_captums(lite0: LoadedModel, photographs: dict[str, Image.Image]) -> None:
    picture = lite0.card.preparation.prepare(photographs["coffee"])
    outcome = run(lite0, picture, window=32, stride=[16, 32])  # lands on the edge: both have the same windows
    x = lite0.tensor(picture.rgb)[None]
    target = int(lite0.module(x).argmax())
    captum = Occlusion(lambda batch: lite0.module(batch).double().softmax(dim=1))
    expected = captum.attribute(
        x, sliding_window_shapes=(3, 32, 32), strides=(3, 16, 32), baselines=0, target=target, perturbations_per_eval=8
    )[0]
    assert expected.abs().max() > 0.05
    for channel in expected.numpy():
        np.testing.assert_allclose(heatmap(outcome, "pixel_map"), channel, atol=1e-6)


def test_pixels_that_no_window_covers_have_no_value() -> None:
    outcome = run(analytic((20, 20)), whole(random_picture(6, (20, 20))), window=4, stride=8)
    pixel_map = heatmap(outcome, "pixel_map")
    assert np.isnan(pixel_map[:, 4:8]).all()
    assert np.isfinite(pixel_map[:4, :4]).all()


def test_progress_runs_to_the_number_of_windows(lite0: LoadedModel) -> None:
    reports: list[int] = []
    picture = lite0.card.preparation.prepare(random_picture(7))
    run(lite0, picture, reports, window=112, stride=56, insertion_deletion=False)
    assert reports[-1] == 9
    assert reports == sorted(reports)


def test_curves_and_sizes_count_as_planned(lite0: LoadedModel) -> None:
    reports: list[int] = []
    params = {"window": [112, [56, 112]], "stride": 112, "target": [1, 2]}
    run(lite0, lite0.card.preparation.prepare(random_picture(7)), reports, **params)
    (unit,) = SPEC.plan(SPEC.parse(params), lite0.card, [ImageRef("a", 1, 1)], {})
    assert reports[-1] == unit.steps
    assert reports == sorted(reports)


@pytest.mark.parametrize("target", ["espresso", 967, "Espresso"])
def test_a_target_by_label_is_the_one_by_index(
    lite0: LoadedModel, photographs: dict[str, Image.Image], target: str | int
) -> None:
    picture = lite0.card.preparation.prepare(photographs["flower"])
    outcome = run(lite0, picture, window=112, stride=112, target=target)
    with torch.inference_mode():
        expected = lite0.module(lite0.tensor(picture.rgb)[None]).double().softmax(1)[0, 967]
    assert metric(outcome, "base_probability") == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "label", "probability"),
    [
        ("coffee", "espresso", 0.957),
        ("camera", "tripod", 0.944),
        ("chelsea", "tiger cat", 0.379),
        ("rocket", "missile", 0.364),
        ("china", "palace", 0.351),
        ("flower", "daisy", 0.274),
    ],
)
def test_the_bundled_model_knows_real_pictures(
    lite0: LoadedModel, photographs: dict[str, Image.Image], name: str, label: str, probability: float
) -> None:
    outcome = run(lite0, lite0.card.preparation.prepare(photographs[name]), window=224)
    table = next(named.result for named in outcome.results if named.name == "top_classes")
    assert isinstance(table, Table)
    assert table.rows[0][1] == label
    assert table.rows[0][2] == pytest.approx(probability, abs=0.001)


@pytest.mark.parametrize(
    ("name", "box"),
    [
        ("coffee", (30, 75, 130, 165)),  # the coffee inside the cup
        ("camera", (140, 90, 224, 185)),  # the tripod's legs
        ("chelsea", (85, 65, 224, 224)),  # nose and mouth
    ],
)
def test_predictions_stand_on_the_object(
    lite0: LoadedModel, photographs: dict[str, Image.Image], name: str, box: tuple[int, int, int, int]
) -> None:
    """box: top, left, bottom, right of the object on the model's input, read off the picture by eye."""
    outcome = run(lite0, lite0.card.preparation.prepare(photographs[name]), window=32, stride=8)
    pixel_map = heatmap(outcome, "pixel_map")
    y, x = np.unravel_index(pixel_map.argmax(), pixel_map.shape)
    top, left, bottom, right = box
    assert top <= y < bottom
    assert left <= x < right
    assert top <= metric(outcome, "max_drop_y") <= bottom
    assert left <= metric(outcome, "max_drop_x") <= right
    inside = np.zeros_like(pixel_map, dtype=bool)
    inside[top:bottom, left:right] = True
    assert pixel_map[inside].mean() > pixel_map[~inside].mean() + 0.01


BASELINES: list[dict[str, Any]] = [
    {"baseline": "grey"},
    {"baseline": "value", "baseline_value": [255, 0, 128]},
    {"baseline": "image_mean"},
    {"baseline": "window_mean"},
    {"baseline": "blur", "baseline_sigma": 4.0},
    {"baseline": "noise", "baseline_seed": 3},
    {"baseline": "gaussian"},
]


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda baseline: baseline["baseline"])
def test_exact_gives_the_numbers_of_naive_for_every_baseline(
    lite0: LoadedModel, photographs: dict[str, Image.Image], baseline: dict[str, Any]
) -> None:
    picture = lite0.card.preparation.prepare(photographs["chelsea"])
    geometry = {"window": [40, 56], "stride": [61, 47], **baseline}
    exact = run(lite0, picture, **geometry)
    naive = run(lite0, picture, method="naive", **geometry)
    np.testing.assert_allclose(heatmap(exact, "probability_map"), heatmap(naive, "probability_map"), atol=2e-6)
    assert np.ptp(heatmap(naive, "probability_map")) > 0.01
    assert metric(naive, "forward_equivalents") == metric(naive, "windows") == 25
    assert metric(exact, "forward_equivalents") < 0.8 * 25


def covered_sum(baseline: dict[str, Any], rgb: np.ndarray, y: int, x: int) -> float:
    """The sum of the green that a window of 4 by 6 shows: computed here once more, by another library."""
    window = np.s_[y : y + 4, x : x + 6]
    green = rgb[..., 1] / 255
    match baseline["baseline"]:
        case "window_mean":
            return float(green[window].sum())
        case "blur":
            return float(gaussian_filter(green, baseline["baseline_sigma"], mode="nearest", radius=4)[window].sum())
        case "noise":
            noise = np.random.default_rng(baseline["baseline_seed"]).integers(0, 256, rgb.shape, dtype=np.uint8)
            return float(noise[window][..., 1].sum() / 255)
        case _:
            bell = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 4)) ** 2) for n in (4, 6)]
            return float((green[window] * (1 - np.outer(*bell))).sum())


@pytest.mark.parametrize(
    "baseline",
    [
        {"baseline": "window_mean"},
        {"baseline": "blur", "baseline_sigma": 1.0},
        {"baseline": "noise", "baseline_seed": 11},
        {"baseline": "gaussian"},
    ],
    ids=lambda baseline: baseline["baseline"],
)
def test_baselines_of_many_pixels_are_what_they_say(baseline: dict[str, Any]) -> None:
    picture = whole(random_picture(9, (30, 20)))
    outcome = run(analytic((20, 30)), picture, window=[4, 6], stride=[8, 12], target=0, method="naive", **baseline)
    green = picture.rgb[..., 1] / 255
    logit = np.array(
        [
            [
                0.01 * (green.sum() - green[y : y + 4, x : x + 6].sum() + covered_sum(baseline, picture.rgb, y, x))
                for x in (0, 12, 24)
            ]
            for y in (0, 8, 16)
        ]
    )
    np.testing.assert_allclose(heatmap(outcome, "probability_map"), 1 / (1 + np.exp(-logit)), atol=1e-6)


def test_a_model_that_cannot_be_traced_is_run_by_whole_passes_and_says_so() -> None:
    class Undecided(ChannelSum):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.sum() > -1e9 else -x)

    model = LoadedModel(analytic((20, 20)).card, Undecided(1, 0.01).eval(), CPU)
    with pytest.warns(UserWarning, match="Undecided cannot be traced.*whole forward passes"):
        outcome = run(model, whole(random_picture(6, (20, 20))), window=4, stride=8)
    assert metric(outcome, "forward_equivalents") == metric(outcome, "windows") == 9

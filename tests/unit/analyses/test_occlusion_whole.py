"""What occlusion offers beyond one map of one class: sizes, targets, layers, boxes, masks, curves, precision."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from occluscope import analyses
from occluscope.analyses.contract import ImageRef, Outcome
from occluscope.analyses.gathering import Gathered
from occluscope.analyses.occlusion import quality
from occluscope.models.loading import LoadedModel
from occluscope.pictures.preparation import Picture
from occluscope.results import Curves, Heatmap, NamedResult, Result
from tests.unit.analyses.test_occlusion_compute import analytic, whole

pytestmark = pytest.mark.slow

SPEC = analyses.spec("occlusion")
CHANNEL = {"layer": "_blocks.5", "channel": 3}


def run(model: LoadedModel, pictures: list[Picture], **params: Any) -> Outcome:
    parsed = SPEC.parse(params)
    named = {"m": ImageRef("m", 1, 1)} if params.get("region") == "m" else {}
    (unit,) = SPEC.plan(parsed, model.card, [ImageRef("a", 1, 1)], named)
    return analyses.compute("occlusion")(model, pictures, parsed, unit, Gathered())


def result(outcome: Outcome, name: str, variant: str = "") -> Result:
    return next(one.result for one in outcome.results if (one.name, str(one.variant)) == (name, variant))


def values(outcome: Outcome, name: str, variant: str = "") -> np.ndarray:
    found = result(outcome, name, variant)
    assert isinstance(found, Heatmap)
    return found.values


def metrics(outcome: Outcome, variant: str = "") -> dict[str, float]:
    return {metric.name: metric.value for metric in outcome.metrics if str(metric.variant) == variant}


@pytest.fixture(scope="module")
def coffee(lite0: LoadedModel, photographs: dict[str, Image.Image]) -> Picture:
    return lite0.card.preparation.prepare(photographs["coffee"])


def test_several_sizes_and_targets_are_the_single_ones_side_by_side(lite0: LoadedModel, coffee: Picture) -> None:
    together = run(lite0, [coffee], window=[112, [64, 48]], stride=56, target=["top1", "cup"])
    for size, shown in ((112, "112×112"), ([64, 48], "64×48")):
        for target, label in (("top1", "espresso"), ("cup", "cup")):
            alone = run(lite0, [coffee], window=size, stride=56, target=target)
            variant = f"{shown} · {label}"
            for name in ("pixel_map", "drop_map", "probability_map"):
                np.testing.assert_allclose(values(together, name, variant), values(alone, name), atol=1e-6)
            assert metrics(together, variant)["deletion_auc"] == pytest.approx(metrics(alone)["deletion_auc"], abs=1e-4)
        assert metrics(together, shown)["windows"] == metrics(alone)["windows"]


@pytest.mark.parametrize("method", ["exact", "naive"])
def test_a_channels_activation_is_what_a_hook_sees(lite0: LoadedModel, coffee: Picture, method: str) -> None:
    outcome = run(lite0, [coffee], window=64, stride=80, target=CHANNEL, feature_layer="_blocks.9", method=method)
    seen: dict[str, Tensor] = {}
    for layer in ("_blocks.5", "_blocks.9"):
        lite0.module.get_submodule(layer).register_forward_hook(
            lambda _module, _inputs, output, layer=layer: seen.update({layer: output.double().sum((2, 3))[0]})
        )
    try:
        x = lite0.tensor(coffee.rgb)
        lite0.module(x[None])
        base, strongest = seen["_blocks.5"][3], int(seen["_blocks.9"].argmax())
        followed, activity = [], []
        for y in (0, 80, 160):
            for left in (0, 80, 160):
                covered = x.clone()
                covered[:, y : y + 64, left : left + 64] = 0
                lite0.module(covered[None])
                followed.append(float(seen["_blocks.5"][3]))
                activity.append(float(seen["_blocks.9"][strongest]))
    finally:
        for layer in ("_blocks.5", "_blocks.9"):
            lite0.module.get_submodule(layer)._forward_hooks.clear()
    np.testing.assert_allclose(values(outcome, "probability_map").ravel(), followed, rtol=1e-4)
    np.testing.assert_allclose(
        values(outcome, "drop_map").ravel(), float(base) - np.array(followed), rtol=1e-2, atol=0.05
    )
    np.testing.assert_allclose(values(outcome, "feature_activity_map").ravel(), activity, rtol=1e-4)
    found = result(outcome, "feature_activity_map")
    assert isinstance(found, Heatmap)
    assert (found.unit, found.caption) == ("activation", f"summed activity of channel {strongest} of _blocks.9")


def test_windows_stay_within_their_box(lite0: LoadedModel, coffee: Picture) -> None:
    whole_map = run(lite0, [coffee], window=56, stride=56, insertion_deletion=False)
    part = run(lite0, [coffee], window=56, stride=56, within=[56, 0, 168, 224], insertion_deletion=False)
    np.testing.assert_allclose(values(part, "drop_map"), values(whole_map, "drop_map")[1:3], atol=1e-6)
    pixels = values(part, "pixel_map")
    assert np.isnan(pixels[:56]).all()
    assert np.isnan(pixels[168:]).all()
    assert np.isfinite(pixels[56:168]).all()


def test_pointing_metrics_of_a_box_and_of_the_same_mask() -> None:
    light = np.full((20, 20, 3), 10, dtype=np.uint8)
    light[:10, :10] = 255
    picture = whole(Image.fromarray(light))
    params: dict[str, Any] = {"window": 5, "stride": 5, "target": 0, "baseline": "value", "baseline_value": 0}
    by_box = run(analytic((20, 20)), [picture], region=[0, 0, 10, 10], **params)
    mask = np.zeros((20, 20, 3), dtype=np.uint8)
    mask[:10, :10] = 255
    by_mask = run(analytic((20, 20)), [picture, whole(Image.fromarray(mask))], region="m", **params)
    names = ("pointing_hit", "energy_inside", "drop_inside_minus_outside")
    found = metrics(by_box)
    assert {name: found[name] for name in names} == {name: metrics(by_mask)[name] for name in names}
    drop = values(by_box, "pixel_map").astype(float)
    assert found["pointing_hit"] == 1
    assert found["energy_inside"] == pytest.approx(drop[:10, :10].sum() / drop.sum(), rel=1e-5)
    inside = drop[:10, :10].mean()
    assert found["drop_inside_minus_outside"] == pytest.approx(inside - (drop.sum() - 100 * inside) / 300, rel=1e-5)
    elsewhere = run(analytic((20, 20)), [picture], region=[10, 10, 20, 20], **params)
    assert metrics(elsewhere)["pointing_hit"] == 0


def test_gini_of_known_distributions() -> None:
    assert quality.gini(np.full((4, 5), -0.3)) == pytest.approx(0)
    one = np.zeros((4, 5))
    one[2, 2] = -7
    assert quality.gini(one) == pytest.approx(1 - 1 / 20)
    assert quality.gini(np.array([[1.0, 3.0]])) == pytest.approx(0.25)
    assert quality.gini(np.array([[1.0, np.nan, 3.0]])) == pytest.approx(0.25)
    assert quality.gini(np.zeros((2, 2))) == 0


def test_insertion_and_deletion_take_the_most_important_pixels_first() -> None:
    """A score that is the sum of the picture: each step takes its share, in the order of the map."""
    height, width = 16, 16
    picture = torch.rand(1, height, width, generator=torch.Generator().manual_seed(0))
    importance = picture[0].double().numpy()
    done: list[int] = []
    scores = quality.curve(
        lambda x: x.double().sum((1, 2, 3)), picture, torch.zeros_like(picture), importance, done.append
    )
    falling = np.sort(importance.ravel())[::-1]
    kept = [importance.sum() - falling[: step * 256 // 32].sum() for step in range(33)]
    np.testing.assert_allclose(scores, kept, atol=1e-5)
    assert done[-1] == 33
    assert quality.area(np.array([1.0, 0.5, 0.0])) == pytest.approx(0.5)


def test_a_map_of_the_object_beats_its_own_negative(lite0: LoadedModel, coffee: Picture) -> None:
    outcome = run(lite0, [coffee], window=48, stride=16)
    curves = result(outcome, "insertion_deletion")
    assert isinstance(curves, Curves)
    deletion, insertion = (series.values for series in curves.series)
    assert deletion[0] == pytest.approx(metrics(outcome)["base_probability"], abs=1e-5)
    assert insertion[-1] == pytest.approx(metrics(outcome)["base_probability"], abs=1e-5)
    assert metrics(outcome)["insertion_auc"] > metrics(outcome)["deletion_auc"] + 0.2


def test_half_precision_says_how_far_it_is_off(lite0: LoadedModel, coffee: Picture) -> None:
    full = run(lite0, [coffee], window=64, stride=32, insertion_deletion=False)
    half = run(lite0, [coffee], window=64, stride=32, insertion_deletion=False, precision="half")
    off = np.abs(values(half, "probability_map") - values(full, "probability_map")).max()
    assert 0 < off < 0.1
    assert 0.2 * off < metrics(half)["precision_error"] <= off + 1e-6
    assert "precision_error" not in metrics(full)


def test_a_person_who_watches_sees_the_map_as_it_stands(lite0: LoadedModel, coffee: Picture) -> None:
    seen: list[NamedResult] = []

    def report(_done: int, preview: Any = None) -> None:
        if preview:
            seen.extend(preview())

    params = SPEC.parse({"stride": 32, "method": "naive"})
    (unit,) = SPEC.plan(params, lite0.card, [ImageRef("a", 1, 1)], {})
    outcome = analyses.compute("occlusion")(lite0, [coffee], params, unit, Gathered(report))
    first, last = seen[0].result, seen[-1].result
    assert isinstance(first, Heatmap)
    assert isinstance(last, Heatmap)
    assert np.isfinite(first.values).sum() == 8
    assert np.array_equal(last.values, values(outcome, "drop_map"))


def test_an_approximate_map_reports_as_it_runs(lite0: LoadedModel, coffee: Picture) -> None:
    reports: list[int] = []
    params = SPEC.parse(
        {"window": 16, "stride": 4, "method": "adaptive", "tolerance": 0.9, "insertion_deletion": False}
    )
    (unit,) = SPEC.plan(params, lite0.card, [ImageRef("a", 1, 1)], {})
    outcome = analyses.compute("occlusion")(
        lite0, [coffee], params, unit, Gathered(lambda done, _preview=None: reports.append(done))
    )
    assert reports[0] <= 128 < reports[-1] == metrics(outcome)["windows_run"]
    assert reports == sorted(reports)

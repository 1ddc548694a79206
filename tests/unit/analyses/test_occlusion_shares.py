"""Very many windows: a picture is split by rows, and its maps are those that one unit would have given."""

from typing import Any

import numpy as np
import pytest

from occluscope import analyses
from occluscope.analyses.contract import ImageRef, Outcome, Part, Unit
from occluscope.analyses.gathering import Gathered
from occluscope.analyses.occlusion import spec as occlusion
from occluscope.models.loading import LoadedModel
from occluscope.pictures.preparation import Picture
from occluscope.results import ClassMap, Heatmap, Table
from tests.conftest import random_picture
from tests.later_stages import no_model, run_later

pytestmark = pytest.mark.slow

SPEC = analyses.spec("occlusion")
IMAGES = [ImageRef("a", 64, 48), ImageRef("b", 64, 48)]


def report(*_: Any) -> None:
    pass


def prepared(model: LoadedModel) -> dict[str, Picture]:
    return {ref.id: model.card.preparation.prepare(random_picture(n)) for n, ref in enumerate(IMAGES)}


def run(model: LoadedModel, units: list[Unit], params: Any) -> list[Outcome]:
    pictures = prepared(model)
    of_units = [[pictures[image] for image in unit.images] for unit in units]
    compute = analyses.compute("occlusion")
    return [compute(model, given, params, unit, Gathered(report)) for given, unit in zip(of_units, units, strict=True)]


def later(model: LoadedModel, params: Any, parts: list[Part]) -> Outcome:
    return run_later("occlusion", model.card, params, parts, model=lambda: model, pictures=prepared(model))


def split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occlusion, "SPLIT_WINDOWS", 3)
    monkeypatch.setattr(occlusion, "PART_WINDOWS", 5)


@pytest.mark.parametrize(
    "asked",
    [
        {"window": 32, "stride": 12, "method": "exact"},
        {
            "window": [24, 48], "stride": [16, 8], "method": "naive", "within": [0, 0, 100, 224],
            "insertion_deletion": False,
        },
        {"window": [[48, 48], [32, 32]], "stride": 16, "target": ["top1", 281], "insertion_deletion": False},
    ],
    ids=["exact", "naive, within", "sizes and targets"],
)  # fmt: skip
def test_shares_together_give_what_one_unit_gives(
    lite0: LoadedModel, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    params = SPEC.parse(asked)
    alone = run(lite0, SPEC.plan(params, lite0.card, IMAGES, {}), params)
    monkeypatch.setattr(occlusion, "SPLIT_WINDOWS", 10)
    monkeypatch.setattr(occlusion, "PART_WINDOWS", 60)
    units = SPEC.plan(params, lite0.card, IMAGES, {})
    assert len(units) > len(IMAGES)
    kept = run(lite0, units, params)
    assert all(not outcome.results and not outcome.metrics for outcome in kept)
    parts = [Part(unit, outcome.kept) for unit, outcome in zip(units, kept, strict=True)]
    together = later(lite0, params, parts)
    results = [named for outcome in alone for named in outcome.results]
    assert [(one.name, one.image, one.variant) for one in together.results] == [
        (one.name, one.image, one.variant) for one in results
    ]
    for one, other in zip(together.results, results, strict=True):
        if isinstance(one.result, Heatmap) and isinstance(other.result, Heatmap):
            assert one.result.geometry == other.result.geometry
            np.testing.assert_allclose(one.result.values, other.result.values, atol=2e-6)
        elif isinstance(one.result, ClassMap) and isinstance(other.result, ClassMap):
            np.testing.assert_array_equal(one.result.classes, other.result.classes)
    timed = {"seconds", "forward_equivalents"}  # smaller tiles are a little more work
    metrics = [metric for outcome in alone for metric in outcome.metrics]
    for number, right in zip(together.metrics, metrics, strict=True):
        assert (number.name, number.image, number.variant) == (right.name, right.image, right.variant)
        assert number.name in timed or number.value == pytest.approx(right.value, abs=2e-5)


def test_a_picture_with_a_share_missing_has_no_maps(lite0: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    split(monkeypatch)
    params = SPEC.parse({"window": 112, "stride": 56, "insertion_deletion": False})
    units = SPEC.plan(params, lite0.card, IMAGES, {})
    kept = run(lite0, units, params)
    parts = [Part(unit, outcome.kept) for unit, outcome in zip(units, kept, strict=True)]
    together = later(lite0, params, parts[1:])
    assert {one.image for one in together.results} == {"b"}


def test_maps_are_made_from_shares_without_a_model(lite0: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    split(monkeypatch)
    asked = {"window": 112, "stride": 56, "insertion_deletion": False, "region": [0, 0, 100, 100]}
    params = SPEC.parse(asked | {"target": ["top1", 281], "feature_layer": "_blocks.9"})
    units = SPEC.plan(params, lite0.card, IMAGES, {})
    parts = [Part(unit, outcome.kept) for unit, outcome in zip(units, run(lite0, units, params), strict=True)]
    together = run_later("occlusion", lite0.card, params, parts, model=no_model, pictures=prepared(lite0))
    assert {one.image for one in together.results} == {"a", "b"}


def test_shares_of_a_worker_that_kept_no_base_scores_have_the_same_maps(
    lite0: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that runs beside workers of a newer version, or ran before them."""
    split(monkeypatch)
    params = SPEC.parse({"window": 112, "stride": 56})
    units = SPEC.plan(params, lite0.card, IMAGES[:1], {})
    kept = [outcome.kept for outcome in run(lite0, units, params)]
    parts = [Part(unit, arrays) for unit, arrays in zip(units, kept, strict=True)]
    older = [
        Part(unit, {name: array for name, array in arrays.items() if name != "base"})
        for unit, arrays in zip(units, kept, strict=True)
    ]
    together, as_before = later(lite0, params, parts), later(lite0, params, older)
    assert [metric.value for metric in as_before.metrics] == [metric.value for metric in together.metrics]


def test_a_split_picture_with_a_mask_has_curves_and_pointing(
    lite0: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = SPEC.parse({"window": 112, "stride": 56, "region": "b"})
    alone = run(lite0, SPEC.plan(params, lite0.card, IMAGES[:1], {"b": IMAGES[1]}), params)[0]
    split(monkeypatch)
    units = SPEC.plan(params, lite0.card, IMAGES[:1], {"b": IMAGES[1]})
    assert len(units) > 1
    parts = [Part(unit, outcome.kept) for unit, outcome in zip(units, run(lite0, units, params), strict=True)]
    together = later(lite0, params, parts)
    assert [metric.name for metric in together.metrics] == [metric.name for metric in alone.metrics]
    assert {"pointing_hit", "insertion_auc"} <= {metric.name for metric in together.metrics}


def test_a_class_that_is_asked_for_twice_has_one_map_and_its_curves(
    lite0: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the most probable one and by its number; the channel that is asked for after it has none."""
    most_probable = {"window": 224, "insertion_deletion": False}
    params = SPEC.parse(most_probable)
    table = run(lite0, SPEC.plan(params, lite0.card, IMAGES[:1], {}), params)[0].results[-1].result
    assert isinstance(table, Table)
    top = table.rows[0][0]
    assert isinstance(top, int)
    channel = {"layer": "_blocks.9", "channel": 3}
    params = SPEC.parse({"window": 112, "stride": 56, "target": ["top1", top, channel]})
    (alone,) = run(lite0, SPEC.plan(params, lite0.card, IMAGES[:1], {}), params)
    split(monkeypatch)
    units = SPEC.plan(params, lite0.card, IMAGES[:1], {})
    kept = run(lite0, units, params)
    together = later(lite0, params, [Part(unit, one.kept) for unit, one in zip(units, kept, strict=True)])
    assert [(one.name, one.variant) for one in together.results] == [(one.name, one.variant) for one in alone.results]
    assert [(one.name, one.variant) for one in together.metrics] == [(one.name, one.variant) for one in alone.metrics]
    assert [one.name for one in alone.results].count("insertion_deletion") == 1


def test_every_window_is_in_one_share(lite0: LoadedModel) -> None:
    params = SPEC.parse({"window": [[32, 32], [9, 40]], "stride": 2})
    units = SPEC.plan(params, lite0.card, IMAGES[:1], {})
    windows = sum(
        ((224 - height) // 2 + 1 + (height % 2)) * ((224 - width) // 2 + 1 + (width % 2))
        for height, width in ((32, 32), (9, 40))
    )
    assert len(units) == -(-windows // occlusion.PART_WINDOWS)
    assert sum(unit.steps for unit in units) == windows


@pytest.mark.parametrize("asked", [{"window": 32, "stride": 4}, {"window": 32, "stride": 2, "method": "adaptive"}])
def test_few_windows_and_approximate_maps_are_one_unit(lite0: LoadedModel, asked: dict[str, Any]) -> None:
    units = SPEC.plan(SPEC.parse(asked), lite0.card, IMAGES, {})
    assert len(units) == 2
    parts = [Part(unit, {}) for unit in units]
    assert [stage.plan(SPEC.parse(asked), lite0.card, IMAGES, {"work": parts}) for stage in SPEC.later] == [[], []]

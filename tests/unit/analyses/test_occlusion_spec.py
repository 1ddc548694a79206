from typing import Any

import pytest

from occluscope import analyses
from occluscope.analyses.contract import ImageRef
from occluscope.errors import InvalidInputError
from occluscope.models import card

SPEC = analyses.spec("occlusion")
LITE0 = card("efficientnet_lite0")
PICTURES = [ImageRef("a", 600, 400), ImageRef("b", 20, 30)]


def errors_of(params: Any) -> dict[str, str]:
    with pytest.raises(InvalidInputError) as caught:
        SPEC.plan(SPEC.parse(params), LITE0, PICTURES, {})
    return {error.path: error.message for error in caught.value.errors}


def test_defaults_are_the_papers() -> None:
    params = SPEC.parse({}).model_dump()
    assert (params["window"], params["stride"]) == ([32, 32], (16, 16))
    assert (params["baseline"], params["target"]) == ("grey", "top1")


def test_one_unit_a_picture_one_step_a_window() -> None:
    params = {"window": 32, "stride": [16, 200], "insertion_deletion": False}
    units = SPEC.plan(SPEC.parse(params), LITE0, PICTURES, {})
    assert [(unit.images, unit.steps) for unit in units] == [(("a",), 13 * 2), (("b",), 13 * 2)]


def test_several_sizes_and_targets_add_up() -> None:
    channel = {"layer": "_blocks.5", "channel": 0}  # a channel has no insertion and deletion curves
    params = {"window": [32, [64, 32]], "stride": 16, "within": [0, 0, 64, 96]}
    (windows, _) = SPEC.plan(SPEC.parse({**params, "insertion_deletion": False}), LITE0, PICTURES, {})
    assert windows.steps == 3 * 5 + 1 * 5
    (first, _) = SPEC.plan(SPEC.parse({**params, "target": [1, 2, channel]}), LITE0, PICTURES, {})
    (none, _) = SPEC.plan(SPEC.parse({**params, "target": channel}), LITE0, PICTURES, {})
    assert first.steps == none.steps + 2 * 2 * 66


def test_a_mask_comes_with_every_picture() -> None:
    params = SPEC.parse({"region": "m"})
    assert SPEC.named_images(params) == {"region": "m"}
    (unit,) = SPEC.plan(params, LITE0, PICTURES[:1], {"m": ImageRef("m", 600, 400)})
    assert unit.images == ("a", "m")
    with pytest.raises(InvalidInputError, match="the mask is 600 × 400 pixels, and picture 1 20 × 30"):
        SPEC.plan(params, LITE0, PICTURES, {"m": ImageRef("m", 600, 400)})


def test_what_was_validated_validates_again_from_json() -> None:
    params = SPEC.parse({"window": 48, "baseline": "value", "baseline_value": [1, 2, 3], "target": "espresso"})
    assert SPEC.parse(params.model_dump(mode="json")) == params


@pytest.mark.parametrize(
    ("params", "path", "reason"),
    [
        ({"window": 0}, "params.window", "greater than or equal to 1"),
        ({"window": [32, -1]}, "params.window", "greater than or equal to 1"),
        ({"window": [32]}, "params.window", "[height, width]"),
        ({"window": []}, "params.window", "[height, width]"),
        ({"window": [1, 2, 3]}, "params.window", "[height, width]"),
        ({"window": [[1, 2], [3]]}, "params.window", "[height, width]"),
        ({"window": [[8, 8]] * 9}, "params.window", "at most 8"),
        ({"window": "32"}, "params.window", "one whole number"),
        ({"window": 32.5}, "params.window", "one whole number"),
        ({"window": [32, 32.5]}, "params.window", "one whole number"),
        ({"window": True}, "params.window", "one whole number"),
        ({"window": 10**30}, "params.window", "at most 100,000"),
        ({"window": [float("nan"), 3]}, "params.window", "one whole number"),
        ({"window": [float("inf"), 3]}, "params.window", "one whole number"),
        ({"window": [16, [10, 225]]}, "params.window", "(10 × 225) is larger than the input"),
        ({"within": [0, 0, 31, 224]}, "params.window", "larger than the box 'within' (31 × 224)"),
        ({"within": [0, 0, 225, 224]}, "params.within", "must lie in the input"),
        ({"within": [100, 0, 50, 224]}, "params.within", "top above bottom"),
        ({"within": [1, 2, 3]}, "params.within.3", "required"),
        ({"region": [0, 0, 0, 10]}, "params.region", "top above bottom"),
        ({"region": [0, 0, 10.5, 10]}, "params.region", "the id of a mask"),
        ({"region": 7}, "params.region", "the id of a mask"),
        ({"feature_layer": "_blocks.99"}, "params.feature_layer", "close to it: _blocks.9"),
        ({"feature_layer": "_fc"}, "params.feature_layer", "gives no maps"),
        ({"target": {"layer": "_blocks.5", "channel": 80}}, "params.target", "channels 0 to 79"),
        ({"target": [1, {"layer": "x", "channel": 0}]}, "params.target.1", "no layer 'x'"),
        ({"target": {"layer": "_blocks.5"}}, "params.target", "class index"),
        ({"target": {"layer": "_blocks.5", "channel": -1}}, "params.target", "class index"),
        ({"target": []}, "params.target", "1 to 16"),
        ({"target": [1, 2, 1]}, "params.target", "each of them once"),
        ({"target": list(range(17))}, "params.target", "1 to 16"),
        ({"target": None}, "params.target", "class index"),
        ({"tolerance": 0}, "params.tolerance", "greater than 0"),
        ({"margin": -1}, "params.margin", "greater than or equal to 0"),
        ({"precision": "double"}, "params.precision", "'full' or 'half'"),
        ({"window": 225}, "params.window", "larger than the input of efficientnet_lite0 (224 × 224)"),
        ({"window": [10, 225]}, "params.window", "larger than the input"),
        ({"stride": 0}, "params.stride.0", "greater than or equal to 1"),
        ({"stride": None}, "params.stride", "valid tuple"),
        ({"baseline": "pink"}, "params.baseline", "'grey', 'value', 'image_mean'"),
        ({"baseline": "value"}, "params.baseline_value", "needs a colour"),
        ({"baseline_value": [0, 0, 0]}, "params.baseline_value", "baseline 'value' only"),
        ({"baseline": "value", "baseline_value": [0, 0, 256]}, "params.baseline_value.2", "less than or equal to 255"),
        ({"baseline": "blur", "baseline_sigma": 0}, "params.baseline_sigma", "greater than 0"),
        ({"baseline": "blur", "baseline_sigma": float("inf")}, "params.baseline_sigma", "finite"),
        ({"baseline": "noise", "baseline_seed": -1}, "params.baseline_seed", "greater than or equal to 0"),
        ({"target": 1000}, "params.target", "classes 0 to 999"),
        ({"target": -1}, "params.target", "classes 0 to 999"),
        ({"target": "expresso"}, "params.target", "close to it: espresso"),
        ({"target": "CARDIGAN"}, "params.target", "names classes [264, 474]"),
        ({"target": 1.5}, "params.target", "class index"),
        ({"method": "magic"}, "params.method", "'exact', 'naive' or 'adaptive'"),
        ({"windows": 3}, "params.windows", "not permitted"),
        ([], "params", "valid dictionary"),
    ],
)
def test_a_bad_parameter_is_named_with_the_reason(params: Any, path: str, reason: str) -> None:
    found = errors_of(params)
    assert path in found
    assert reason in found[path]


def test_too_many_windows_are_refused_before_they_are_made() -> None:
    wide = LITE0.model_copy(update={"preparation": LITE0.preparation.model_copy(update={"crop": (400, 400)})})
    with pytest.raises(InvalidInputError, match=r"params\.stride: .* 159,201 windows; the limit is 100,000"):
        SPEC.plan(SPEC.parse({"window": 2, "stride": 1}), wide, PICTURES, {})


def test_every_wrong_field_is_named_at_once() -> None:
    assert set(errors_of({"window": 300, "baseline": "value", "target": "nothing like it"})) == {
        "params.window",
        "params.baseline_value",
        "params.target",
    }


def test_its_schema_and_results_are_published() -> None:
    schema = SPEC.parameters.model_json_schema()
    assert schema["additionalProperties"] is False
    assert all(field["description"] for field in schema["properties"].values())
    assert SPEC.headline in {result.name for result in SPEC.results}

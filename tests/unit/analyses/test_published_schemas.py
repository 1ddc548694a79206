"""The JSON Schemas of parameters, as they are published: held against JSON Schema itself and against what is taken."""

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from occluscope import analyses
from occluscope.errors import InvalidInputError

OF_TYPES = {
    "array": {"minItems", "maxItems", "items", "uniqueItems", "prefixItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}
GIVEN: list[tuple[str, dict[str, Any], bool]] = [
    ("invariance", {"families": ["rotate", "flip"]}, True),
    ("invariance", {"families": [{"family": "rotate", "range": [-30, 30], "steps": 13}, "blur"]}, True),
    ("invariance", {"families": "rotate"}, True),
    ("invariance", {"families": {"family": "rotate", "range": [-30, 30]}}, True),
    ("invariance", {"families": []}, False),
    ("invariance", {"families": 3}, False),
    ("invariance", {"families": ["spin"]}, False),
    ("invariance", {"layers": ["first", 0.5]}, True),
    ("invariance", {"layers": []}, False),
    ("invariance", {"layers": ["last"] * 33}, False),
    ("occlusion", {"window": [16, 48]}, True),
    ("invariance", {"layers": [1.5]}, False),
    ("occlusion", {"window": 16}, True),
    ("occlusion", {"window": []}, False),
    ("occlusion", {"target": ["espresso", 3, {"layer": "conv1", "channel": 0}]}, True),
    ("occlusion", {"target": []}, False),
    ("occlusion", {"target": list(range(17))}, False),
    ("occlusion", {"window": [[16, 16], [48, 48]]}, True),
    ("occlusion", {"window": [[16, 16]] * 9}, False),
    ("occlusion", {"region": [0, 0, 9, 9]}, True),
    ("occlusion", {"baseline_value": [0, 0, 256]}, False),
    ("correspondence", {"parts": [{"eye": [0, 0, 9, 9]}], "layers": ["last"]}, True),
    ("correspondence", {"parts": [{"eye": [0, 0, 9]}]}, False),
]


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and all schemas within it."""
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from parts(value)
    if isinstance(schema, list):
        for value in schema:
            yield from parts(value)


@pytest.mark.parametrize("name", analyses.names())
def test_no_type_carries_another_types_limits(name: str) -> None:
    schema = analyses.spec(name).parameters.model_json_schema()
    Draft202012Validator.check_schema(schema)
    for part in parts(schema):
        kind = {"integer": "number"}.get(str(part.get("type")), str(part.get("type")))
        others = set().union(*(limits for of, limits in OF_TYPES.items() if of != kind)) if kind in OF_TYPES else set()
        assert not others & part.keys(), part


@pytest.mark.parametrize(("name", "params", "right"), GIVEN)
def test_what_is_published_is_what_is_taken(name: str, params: dict[str, Any], right: bool) -> None:
    spec = analyses.spec(name)
    assert Draft202012Validator(spec.parameters.model_json_schema()).is_valid(params) is right
    if right:
        spec.parse(params)
    else:
        with pytest.raises(InvalidInputError):
            spec.parse(params)

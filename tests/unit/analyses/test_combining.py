"""Bringing many pictures together: it is heard from meanwhile, takes bounded memory, and is refused where it cannot."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from occluscope import analyses
from occluscope.analyses.contract import ImageRef, Outcome, Part, Unit
from occluscope.analyses.invariance import combining
from occluscope.analyses.invariance.spec import InvarianceParameters
from occluscope.errors import InvalidInputError
from occluscope.models import card
from tests.later_stages import run_later

LITE0 = card("efficientnet_lite0")
LAYER = LITE0.layers[0].name


class Enough(Exception):  # noqa: N818 - no error
    """Raised by a report, as a cancelled job's is."""


def combined(analysis: str, params: Any, parts: list[Part], most: int | None = None) -> tuple[Outcome | None, int]:
    """The outcome, and how often it reported; none where it was told to end at the report `most`."""
    reports = 0

    def report(_done: int, _preview: object = None) -> None:
        nonlocal reports
        reports += 1
        if reports == most:
            raise Enough

    try:
        return run_later(analysis, LITE0, params, parts, report), reports
    except Enough:
        return None, reports


def alike(one: Outcome, other: Outcome) -> None:
    assert one.metrics == other.metrics
    for mine, yours in zip(one.results, other.results, strict=True):
        assert (mine.name, mine.variant) == (yours.name, yours.variant)
        first, second = mine.result.pack(), yours.result.pack()
        assert first.meta == second.meta
        np.testing.assert_array_equal(np.asarray(first.array), np.asarray(second.array))


def faces_parts(pictures: int, draws: int, features: int) -> list[Part]:
    random = np.random.default_rng(0)
    parts = []
    for number in range(pictures):
        changes = random.normal(size=(1 + draws, features)).astype(np.float16)
        kept: Mapping[str, np.ndarray] = {
            f"{LAYER}/eye/changes": changes, f"{LAYER}/eye/signs": np.sign(changes).astype(np.int8),
        }  # fmt: skip
        parts.append(Part(Unit((str(number),), 1, {"parts": {"eye": [0, 0, 9, 9]}, "number": number}), kept))
    return parts


def test_comparing_parts_reports_all_along_and_ends_when_told_to() -> None:
    spec = analyses.spec("correspondence")
    params = spec.parse(
        {"parts": [{"eye": [0, 0, 9, 9]}] * 6, "layers": [LAYER], "random_draws": 3, "permutations": 5000}
    )
    parts = faces_parts(6, 3, 40_000)
    _, reports = combined("correspondence", params, parts)
    assert reports > 2 * (6 + 3 + 2 * 5000 // 64)  # reading, features, permutations and resamplings; signs and angles
    for most in (1, 10, 50, 300):
        assert combined("correspondence", params, parts, most) == (None, most)


def test_more_boxes_of_a_part_than_can_be_compared_are_refused() -> None:
    spec = analyses.spec("correspondence")
    images = [ImageRef(str(number), 224, 224) for number in range(200)]
    given = {"parts": [{"eye": [0, 0, 90, 90]}] * 200, "layers": ["last"]}
    assert len(spec.plan(spec.parse({**given, "random_draws": 39}), LITE0, images, {})) == 200
    with pytest.raises(InvalidInputError) as caught:
        spec.plan(spec.parse({**given, "random_draws": 40}), LITE0, images, {})
    (error,) = [error for error in caught.value.errors if error.path == "params.random_draws"]
    assert "8,200 boxes" in error.message
    assert "8,192" in error.message


def moved_parts(params: InvarianceParameters, pictures: int, units: int) -> list[Part]:
    random = np.random.default_rng(1)
    parts = []
    for number in range(pictures):
        kept: dict[str, np.ndarray] = {f"{LAYER}/features": random.normal(size=300).astype(np.float32)}
        for chosen in params.families:
            count = len(chosen.strengths())
            activations = random.normal(size=(count, units)).astype(np.float32)
            activations[:, units // 2] = 1e-12 * random.normal(size=count)  # varies by less than counts
            kept |= {
                f"{chosen.family}/probability": random.uniform(size=count),
                f"{chosen.family}/distances": random.uniform(size=(1, 2, count)),
                f"{chosen.family}/{LAYER}/units": activations,
            }
        parts.append(Part(Unit((str(number),), 1, {"compared": True}), kept))
    return parts


def invariance() -> Any:
    given = {"families": [{"family": "rotate", "steps": 9}, {"family": "blur", "steps": 5}], "layers": [LAYER]}
    return analyses.spec("invariance").parse(given)


def test_bringing_pictures_together_reports_all_along_and_ends_when_told_to() -> None:
    params = invariance()
    parts = moved_parts(params, 7, 20)
    _, reports = combined("invariance", params, parts)
    assert reports > 7 * (1 + 2 * 3)
    for most in (1, 10, 40):
        assert combined("invariance", params, parts, most) == (None, most)


def test_units_are_measured_some_at_a_time_with_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    params = invariance()
    parts = moved_parts(params, 7, 20)
    at_once, _ = combined("invariance", params, parts)
    monkeypatch.setattr(combining, "_ACTIVATIONS", 7 * 9 * 3)
    in_parts, _ = combined("invariance", params, parts)
    assert at_once is not None
    assert in_parts is not None
    alike(at_once, in_parts)

"""Correspondence: distances by hand, the paper's definition, real faces, and what a request must say."""

import itertools
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist
from skimage.data import lfw_subset

from occluscope import analyses
from occluscope.analyses.contract import ImageRef, Outcome, Part
from occluscope.analyses.correspondence.coco import parts_from_coco
from occluscope.analyses.correspondence.distances import compare, cosine, hamming
from occluscope.analyses.correspondence.spec import on_input
from occluscope.analyses.gathering import Gathered
from occluscope.errors import InvalidInputError
from occluscope.models import card
from occluscope.models.loading import LoadedModel
from occluscope.pictures.preparation import Frame
from occluscope.results import RgbImage, Table
from tests.later_stages import run_later

SPEC = analyses.spec("correspondence")
LITE0 = card("efficientnet_lite0")
# Where eyes and mouth are on every face of the set (25 × 25, aligned), enlarged tenfold.
FACE = {"left eye": [60, 40, 110, 110], "right eye": [60, 140, 110, 210], "mouth": [170, 75, 220, 175]}


def test_hamming_by_hand() -> None:
    signs = np.array([[1, -1, 0, 0], [1, 1, 0, -1], [1, -1, 0, 0]], dtype=np.int8)
    assert hamming(signs).tolist() == [[0, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0]]


def test_distances_are_those_of_scipy() -> None:
    changes = np.random.default_rng(0).normal(size=(7, 40_000)).round(0)
    signs = np.sign(changes).astype(np.int8)
    np.testing.assert_allclose(hamming(signs), cdist(signs, signs, "hamming"), atol=1e-9)
    np.testing.assert_allclose(cosine(changes), cdist(changes, changes, "cosine"), atol=1e-5)


def test_no_change_is_far_from_any() -> None:
    changes = np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])
    np.testing.assert_allclose(cosine(changes), [[1, 1, 1], [1, 0, 0], [1, 0, 0]], atol=1e-6)


def blocks(of: np.ndarray, pictures: int, boxes: int) -> np.ndarray:
    return of.reshape(pictures, boxes, pictures, boxes)


def test_delta_is_the_papers_sum_over_ordered_pairs() -> None:
    random = np.random.default_rng(1)
    signs = random.integers(-1, 2, (4 * 3, 50)).astype(np.int8)
    found = compare(blocks(hamming(signs), 4, 3), 99, 0)
    parts = signs[::3]
    papers = sum((parts[i] != parts[j]).mean() for i, j in itertools.permutations(range(4), 2))
    assert found.mean == pytest.approx(papers / (4 * 3))
    draws = [(signs[3 * i + d] != signs[3 * j + d]).mean() for d in (1, 2) for i in range(4) for j in range(i)]
    assert found.random_mean == pytest.approx(np.mean(draws))
    assert found.random_std == pytest.approx(np.std(draws))
    assert found.low <= found.mean <= found.high


def test_the_order_of_pictures_does_not_matter() -> None:
    signs = np.random.default_rng(2).integers(-1, 2, (5, 3, 60)).astype(np.int8)
    one, other = (compare(blocks(hamming(of.reshape(15, 60)), 5, 3), 999, 0) for of in (signs, signs[::-1]))
    assert (one.mean, one.std, one.random_mean) == pytest.approx((other.mean, other.std, other.random_mean))
    assert one.p == pytest.approx(other.p, abs=0.06)


def test_a_part_that_changes_alike_is_told_from_one_that_does_not() -> None:
    random = np.random.default_rng(3)
    signs = random.integers(-1, 2, (8, 4, 300)).astype(np.int8)
    p_of_chance = compare(blocks(hamming(signs.reshape(32, 300)), 8, 4), 999, 0).p
    signs[:, 0, :200] = signs[0, 0, :200]  # two thirds of the part's changes are the same in all pictures
    found = compare(blocks(hamming(signs.reshape(32, 300)), 8, 4), 999, 0)
    assert found.p < 0.005 < p_of_chance
    assert found.mean < found.random_mean - 0.3


def test_p_is_uniform_where_there_is_nothing() -> None:
    values = [
        compare(
            blocks(hamming(np.random.default_rng(seed).integers(-1, 2, (24, 40)).astype(np.int8)), 6, 4), 199, seed
        ).p
        for seed in range(150)
    ]
    assert 0.4 < np.mean(values) < 0.6
    assert np.mean(np.array(values) < 0.1) < 0.2


def run(
    model: LoadedModel, pictures: list[Image.Image], parts: list[dict[str, Any]], **params: Any
) -> tuple[Outcome, list[Outcome]]:
    parsed = SPEC.parse({"parts": parts, "permutations": 999, **params})
    refs = [ImageRef(str(number), *picture.size) for number, picture in enumerate(pictures)]
    units = SPEC.plan(parsed, model.card, refs, {})
    outcomes, kept = [], []
    for unit, picture in zip(units, pictures, strict=True):
        reports: list[int] = []
        prepared = model.card.preparation.prepare(picture)
        outcome = analyses.compute("correspondence")(
            model, [prepared], parsed, unit, Gathered(lambda done, _preview=None, reports=reports: reports.append(done))
        )
        assert reports[-1] == unit.steps
        outcomes.append(outcome)
        kept.append(Part(unit, outcome.kept))
    return run_later("correspondence", model.card, parsed, kept), outcomes


def faces(count: int) -> list[Image.Image]:
    return [
        Image.fromarray((face * 255).astype(np.uint8)).convert("RGB").resize((250, 250), Image.Resampling.BICUBIC)
        for face in lfw_subset()[:count]  # type: ignore[no-untyped-call]
    ]


@pytest.mark.slow
def test_eyes_and_mouth_correspond_on_real_faces(lite0: LoadedModel) -> None:
    together, outcomes = run(lite0, faces(8), [FACE] * 8, layers=[0.3, 0.6])
    table = together.results[-1].result
    assert isinstance(table, Table)
    names = [column.name for column in table.columns]
    rows = [dict(zip(names, row, strict=True)) for row in table.rows]
    assert len(rows) == 2 * 3
    for row in rows:
        assert float(row["delta"] or 0) < float(row["random"] or 0)
        assert float(row["p"] or 1) <= 0.01
        assert float(row["low"] or 0) <= float(row["delta"] or 0) <= float(row["high"] or 0)
    boxes = outcomes[0].results[0].result
    assert isinstance(boxes, RgbImage)
    assert boxes.rgb.shape == (448, 448, 3)


def test_identical_pictures_have_no_distance(lite0: LoadedModel) -> None:
    together, _ = run(lite0, faces(1) * 3, [FACE] * 3, layers=[0.5])
    deltas = [metric.value for metric in together.metrics if metric.name == "delta"]
    assert deltas == [0, 0, 0]


def test_a_part_may_be_missing_in_a_picture(lite0: LoadedModel) -> None:
    without_mouth = {name: box for name, box in FACE.items() if name != "mouth"}
    together, _ = run(lite0, faces(3), [FACE, without_mouth, FACE], layers=[0.8])
    table = together.results[-1].result
    assert isinstance(table, Table)
    assert {row[0]: row[2] for row in table.rows} == {"left eye": 3, "right eye": 3, "mouth": 2}


def test_boxes_of_the_picture_lie_where_the_model_sees_them() -> None:
    frame = Frame(100, 0, 500, 400)  # the middle of a 600 × 400 picture, on an input of 200 × 200
    assert on_input((0, 100, 400, 500), frame, (200, 200)) == (0, 0, 200, 200)
    assert on_input((100, 200, 200, 300), frame, (200, 200)) == (50, 50, 100, 100)
    assert on_input((0, 0, 50, 150), frame, (200, 200)) == (0, 0, 25, 25)
    assert on_input((0, 0, 50, 100), frame, (200, 200)) is None
    assert on_input((0, 500, 50, 600), frame, (200, 200)) is None


@pytest.mark.parametrize(
    ("params", "path", "reason"),
    [
        ({}, "params.parts", "required"),
        ({"parts": [FACE]}, "params.parts", "there are 2 pictures, and parts of 1"),
        ({"parts": FACE}, "params.parts", "for each picture"),
        ({"parts": [FACE, {}]}, "params.parts", "picture 1: give its parts"),
        ({"parts": [FACE, {"nose": [1, 2, 3]}]}, "params.parts", "picture 1, part 'nose'"),
        ({"parts": [FACE, {"": [1, 2, 3, 4]}]}, "params.parts", "1 to 60 printable"),
        ({"parts": [FACE, {"a\x00b": [1, 2, 3, 4]}]}, "params.parts", "1 to 60 printable"),
        ({"parts": [FACE, {"\ud800": [1, 2, 3, 4]}]}, "params.parts", "1 to 60 printable"),
        ({"parts": [FACE, {"x" * 61: [1, 2, 3, 4]}]}, "params.parts", "1 to 60 printable"),
        ({"parts": [FACE, {"nose": [5, 2, 3, 9]}]}, "params.parts", "top above bottom"),
        ({"parts": [FACE, {"nose": [0, 0, 0.5, 9]}]}, "params.parts", "whole pixels"),
        ({"parts": [FACE, {**FACE, "nose": [9, 9, 20, 20]}]}, "params.parts", "'nose' is in one picture only"),
        ({"parts": [FACE, {**FACE, "mouth": [0, 0, 5, 5]}]}, "params.parts.1", "'mouth' lies outside"),
        ({"parts": [FACE, FACE], "layers": ["_blocks.99"]}, "params.layers", "no layer '_blocks.99'"),
        ({"parts": [FACE, FACE], "layers": [1.5]}, "params.layers", "depth is from 0"),
        ({"parts": [FACE, FACE], "layers": []}, "params.layers", "at least 1"),
        (
            {"parts": [FACE, FACE], "layers": ["_blocks.1._expand_conv"], "random_draws": 50},
            "params.layers",
            "_blocks.1._expand_conv have 1,204,224 features for each of 153 boxes; the limit is 438,620 in all",
        ),
        ({"parts": [FACE, FACE], "random_draws": 0}, "params.random_draws", "greater than or equal to 1"),
    ],
)
def test_a_bad_request_is_named_with_the_reason(params: Any, path: str, reason: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        SPEC.plan(SPEC.parse(params), LITE0, [ImageRef("a", 250, 250), ImageRef("b", 600, 250)], {})
    found = {error.path: error.message for error in caught.value.errors}
    assert reason in found[path]


COCO: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "train/a.jpg", "width": 100, "height": 80},
        {"id": 8, "file_name": "b.jpg", "width": 50, "height": 50},
    ],
    "categories": [{"id": 1, "name": "dog", "keypoints": ["nose", "tail"]}, {"id": 2, "name": "eye"}],
    "annotations": [
        {"image_id": 7, "category_id": 1, "bbox": [10, 20, 50, 40], "keypoints": [30, 40, 2, 0, 0, 0]},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 5, 5], "keypoints": [1, 1, 2, 3, 3, 2]},
        {"image_id": 8, "category_id": 2, "bbox": [10.4, 20, 5, 60]},
        {"image_id": 8, "category_id": 2, "bbox": [1, 2, 3, 4]},
    ],
}


def test_parts_from_coco() -> None:
    assert parts_from_coco(COCO, ["a.jpg", "pictures/b.jpg"], share=0.2) == [
        {"nose": [35, 25, 45, 35]},
        {"eye": [20, 10, 50, 15], "eye 2": [2, 1, 6, 4]},
    ]
    with pytest.raises(ValueError, match=r"do not know c\.jpg"):
        parts_from_coco(COCO, ["c.jpg"])
    documents: list[Any] = [{}, {"images": 3}, {**COCO, "annotations": [{}]}, []]
    for broken in documents:
        with pytest.raises(ValueError, match="no document in COCO's format"):
            parts_from_coco(broken, ["a.jpg"])


def test_every_box_of_coco_keeps_a_name_of_its_own() -> None:
    categories = [{"id": number, "name": name} for number, name in enumerate(["dog", "dog 2", "dog house"])]
    boxes = [{"image_id": 1, "category_id": which, "bbox": [which, 1, 2, 2]} for which in (2, 0, 0, 1, 0)]
    document = {"images": [{"id": 1, "file_name": "a.jpg", "height": 9, "width": 9}], "categories": categories}
    (parts,) = parts_from_coco({**document, "annotations": boxes}, ["a.jpg"])
    assert {name: box[1] for name, box in parts.items()} == {
        "dog house": 2, "dog": 0, "dog 3": 0, "dog 2": 1, "dog 4": 0,
    }  # fmt: skip


def test_a_request_of_countless_names_is_refused_at_once() -> None:
    """Were every name sought in every picture, it would take minutes."""
    pictures = 2_000
    images = [ImageRef(str(number), 250, 250) for number in range(pictures)]
    parts = [{f"part {number} {name}": [0, 0, 9, 9] for name in range(60)} for number in range(pictures)]
    with pytest.raises(InvalidInputError) as caught:
        SPEC.plan(SPEC.parse({"parts": parts}), LITE0, images, {})
    assert [error.message for error in caught.value.errors if error.path == "params.parts"] == [
        "120,000 different parts; the limit is 16"
    ]

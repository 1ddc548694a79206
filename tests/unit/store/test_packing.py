"""What can be stored is stored as it was meant, and what cannot says which result it is, and what is wrong with it."""

import hashlib
import io
import json
import re
from typing import Any

import numpy as np
import pytest

from occluscope.analyses.contract import Outcome
from occluscope.pictures.preparation import Frame
from occluscope.results import (
    ClassMap,
    Column,
    Curves,
    GridGeometry,
    Heatmap,
    Metric,
    NamedResult,
    Packed,
    Result,
    Series,
    Table,
    Variant,
    unpack,
)
from occluscope.windows import WindowGrid
from service.store.packing import PackedResult, UnpackableError, pack_outcome, pack_results

GEOMETRY = GridGeometry(WindowGrid.over((6, 8), (2, 2), (2, 2)), (6, 8), Frame(0, 0, 8, 6))
COLUMNS = (Column("name", "text"), Column("n", "integer"), Column("share", "number"))


def heatmap(values: Any, unit: Any = "probability") -> Heatmap:
    return Heatmap(values, GEOMETRY, unit, "drop")


def table(*cells: Any) -> Table:
    return Table(COLUMNS, (cells,), "numbers")


def packed(result: Any, name: Any = "rows") -> PackedResult:
    (one,) = pack_results([NamedResult(name, result, None, Variant.of(part="a"))])
    return one


def unpacked(one: PackedResult) -> Result:
    array = None if one.array is None else np.load(io.BytesIO(one.array), allow_pickle=False)
    return unpack(one.kind, Packed(json.loads(json.dumps(one.meta, allow_nan=False)), array))


def test_numbers_of_numpy_are_stored_as_the_numbers_they_are() -> None:
    given = table(np.str_("a"), np.int64(2**62), np.float32(0.5))
    assert unpacked(packed(given)) == table("a", 2**62, 0.5)
    others = table(np.array("b"), np.uint8(3), np.float64(0.1))
    assert unpacked(packed(others)) == table("b", 3, 0.1)
    assert unpacked(packed(table(None, np.bool_(True), np.longdouble(0.25)))) == table(None, True, 0.25)


def test_what_was_not_measured_is_null() -> None:
    assert unpacked(packed(table("a", 1, float("nan")))) == table("a", 1, None)
    assert unpacked(packed(table("a", 1, np.float32("nan")))) == table("a", 1, None)


def test_metrics_of_numpy_are_plain_numbers() -> None:
    values: tuple[Any, ...] = (np.float32(0.5), np.int16(3), np.bool_(True), np.array(2.5), 7, True)
    given = [Metric(f"m{place}", value) for place, value in enumerate(values)]
    metrics = pack_outcome(Outcome([], given)).metrics
    assert [metric.value for metric in metrics] == [0.5, 3.0, 1.0, 2.5, 7.0, 1.0]
    assert {type(metric.value) for metric in metrics} == {float}


def test_a_result_is_bytes_once_packed_and_its_digest_is_that_of_what_is_stored() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    values[0, 0] = np.nan
    one = packed(heatmap(values), "map")
    again = unpacked(one)
    assert isinstance(again, Heatmap)
    assert again.values.tobytes() == values.tobytes()
    assert again.geometry == GEOMETRY
    assert (one.name, one.variant, one.kind, one.shape) == ("map", Variant.of(part="a"), "heatmap", [3, 4])
    text = json.dumps(one.meta, sort_keys=True)
    assert one.array is not None
    assert one.sha256 == hashlib.sha256(text.encode() + one.array).hexdigest()
    assert one.stored_bytes == len(text) + len(one.array)
    values += 1  # what the analysis does afterwards changes nothing
    assert np.load(io.BytesIO(one.array))[1, 1] == 5


def test_kept_arrays_are_packed_too() -> None:
    kept = pack_outcome(Outcome([], [], {"a/b": np.arange(6).reshape(2, 3)})).kept
    with np.load(io.BytesIO(kept["a/b"]), allow_pickle=False) as stored:
        assert stored["array"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("result", "wrong"),
    [
        (table("a", 1, 2 + 1j), "rows.0.2 is a complex ((2+1j)); right are text, numbers,"),
        (table("a", 1, {3}), "rows.0.2 is a set ({3});"),
        (table(b"a", 1, 2), "rows.0.0 is a bytes (b'a');"),
        (table("a", np.array([1, 2]), 2), "rows.0.1 is a ndarray (array([1, 2]));"),
        (table("a", 1, float("inf")), "rows.0.2 is inf, which JSON does not have; right is a finite number or none"),
        (table("a\0b", 1, 2), r"rows.0.0 is 'a\x00b'; right is text without NUL and half characters"),
        (table("\ud800", 1, 2), r"rows.0.0 is '\ud800';"),
        (heatmap(np.array([[None, 1.0]])), "its array is of object; right are booleans, integers or floats"),
        (heatmap([[1.0, 2.0]]), "its array is a list; right is a NumPy array"),
        (heatmap(np.zeros((2, 2), complex)), "its array is of complex128;"),
        (heatmap(np.zeros((2, 2)), unit=object), "unit is a type"),
        (table(1, {2: "x"}, 3), "rows.0.1 has the name 2; right is text"),
        (ClassMap(np.zeros((2, 2)), {0: ...}, GEOMETRY, "c"), "labels.0 is a ellipsis"),  # type: ignore[dict-item]
    ],
)
def test_a_result_that_cannot_be_stored_is_named_with_what_is_wrong(result: Any, wrong: str) -> None:
    with pytest.raises(UnpackableError) as raised:
        pack_results(
            [NamedResult("good", table("a", 1, 2)), NamedResult("bad", result, "0f" * 16, Variant.of(window="48×48"))]
        )
    assert str(raised.value).startswith(
        f"result 'bad' (48×48) of picture {'0f' * 16} cannot be stored: {wrong}",
    )


def test_a_result_that_raises_when_it_is_packed_is_named() -> None:
    uneven = Curves(np.arange(3.0), "x", None, (Series("y", np.arange(4.0)),), "uneven")
    with pytest.raises(UnpackableError, match=r"^result 'bad' \(a\) cannot be packed: ValueError: all input arrays"):
        packed(uneven, "bad")


@pytest.mark.parametrize("result", [None, np.zeros((2, 2)), "text"])
def test_what_is_no_result_says_what_results_are(result: Any) -> None:
    with pytest.raises(UnpackableError, match=r"^result 'rows' \(a\) is a \w+; right is one of heatmap, class_map,"):
        packed(result)


@pytest.mark.parametrize("name", [3, None, "a\0"])
def test_a_name_that_is_no_text_is_said(name: Any) -> None:
    with pytest.raises(UnpackableError, match="cannot be stored: name is "):
        packed(table("a", 1, 2), name)
    with pytest.raises(UnpackableError, match="cannot be stored: name is "):
        pack_outcome(Outcome([], [Metric(name, 1.0)]))


@pytest.mark.parametrize("value", ["0.5", None, 1j, np.arange(2.0), float("nan"), np.float32("inf"), 10**400])
def test_a_metric_that_is_no_number_is_named(value: Any) -> None:
    with pytest.raises(UnpackableError, match=r"^metric 'm' \(v\) cannot be stored: "):
        pack_outcome(Outcome([], [Metric("m", value, None, None, Variant.of(part="v"))]))


def test_a_kept_array_that_cannot_be_stored_is_named() -> None:
    with pytest.raises(UnpackableError, match="kept array 'signs' cannot be stored: its array is of object"):
        pack_outcome(Outcome([], [], {"signs": np.array([{}])}))


@pytest.mark.parametrize(
    ("variant", "wrong"),
    [
        ("48×48", "variant is a str ('48×48'); right is a Variant"),
        (Variant.of(part="a\0"), r"variant.part is 'a\x00'; right is text without NUL"),
        (Variant((("part", 3),)), "variant.part is a int (3); right is text"),  # type: ignore[arg-type]
        (Variant((("part", "a"), ("part", "b"))), "right is one part of each name"),
        (Variant.of(part="a" * 1000), "variant has 1,011 letters as JSON; right are at most 1,000"),
    ],
)
def test_a_variant_that_cannot_be_stored_is_said(variant: Any, wrong: str) -> None:
    with pytest.raises(UnpackableError, match=re.escape(wrong)):
        pack_results([NamedResult("rows", table("a", 1, 2), None, variant)])
    with pytest.raises(UnpackableError, match=re.escape(wrong)):
        pack_outcome(Outcome([], [Metric("m", 1.0, None, None, variant)]))


def test_two_results_of_one_name_are_named() -> None:
    twice = [NamedResult("rows", table("a", n, 2), None, Variant.of(part="b")) for n in range(2)]
    with pytest.raises(UnpackableError, match=r"^result 'rows' \(b\) was given 2 times; right is once$"):
        pack_outcome(Outcome(twice, []))

import json

from occluscope.results import ONLY, Variant


def test_parts_are_compared_whole_and_not_by_how_they_read_together() -> None:
    one = Variant.of(layer="a · b", part="c")
    other = Variant.of(layer="a", part="b · c")
    assert str(one) == str(other) == "a · b · c"
    assert one != other
    assert Variant.of(target="fountain") != Variant.of(target="fountain pen")
    assert Variant.of(window="48×48") != Variant.of(target="48×48")


def test_through_json_it_comes_back_with_its_parts_in_order() -> None:
    variant = Variant.of(target="t", family=None).within(window="48×48").within(compared="a − b").among(share="part 1")
    assert [name for name, _ in variant.parts] == ["compared", "window", "target", "share"]
    assert Variant.from_json(json.loads(json.dumps(variant.to_json()))) == variant


def test_the_only_one_of_a_name_has_no_parts() -> None:
    assert not ONLY
    assert Variant.of(target=None, window="") == ONLY == Variant.from_json({})
    assert str(ONLY) == ""

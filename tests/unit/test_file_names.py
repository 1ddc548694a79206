"""Names of the files that results are saved in."""

from datetime import UTC, datetime

import pytest

from occluscope.client import Artifact, Job, Progress
from occluscope.file_names import file_names, file_stems, unique_names
from occluscope.results import ONLY, Variant

NAMES = {"1": "cat", "2": "dog"}


def job(*models: str) -> Job:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return Job(
        id="0", analysis="occlusion", model=models[0], models=list(models), params={}, state="succeeded",
        progress=Progress(done=1, total=1, eta_seconds=None), created_at=moment, started_at=moment,
        finished_at=moment, error=None, images=list(NAMES),
    )  # fmt: skip


def result(
    variant: Variant = ONLY, *, name: str = "pixel_map", model: str | None = "a", image: str | None = "1"
) -> Artifact:
    return Artifact.model_construct(
        id=f"{image} {name} {model} {variant.parts}", name=name, model=model, variant=variant,
        kind="heatmap", image=image, shape=[2, 2], formats=["png", "npy", "json", "csv"], on_picture=image is not None,
        href="/",
    )  # fmt: skip


def files(*artifacts: Artifact, of: Job | None = None, names: dict[str, str] = NAMES) -> list[str]:
    stems = file_stems(artifacts, of or job("a"), names)
    return [name for one in artifacts for name in file_names(one, stems[one.id])]


def test_a_name_tells_picture_result_model_and_variant() -> None:
    one = result(Variant.of(window="48×48", target="tripod"))
    assert file_stems([one], job("a"), NAMES)[one.id] == "cat-pixel_map-48-48-tripod"
    assert file_stems([one], job("a", "b"), NAMES)[one.id] == "cat-pixel_map-a-48-48-tripod"
    assert "cat-pixel_map-48-48-tripod-overlay.png" in files(one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5", "-5"),
        ("+5", "-5"),
        ("c++", "c"),
        ("left/eye", "left eye"),
        ("глаз", "рот"),
        ("Auge", "auge"),
        ("e\u0301", "\u00e9"),
        ("#", "%"),
        ("x" * 300, "x" * 301),
        ("tripod", "tripod-overlay"),
    ],
)
def test_results_that_read_alike_have_files_of_their_own(one: str, other: str) -> None:
    """On file systems that tell neither capitals nor ways to write an accent apart, too."""
    written = files(result(Variant.of(target=one)), result(Variant.of(target=other)))
    assert len({name.casefold() for name in written}) == len(written) == 10
    assert all(len(name.encode()) < 255 for name in written)
    assert written[:5] == files(result(Variant.of(target=one)), result(Variant.of(target=other)))[:5]


def test_letters_of_any_script_and_signs_can_be_read() -> None:
    assert files(result(Variant.of(part="глаз")))[0] == "cat-pixel_map-глаз.png"
    assert files(result(Variant.of(part="−5°")))[0] == "cat-pixel_map-minus-5.png"
    assert files(result(Variant.of(part="56-28")))[0] == "cat-pixel_map-56-28.png"


def test_pictures_models_and_parts_are_told_apart_wherever_they_meet() -> None:
    both = job("a", "A")
    written = files(
        result(model="a"), result(model="A"), result(image="2"),
        result(Variant.of(layer="a · b", part="c")), result(Variant.of(layer="a", part="b · c")),
        result(name="metrics", image=None, model=None),
        of=both, names={"1": "cat", "2": "Cat"},
    )  # fmt: skip
    assert len({name.casefold() for name in [*written, "metrics.json", "index.html"]}) == len(written) + 2


def test_a_pictures_name_leads_to_no_other_folder() -> None:
    for name in ("../../cat", "a\\b", "c:d", "line\nbreak", 'say "x"?'):
        (first, *_) = files(result(), names={"1": name, "2": "dog"})
        assert not set(first) & set('/\\:\n"?')


def test_names_that_read_alike_are_numbered() -> None:
    assert unique_names(["cat", "dog"]) == ["cat", "dog"]
    assert unique_names(["cat", "cat"]) == ["cat-1", "cat-2"]
    for names in (["cat", "cat", "cat-1"], ["Cat", "cat"], ["a", "a", "a-1", "a-1-1"], ["a-2", "a", "a"]):
        given = unique_names(names)
        assert len({name.casefold() for name in given}) == len(given)

"""The Python client against a real service."""

import io
import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image as Picture

from occluscope.client import ApiError, Client, Image, Job
from tests.conftest import encode, random_picture


@pytest.fixture(scope="module")
def picture() -> bytes:
    return encode(random_picture(71))


def test_a_picture_is_taken_as_path_text_bytes_or_file(client: Client, picture: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(picture)
    first = client.upload(picture)
    assert client.upload(path) == client.upload(str(path)) == client.upload(io.BytesIO(picture)) == first
    with path.open("rb") as file:
        assert client.upload(file) == first


def test_a_path_that_is_not_there_is_said_before_anything_is_sent(client: Client) -> None:
    with pytest.raises(FileNotFoundError, match=r"no-such\.jpg"):
        client.upload("no-such.jpg")


def test_one_picture_is_taken_by_id_or_as_it_was_uploaded(client: Client, picture: bytes) -> None:
    image, other = client.upload(picture), client.upload(encode(random_picture(72)))
    params = {"window": 224, "insertion_deletion": False}
    forms: list[tuple[str | Image | list[str | Image], list[str]]] = [
        (image.id, [image.id]),
        (image, [image.id]),
        ([other, image.id], [other.id, image.id]),
    ]
    for given, ids in forms:
        job = client.submit("occlusion", "efficientnet_lite0", given, params)
        assert job.images == ids
        client.cancel(job.id)
    with pytest.raises(ApiError, match=r"images\.0: there is no such picture"):
        client.submit("occlusion", "efficientnet_lite0", "a.png", params)


def test_saved_results_open_as_a_page_with_every_file_it_names(client: Client, tmp_path: Path) -> None:
    images = [client.upload(encode(random_picture(73 + number))) for number in range(2)]
    params = {"window": 112, "stride": 112, "target": ["espresso", "tripod"], "insertion_deletion": False}
    job: Job = client.wait(client.submit("occlusion", "efficientnet_lite0", images, params).id)
    names = {images[0].id: "Cat #1 100%", images[1].id: "cat #1 100%"}
    written = client.save_results(job.id, str(tmp_path / "new" / "out"), names)
    assert len({str(path).casefold() for path in written}) == len(written)
    assert written[-1].name == "index.html"
    linked = {unquote(link) for link in re.findall(r'(?:src|href)="([^"#]+)"', written[-1].read_text("utf-8"))}
    assert linked == {path.name for path in written if path.name not in ("index.html", "metrics.json")}
    for artifact in client.results(job.id).artifacts:
        for form in artifact.formats:
            alike = [path for path in written if path.suffix == f".{form}"]
            assert client.download(artifact, form) in [path.read_bytes() for path in alike]
    assert all(Picture.open(path).size for path in written if path.suffix == ".png")
    numbers = json.loads((tmp_path / "new" / "out" / "metrics.json").read_text())
    assert {number["image"] for number in numbers} == set(names.values())


def test_an_error_while_saving_is_raised_as_it_came(client: Client, picture: bytes, tmp_path: Path) -> None:
    job = client.submit("occlusion", "efficientnet_lite0", client.upload(picture).id, {"window": 224})
    client.wait(job.id)
    (tmp_path / "out").write_text("a file where the folder would be")
    with pytest.raises(FileExistsError):
        client.save_results(job.id, tmp_path / "out")

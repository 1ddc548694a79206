"""Bad input over real HTTP: a 4xx problem that names the field, with nothing stored."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import func, select

from occluscope.client import Client
from service.running.stack import Stack
from service.store.database import Database
from service.store.tables import Base
from tests.conftest import encode, random_picture
from tests.unit.pictures.test_reading import BAD, png_header

GOOD: dict[str, Any] = {"analysis": "occlusion", "model": "efficientnet_lite0", "params": {}}
NOBODY = "0" * 32


@pytest.fixture
def image(client: Client) -> str:
    return client.upload(encode(random_picture(100))).id


@pytest.fixture(autouse=True)
def nothing_stored(stack: Stack, image: str) -> Iterator[None]:  # noqa: ARG001 - uploaded before counting
    """Whatever a test here sends, the store holds afterwards what it held before."""
    database = Database(stack.settings.database_url)

    def rows() -> dict[str, int]:
        with database.reading() as session:
            tables = (table for table in Base.metadata.sorted_tables if table.name != "workers")
            return {table.name: session.scalar(select(func.count()).select_from(table)) or 0 for table in tables}

    before = rows()
    yield
    assert rows() == before
    database.close()


def problem(response: httpx.Response, status: int) -> dict[str, str]:
    """Check that it is a problem of this status; gives its errors by path."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    content = response.json()
    assert content["status"] == status
    assert {"type", "title", "detail"} <= set(content)
    assert "Traceback" not in response.text
    return {error["path"]: error["message"] for error in content["errors"]}


def test_of_very_many_errors_the_first_are_listed_and_all_counted(stack: Stack, image: str) -> None:
    unknown = {f"field {number}": 1 for number in range(100_000)} | {"x" * 10_000: 1}
    response = httpx.post(f"{stack.url}/v1/jobs", json={**GOOD, "images": [image], "params": unknown}, timeout=60)
    assert len(problem(response, 422)) == 100
    assert "100,001 of them" in response.json()["detail"]
    assert len(response.content) < 20_000
    response = httpx.post(f"{stack.url}/v1/jobs", json={**GOOD, "images": [image], "x" * 100_000: 1})
    assert len(response.content) < 2_000


@pytest.mark.parametrize("name", BAD)
def test_bad_pictures(stack: Stack, name: str) -> None:
    content, _ = BAD[name]
    errors = problem(httpx.post(f"{stack.url}/v1/images", files={"file": ("cat.jpg", content, "image/jpeg")}), 422)
    assert errors["file"]


def test_a_bomb_is_refused_from_its_header(stack: Stack) -> None:
    response = httpx.post(f"{stack.url}/v1/images", files={"file": png_header(50_000, 50_000)})
    assert "64,000,000" in problem(response, 422)["file"]
    assert response.elapsed.total_seconds() < 30  # its pixels would take minutes, and gigabytes


def test_a_body_without_a_picture(stack: Stack) -> None:
    assert "missing" in problem(httpx.post(f"{stack.url}/v1/images", files={"picture": b"x"}), 422)["file"]
    assert "file" in problem(httpx.post(f"{stack.url}/v1/images", files={"file": ("", b"")}), 422)
    problem(httpx.post(f"{stack.url}/v1/images", json={"file": "x"}), 415)
    problem(httpx.post(f"{stack.url}/v1/images", content=encode(random_picture(101))), 415)


def test_a_body_over_the_limit(stack: Stack) -> None:
    big = np.random.default_rng(0).bytes(stack.settings.max_body_bytes + 1)
    problem(httpx.post(f"{stack.url}/v1/images", files={"file": big}, timeout=60), 413)


def test_json_over_its_limit(stack: Stack) -> None:
    request = {**GOOD, "images": [], "params": {"target": "x" * stack.settings.max_json_bytes}}
    problem(httpx.post(f"{stack.url}/v1/jobs", json=request), 413)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"analysis": "astrology"}, "analysis"),
        ({"analysis": 3}, "analysis"),
        ({"analysis": "../occlusion"}, "analysis"),
        ({"model": "resnet5"}, "model"),
        ({"model": None}, "model"),
        ({"images": []}, "images"),
        ({"images": "one"}, "images"),
        ({"images": [NOBODY]}, "images.0"),
        ({"images": ["\ud800"]}, "images.0"),
        ({"images": ["a\x00b"]}, "images.0"),
        ({"images": ["' OR 1=1 --"]}, "images.0"),
        ({"images": [{}]}, "images.0"),
        ({"images": [NOBODY] * 10_001}, "images"),
        ({"params": []}, "params"),
        ({"params": {"window": 0}}, "params.window"),
        ({"params": {"window": -3}}, "params.window"),
        ({"params": {"window": "big"}}, "params.window"),
        ({"params": {"window": 10**40}}, "params.window"),
        ({"params": {"window": 225}}, "params.window"),
        ({"params": {"window": 1, "stride": 10**9}}, "params.stride.0"),
        ({"params": {"window": 1, "stride": 1}, "model": "vit_h_14"}, "params.stride"),  # 268,324 windows
        ({"params": {"target": "nothing of the kind"}}, "params.target"),
        ({"params": {"target": "\ud800"}}, "params.target"),
        ({"params": {"target": 10**40}}, "params.target"),
        ({"params": {"colour": 1}}, "params.colour"),
        ({"priority": "high"}, "priority"),
        ({"webhook": 3}, "webhook"),
        ({"webhook": "tomorrow"}, "webhook"),
        ({"webhook": "ftp://1.1.1.1/"}, "webhook"),
        ({"webhook": "http://127.0.0.1:8000/v1/jobs"}, "webhook"),
        ({"webhook": "http://localhost/"}, "webhook"),
        ({"webhook": "http://10.1.2.3/"}, "webhook"),
        ({"webhook": "http://169.254.169.254/latest/meta-data"}, "webhook"),
        ({"webhook": "http://[::ffff:10.0.0.1]/"}, "webhook"),
        ({"webhook": "http://[fec0::1]/"}, "webhook"),
        ({"webhook": "http://192.0.0.192/"}, "webhook"),
        ({"webhook": "http://1.1.1.1:25/"}, "webhook"),
        ({"webhook": "http://xn--/"}, "webhook"),
        ({"webhook": "http://" + "a" * 64 + ".org/"}, "webhook"),
        ({"webhook": "http://a..b/"}, "webhook"),
        ({"webhook": "http://1.1.1.1/\n"}, "webhook"),
        ({"webhook": "http://\ud800/"}, "webhook"),
    ],
)
def test_bad_jobs(stack: Stack, image: str, change: dict[str, Any], path: str) -> None:
    request = json.dumps({**GOOD, "images": [image], **change})
    response = httpx.post(f"{stack.url}/v1/jobs", content=request, headers={"Content-Type": "application/json"})
    assert path in problem(response, 422)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(stack: Stack, image: str, number: str) -> None:
    request = json.dumps({**GOOD, "images": [image]}).replace('"params": {}', f'"params": {{"window": [32, {number}]}}')
    assert number in request
    response = httpx.post(f"{stack.url}/v1/jobs", content=request, headers={"Content-Type": "application/json"})
    assert "params.window" in problem(response, 422)


def test_a_missing_field_is_named(stack: Stack) -> None:
    assert set(problem(httpx.post(f"{stack.url}/v1/jobs", json={}), 422)) == {"analysis", "model", "images"}


def test_the_same_picture_twice(stack: Stack, image: str) -> None:
    response = httpx.post(f"{stack.url}/v1/jobs", json={**GOOD, "images": [image, image]})
    assert problem(response, 422) == {"images.1": "the same picture as images.0"}


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 5000])
def test_a_body_that_is_no_json(stack: Stack, body: bytes) -> None:
    response = httpx.post(f"{stack.url}/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    problem(response, 400)


@pytest.mark.parametrize("body", [b"[]", b"null", b'"{}"', b"3"])
def test_json_that_is_no_object(stack: Stack, body: bytes) -> None:
    response = httpx.post(f"{stack.url}/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    problem(response, 422)


def test_a_job_of_another_content_type(stack: Stack) -> None:
    problem(httpx.post(f"{stack.url}/v1/jobs", data={"analysis": "occlusion"}), 415)


@pytest.mark.parametrize("key", ["", "k" * 256, "a b"])
def test_a_bad_idempotency_key(stack: Stack, image: str, key: str) -> None:
    response = httpx.post(f"{stack.url}/v1/jobs", json={**GOOD, "images": [image]}, headers={"Idempotency-Key": key})
    assert "Idempotency-Key" in problem(response, 422)


@pytest.mark.parametrize("place", ["jobs", "images", "artifacts", "models", "analyses"])
@pytest.mark.parametrize("name", [NOBODY, "x", "%00", "%F0%9F%90%88", "1%20OR%201=1", "%ED%A0%80", "a" * 3000])
def test_what_does_not_exist(stack: Stack, place: str, name: str) -> None:
    problem(httpx.get(f"{stack.url}/v1/{place}/{name}"), 404)


def test_results_and_deletion_of_no_job(stack: Stack) -> None:
    problem(httpx.get(f"{stack.url}/v1/jobs/{NOBODY}/results"), 404)
    problem(httpx.delete(f"{stack.url}/v1/jobs/{NOBODY}"), 404)


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=many", "limit"),
        ("state=lost", "state"),
        ("cursor=x", "cursor"),
        ("cursor=%00", "cursor"),
        ("sort=up", "sort"),
    ],
)
def test_bad_lists(stack: Stack, query: str, path: str) -> None:
    assert path in problem(httpx.get(f"{stack.url}/v1/jobs?{query}"), 422)


def test_methods_and_paths_that_are_not_there(stack: Stack) -> None:
    response = httpx.put(f"{stack.url}/v1/jobs", json={})
    problem(response, 405)
    assert "POST" in response.headers["allow"]
    problem(httpx.get(f"{stack.url}/v2/jobs"), 404)


def test_requests_from_other_sites_pages(stack: Stack, image: str) -> None:
    for site in ("cross-site", "same-site"):
        headers = {"Sec-Fetch-Site": site}
        problem(httpx.post(f"{stack.url}/v1/images", files={"file": b"x"}, headers=headers), 403)
        problem(httpx.post(f"{stack.url}/v1/jobs", json={**GOOD, "images": [image]}, headers=headers), 403)


def test_requests_addressed_to_a_foreign_host(stack: Stack) -> None:
    """A name that an attacker points at the loopback address (DNS rebinding)."""
    problem(httpx.get(f"{stack.url}/v1/jobs", headers={"Host": "evil.example"}), 400)


def test_the_same_bytes_again_are_no_new_picture(stack: Stack, image: str) -> None:
    again = httpx.post(f"{stack.url}/v1/images", files={"file": encode(random_picture(100))})
    assert (again.status_code, again.json()["id"]) == (200, image)

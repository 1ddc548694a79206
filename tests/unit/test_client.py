"""What the client does when the service has no room for a picture, or answers otherwise than the client knows."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from occluscope.client import ApiError, Artifact, Client, UnexpectedAnswerError

IMAGE = {"id": "a", "sha256": "b", "format": "PNG", "width": 1, "height": 1}
ARTIFACT = Artifact(
    id="a", name="drop_map", model=None, kind="heatmap", image=None, shape=None, formats=["png"], on_picture=False,
    href="/v1/artifacts/a",
)  # fmt: skip
JOB: dict[str, Any] = {  # as the first services sent it
    "id": "a", "analysis": "occlusion", "model": "m", "models": ["m"], "params": {}, "state": "running",
    "progress": {"done": 3, "total": 9, "eta_seconds": None}, "created_at": "2026-01-01T00:00:00Z", "started_at": None,
    "finished_at": None, "error": None,
}  # fmt: skip
BUSY = {"title": "Service Unavailable", "status": 503, "detail": "Too many pictures are worked on just now."}


@contextmanager
def service(refusals: int, retry_after: str | None) -> Iterator[tuple[str, list[bytes]]]:
    """A service that refuses so many requests first. Gives its address and the bodies that came."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            busy = len(bodies) <= refusals
            content = json.dumps(BUSY if busy else IMAGE).encode()
            self.send_response(503 if busy else 200)
            if busy and retry_after is not None:
                self.send_header("Retry-After", retry_after)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer  # noqa: N815 - http.server's names

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", bodies
        finally:
            server.shutdown()
            thread.join()


def test_a_picture_is_sent_again_whole_when_the_service_says_so() -> None:
    with service(refusals=2, retry_after="0") as (url, bodies), Client(url) as client:
        assert client.upload(b"pixels").id == "a"
    assert len(bodies) == 3
    assert all(b"pixels" in body for body in bodies)


def test_a_result_is_asked_for_again_when_the_service_says_so() -> None:
    with service(refusals=4, retry_after="0") as (url, bodies), Client(url) as client:
        assert json.loads(client.download(ARTIFACT, "png")) == IMAGE
    assert len(bodies) == 5


@pytest.mark.parametrize(("retry_after", "tries"), [("0", 5), (None, 1), ("Wed, 21 Oct 2015 07:28:00 GMT", 1)])
def test_tries_end_with_what_the_service_said(retry_after: str | None, tries: int) -> None:
    with service(refusals=99, retry_after=retry_after) as (url, bodies), Client(url) as client:
        with pytest.raises(ApiError, match="worked on just now") as refused:
            client.upload(b"pixels")
        assert refused.value.status == 503
    assert len(bodies) == tries


def test_what_needs_no_picture_is_asked_once() -> None:
    with service(refusals=99, retry_after="0") as (url, bodies), Client(url) as client:
        with pytest.raises(ApiError):
            client.job("a")
        assert len(bodies) == 1


@contextmanager
def answering(content: bytes, content_type: str = "application/json") -> Iterator[str]:
    """A service that answers everything with the same. Gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_fields_of_a_newer_service_are_passed_over() -> None:
    newer = {**JOB, "colour": "red", "progress": {**JOB["progress"], "speed": [1]}, "webhook": None}
    with answering(json.dumps(newer).encode()) as url, Client(url) as client:
        job = client.job("a")
    assert (job.state, job.progress.done, job.ended) == ("running", 3, False)
    assert "colour" not in job.model_dump()


def test_what_an_older_service_does_not_send_has_a_default() -> None:
    with answering(json.dumps(JOB).encode()) as url, Client(url) as client:
        job = client.job("a")
    assert (job.priority, job.results_version, job.images, job.webhook) == ("batch", 0, [], None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>It works!</html>", "no JSON, where Job is expected"),
        (b"[]", "fields that this client does not understand"),
        (json.dumps({**JOB, "state": "asleep"}).encode(), r"state: .*'queued'.*given 'asleep'"),
        (json.dumps({**JOB, "progress": {"done": 3}}).encode(), r"progress\.total: Field required"),
    ],
    ids=["a page", "a list", "another state", "half of it"],
)
def test_who_answers_something_else_is_named_with_what_is_wrong(content: bytes, said: str) -> None:
    with answering(content) as url, Client(url) as client, pytest.raises(UnexpectedAnswerError, match=said) as raised:
        client.job("a")
    assert f"GET {url}/v1/jobs/a answered with" in str(raised.value)
    assert "right is an Occluscope service" in str(raised.value)


@pytest.mark.parametrize("content", [b"<html></html>", b"{}", b'{"models": [{"name": 1}]}'])
def test_lists_that_are_none_are_no_lists(content: bytes) -> None:
    with answering(content) as url, Client(url) as client:
        for ask in (client.models, client.analyses, lambda: list(client.jobs()), lambda: client.results("a")):
            with pytest.raises(UnexpectedAnswerError):
                ask()

"""What the client does when the service has no room for a picture, against a server that says so."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from occluscope.client import ApiError, Artifact, Client

IMAGE = {"id": "a", "sha256": "b", "format": "PNG", "width": 1, "height": 1}
ARTIFACT = Artifact(
    id="a", name="drop_map", model=None, kind="heatmap", image=None, shape=None, formats=["png"], on_picture=False,
    href="/v1/artifacts/a",
)  # fmt: skip
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

"""The API's server against slow, silent and large requests: real sockets, and a process of its own."""

import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from PIL import Image

from service.server import limits
from service.store.database import Database
from service.store.keys import add_key
from tests.conftest import encode
from tests.parts import COMMAND, free_port, wait_until

MEDIA_TYPE = "application/problem+json"
TCP_ESTABLISHED = 1  # of the kernel's tcp_info
MANY = 64  # connections that do what they should not


@dataclass(frozen=True)
class Api:
    """A running API without workers, which asks for keys."""

    url: str
    port: int
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def connection(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder, port = tmp_path_factory.mktemp("api"), free_port()
    url = f"sqlite:///{folder / 'store.db'}"
    environment = {**os.environ, "OCCLUSCOPE_DATABASE_URL": url, "OCCLUSCOPE_BROKER_URL": "redis://127.0.0.1:9/0"}
    subprocess.run([COMMAND, "migrate"], env=environment, check=True)
    database = Database(url)
    with database.writing() as session:
        key = add_key(session, "ada")
    database.close()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([COMMAND, "serve", "--port", str(port)], env=environment, stderr=log, stdout=log)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}"), 60)
        yield Api(f"http://127.0.0.1:{port}", port, key)
    finally:
        process.terminate()
        assert process.wait(30) == 0, Path(log.name).read_text()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=5).is_success
    except httpx.HTTPError:
        return False


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    found = bytearray()
    while piece := connection.recv(65536):
        found += piece
    return bytes(found)


def problem_in(answer: bytes, status: int) -> str:
    """The detail of a raw answer, which is a problem document of this status."""
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert MEDIA_TYPE.encode() in head.lower()
    found = json.loads(body)
    assert found["status"] == status
    return str(found["detail"])


SLOW = {
    "silent": b"",
    "half a request line": b"GET /v1/jo",
    "half a header": b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Le",
    "half a body": b"POST /v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900\r\n\r\n{",
    "half a chunked body": b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
}


@pytest.mark.parametrize("sent", SLOW.values(), ids=SLOW)
def test_who_waits_holds_up_nobody_and_is_closed(api: Api, sent: bytes) -> None:
    """The issue's eight sockets, eightfold: health and the API's own calls are answered beside them."""
    with ExitStack() as held:
        connections = [held.enter_context(api.connection()) for _ in range(MANY)]
        for connection in connections:
            connection.sendall(sent)
        began = time.monotonic()
        with httpx.Client(base_url=api.url, headers=api.headers, timeout=limits.HEADER_SECONDS / 2) as client:
            for path in ("/healthz", "/v1/jobs", "/v1/models", "/healthz"):
                assert client.get(path).status_code == 200
        assert time.monotonic() - began < limits.HEADER_SECONDS  # they were all still held
        ends = [received(connection) for connection in connections]
    for end in ends:
        problem_in(end, 408)


def test_a_header_without_end_is_refused(api: Api) -> None:
    with api.connection() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        for number in range(40):
            try:
                connection.sendall(b"X-%d: " % number + b"x" * 4000 + b"\r\n")
            except OSError:  # it does not listen any more
                break
        detail = problem_in(received(connection), 431)
    assert "65,536" in detail


def test_no_request_however_odd_gets_anything_but_a_problem(api: Api) -> None:
    """What no client library would send."""
    for line in (b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET /\xc3\xa9 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"):
        with api.connection() as connection:
            connection.sendall(line)
            connection.shutdown(socket.SHUT_WR)
            answer = received(connection)
        assert b"text/html" not in answer
        assert problem_in(answer, int(answer[9:12]))
        assert 400 <= int(answer[9:12]) < 500


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_its_limit_is_refused_and_says_which_limit(api: Api, chunked: bool) -> None:
    """However it is sent: nothing is cut off and taken for the whole."""
    for path, most in (
        ("/v1/images", 32 * 2**20),
        ("/v1/jobs", 2 * 2**20),
        ("/v1/session", limits.SESSION_BYTES),
    ):
        body = b"x" * (most + 1)
        content = iter([body[: most // 2], body[most // 2 :]]) if chunked else body
        headers = {**api.headers, "Content-Type": "application/json"}
        answer = httpx.post(f"{api.url}{path}", content=content, headers=headers, timeout=60)
        assert answer.status_code == 413
        assert answer.headers["Content-Type"] == MEDIA_TYPE
        assert f"{most:,}" in answer.json()["detail"]


def test_a_chunked_body_is_taken_whole(api: Api) -> None:
    job = json.dumps({"analysis": "none", "model": "resnet18", "images": ["0" * 32]}).encode()
    headers = {**api.headers, "Content-Type": "application/json"}
    answer = httpx.post(f"{api.url}/v1/jobs", content=iter([job[:9], job[9:]]), headers=headers)
    assert answer.status_code == 422
    assert {error["path"] for error in answer.json()["errors"]} == {"analysis", "images.0"}


def test_of_a_strangers_body_little_is_read(api: Api) -> None:
    """Without a key the refusal comes before the body has been sent."""
    for key in ({}, {"Authorization": "Bearer occ_wrong"}):
        lines = "".join(f"{name}: {value}\r\n" for name, value in key.items())
        with api.connection() as connection:
            head = f"POST /v1/images HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}Content-Length: {30 * 2**20}\r\n\r\n"
            connection.sendall(head.encode() + b"x" * 2 * limits.STRANGERS_BYTES)
            problem_in(received(connection), 401)


def test_hundreds_of_open_connections_are_served(api: Api) -> None:
    """Each keeps its connection, as pages that are watched do."""
    with ExitStack() as held:
        clients = [held.enter_context(httpx.Client(base_url=api.url, headers=api.headers)) for _ in range(300)]
        with ThreadPoolExecutor(16) as threads:
            for _ in range(2):
                found = list(threads.map(lambda client: client.get("/v1/jobs", timeout=60).status_code, clients))
                assert found == [200] * len(clients)


def test_who_does_not_read_its_answers_takes_no_thread_and_is_closed(api: Api) -> None:
    """Large answers, asked for over connections that read none of them: more than the kernel's buffers take."""
    request = head(api, "GET /openapi.json HTTP/1.1")
    with ExitStack() as held:
        connections = [held.enter_context(socket.socket()) for _ in range(12)]
        for connection in connections:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", api.port))
            threading.Thread(target=_send_all, args=(connection, request * 400), daemon=True).start()
        for _ in range(5):
            assert httpx.get(f"{api.url}/v1/models", headers=api.headers, timeout=20).status_code == 200
        wait_until(lambda: not any(is_open(connection) for connection in connections), 4 * limits.SEND_IDLE_SECONDS)


def is_open(connection: socket.socket) -> bool:
    """Whether the other side has not closed or reset it: by the kernel's own state, since nothing is read."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_ESTABLISHED


def _send_all(connection: socket.socket, content: bytes) -> None:
    with suppress(OSError):  # closed at the end of the test
        connection.sendall(content)


def test_large_pictures_hold_up_only_each_other(api: Api) -> None:
    """More than there are threads, each a second's work or more: other calls are answered while they wait."""
    large = encode(Image.new("RGBA", (8000, 8000), (200, 30, 60, 128)))

    def upload(number: int) -> int:
        # What follows a PNG's end is not read: each is another file with the same pixels.
        file = {"file": large + number.to_bytes()}
        return httpx.post(f"{api.url}/v1/images", files=file, headers=api.headers, timeout=120).status_code

    with ThreadPoolExecutor(10) as threads, httpx.Client(base_url=api.url, headers=api.headers, timeout=120) as client:
        uploads = [threads.submit(upload, number) for number in range(10)]

        def ended() -> int:
            return sum(one.done() for one in uploads)

        while (before := ended()) < len(uploads):
            for path in ("/v1/jobs", "/healthz"):
                assert client.get(path).status_code == 200
            assert ended() - before <= 4  # of ten, while two small answers came
        assert [one.result() for one in uploads] == [201] * len(uploads)


@pytest.mark.parametrize(("host", "status"), [
    ("localhost", 200), ("127.0.0.1:99", 200), ("[::1]", 200), ("[::1]:8000", 200), ("evil.example", 400),
    ("[::2]", 400), ("localhost.evil.example", 400), ("", 400), ("[::1", 400), ("a b", 400),
])  # fmt: skip
def test_requests_name_a_host_that_is_trusted(api: Api, host: str, status: int) -> None:
    answer = httpx.get(f"{api.url}/v1/jobs", headers={**api.headers, "Host": host})
    assert answer.status_code == status
    if status != 200:
        assert answer.headers["Content-Type"] == MEDIA_TYPE


def asked(api: Api, *pieces: bytes, pause: float = 0.0) -> bytes:
    """All that comes back for what is sent, piece by piece, until the other side closes."""
    with api.connection() as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        return received(connection)


def head(api: Api, line: str, *more: str) -> bytes:
    key = f"Authorization: Bearer {api.key}"
    return "\r\n".join([line, "Host: 127.0.0.1", key, *more, "", ""]).encode()


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


def test_a_body_is_a_body_whatever_upgrade_is_proposed(api: Api) -> None:
    """Java's client proposes HTTP/2 with its first request; a body that comes later is no request of its own."""
    body = head(api, "GET /v1/analyses HTTP/1.1", "Connection: close")
    more = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
    first = head(api, "POST /v1/jobs HTTP/1.1", "Content-Type: application/json", f"Content-Length: {len(body)}", *more)
    answers = asked(api, first, body, pause=0.3)
    assert statuses(answers) == [400]
    assert b"no JSON" in answers


def test_trailers_are_no_headers_and_have_an_end(api: Api) -> None:
    chunked = head(api, "POST /v1/jobs HTTP/1.1", "Transfer-Encoding: chunked", "Connection: close")
    answers = asked(api, chunked + b"2\r\n{}\r\n0\r\nContent-Type: application/json\r\n\r\n")
    assert statuses(answers) == [415]
    with api.connection() as connection:
        connection.sendall(chunked + b"2\r\n{}\r\n0\r\n")
        with suppress(OSError):  # it does not listen any more
            for _ in range(200):
                connection.sendall(b"x: " + b"a" * 4000 + b"\r\n")
        assert statuses(received(connection)) in ([431], [400])


def test_requests_that_follow_each_other_are_all_answered(api: Api) -> None:
    """The second one's body comes later; and what comes after a request, however odd, costs it no answer."""
    second = head(api, "POST /v1/images HTTP/1.1", "Content-Length: 200000", "Connection: close")
    answers = asked(api, head(api, "GET /openapi.json HTTP/1.1") + second, b"x" * 200_000, pause=0.3)
    assert statuses(answers) == [200, 415]
    alive = head(api, "GET /healthz HTTP/1.1", "Content-Length: 200000")
    answers = asked(api, alive, b"x" * 200_000, head(api, "GET /healthz HTTP/1.1", "Connection: close"), pause=0.2)
    assert statuses(answers) == [200, 200]
    assert statuses(asked(api, head(api, "GET /openapi.json HTTP/1.1") + b"GARBAGE\r\n\r\n")) == [200, 400]


@pytest.mark.parametrize("path", ["/", "/v1/sessionx", "/%761/images", "//v1/images", "/v1/session", "/v1/images/"])
def test_wherever_a_stranger_sends_it_little_of_a_body_is_taken(api: Api, path: str) -> None:
    answer = httpx.post(f"{api.url}{path}", content=b"x" * 2**20)
    assert answer.status_code in (401, 413)
    assert answer.headers["Content-Type"] == MEDIA_TYPE


def test_an_origin_of_any_form_is_another_site(api: Api) -> None:
    for origin in ("http://[", "null", "", "://", "http://127.0.0.1.evil.example"):
        answer = httpx.post(f"{api.url}/v1/jobs", headers={**api.headers, "Origin": origin}, json={})
        assert (answer.status_code, answer.headers["Content-Type"]) == (403, MEDIA_TYPE), origin

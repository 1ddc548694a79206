"""Every route, asked as no client would: each error is a problem document, and nobody's mistake is a 500."""

import base64
import json
import re
from collections.abc import Iterator
from http import HTTPStatus
from itertools import product
from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests.unit.api.conftest import Served

NO_ID = "0" * 32
IDS = (NO_ID, "%00", "%ff", "..", "a/b", "%2e%2e%2f", "9" * 400, "x" * 3000)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO")
UNKNOWN = (
    *("/nothing", "/v1", "/v1/", "//", "/v1//jobs", "/v1/jobs/", "/jobs//x", "/%00", "/%ff", "/favicon.ico"),
    *("/static/", "/static/../app.py", "/static/%00", "/openapi", "/openapi/openapi.json"),
)
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "NUL": b"\0",
    "not UTF-8": b"\xff\xfe",
    "null": b"null",
    "array": b"[]",
    "JSON in a string": b'"{\\"key\\": \\"x\\"}"',
    "empty object": b"{}",
    "control character": b'{"key": "\\u0001"}',
    "another": b'{"key": "\\u001f"}',
    "raw control character": b'{"key": "\x01"}',
    "half a character": b'{"key": "\\ud800"}',
    "infinity": b'{"key": 1e999}',
    "huge integer": b"9" * 5000,
    "deep": b"[" * 100_000,
    "NULs in a job": b'{"analysis": "\\u0000", "model": "\\u0000", "images": ["\\u0000"], "params": {"\\u0000": NaN}}',
    "webhook of half a name": b'{"analysis": "occlusion", "model": "efficientnet_lite0", "images": ["0"], '
    b'"webhook": "http://xn--/"}',
    "form": b'--x\r\nContent-Disposition: form-data; name="file"; filename="\0"\r\n\r\n\0\r\n--x--',
    "half a form": b'--x\r\nContent-Disposition: form-data; name="file',
}
TYPES = (None, "application/json", "application/json; charset=utf-7", "multipart/form-data; boundary=x",
         "multipart/form-data", "text/plain", "application/x-www-form-urlencoded", "a/b; charset=nothing")  # fmt: skip
QUERIES = (
    *("limit=99999999999999999999999", "limit=a", "limit=1&limit=2", "cursor=%00", "cursor=%ff", "cursor=MTIz"),
    *("cursor=" + "A" * 3000, "state=%00", "analysis=%00", "format=%ff", "size=1e9", "alpha=nan", "colormap=%00"),
    *("overlay=2", "unknown=1", "%00=%00", "name=%00", "image=%00"),
)
HEADERS: tuple[dict[str, str], ...] = (
    *({"Host": host} for host in ("x", "", "[::1", "localhost:99999999", "localhost:a", "é")),
    *({"Authorization": value} for value in ("Bearer \xff", "Basic x", "Bearer ", "x")),
    *({"Cookie": value} for value in ("\x01", "occluscope_key=\xff", "occluscope_session=\xff; ;=")),
    *({"Accept": value} for value in ("\x01", "*/*;q=x", "text/html")),
    *({"Range": "bytes=9999999-"}, {"Range": "x"}, {"If-None-Match": "\x01"}, {"Idempotency-Key": "\xff"}),
    *({"Origin": value} for value in ("null", "http://[", "http://\x01", "\xff", "http://localhost:x")),
    *({"Sec-Fetch-Site": "cross-site"}, {"Content-Encoding": "gzip"}, {"Content-Length": "x"}),
)


def routes(served: Served, ids: tuple[str, ...] = IDS[:1]) -> Iterator[str]:
    """Every path, those with a part to be filled in once for each id; and some that there are not."""
    for rule in served.app.url_map.iter_rules():
        if rule.rule != "/readyz":  # waits for the broker, whatever is asked
            for one in ids if "<" in rule.rule else ids[:1]:
                yield re.sub(r"<[^>]+>", one, rule.rule)
    yield from UNKNOWN


def ask(served: Served, method: str, path: str, **options: Any) -> TestResponse:
    headers = {**served.headers, **options.pop("headers", {})}
    with served.client() as client:
        return client.open(path, method=method, headers=headers, **options)


def check(answer: TestResponse, path: str, asked: object) -> None:
    """An answer that a client can read, whatever was asked."""
    text = answer.get_data(as_text=True)
    if path.startswith("/readyz") and answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        assert answer.content_type == "application/json"  # what is missing: there is no broker here
        return
    assert answer.status_code < 300 or 400 <= answer.status_code < 500, (asked, text)
    if answer.status_code >= 400:
        assert answer.content_type == "application/problem+json", (asked, text)
        if answer.request.method != "HEAD":
            assert answer.json is not None
            assert answer.json["status"] == answer.status_code
            assert {"type", "title", "detail", "errors"} == set(answer.json) - {"status"}


def test_odd_methods_and_ids(served: Served) -> None:
    for path, method in product(("/readyz", *routes(served, IDS)), METHODS):
        check(ask(served, method, path), path, (method, path[:80]))


def test_odd_queries(served: Served) -> None:
    for path, query in product(routes(served), QUERIES):
        check(ask(served, "GET", f"{path}?{query}"), path, (path[:80], query))


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_odd_bodies(served: Served, body: bytes) -> None:
    paths = [path for path in routes(served) if path.startswith("/v1/")]
    for path, content_type in product(paths, TYPES):
        answer = ask(served, "POST", path, data=body, content_type=content_type)
        check(answer, path, (path, body[:80], content_type))


@pytest.mark.slow
def test_odd_headers(served: Served) -> None:
    for path, headers in product(routes(served), HEADERS):
        check(ask(served, "GET", path, headers=headers), path, (path, headers))
        options = {"data": b"{}", "content_type": "application/json"}
        check(ask(served, "POST", path, headers=headers, **options), path, (path, headers))


@pytest.mark.parametrize("key", ["\\u0001", "a\\u001fb", "\\u0000", "a b", "\\u00e9", "\\ud800", "occ_x\\n"])
def test_a_key_that_is_no_key_is_told_so(served: Served, key: str) -> None:
    body = f'{{"key": "{key}"}}'
    answer = ask(served, "POST", "/v1/session", data=body, content_type="application/json")
    assert answer.status_code == 422
    assert answer.json is not None
    assert [error["path"] for error in answer.json["errors"]] == ["key"]
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    ("path", "content", "limit"),
    [
        ("/v1/images", {"data": {"file": "x" * (32 * 2**20 + 1)}}, "33,554,432 bytes"),
        ("/v1/images", {"data": {"file": "x" * 500_001}}, "500,000 bytes of text"),
        ("/v1/images", {"data": {f"{number}": "x" for number in range(1001)}}, "1,000 parts"),
        ("/v1/jobs", {"data": b" " * (2 * 2**20 + 1), "content_type": "application/json"}, "2,097,152 bytes"),
        ("/v1/session", {"data": b" " * (2 * 2**20 + 1), "content_type": "application/json"}, "2,097,152 bytes"),
    ],
)
def test_a_body_over_a_limit_is_told_which(served: Served, path: str, content: dict[str, Any], limit: str) -> None:
    answer = ask(served, "POST", path, **{"content_type": "multipart/form-data", **content})
    assert answer.status_code == 413
    assert answer.json is not None
    assert limit in answer.json["detail"]


@pytest.mark.parametrize("path", ["/v1/jobs/%00", "/v1/images/a%00b", "/v1/artifacts/%00", "/jobs/%00", "/static/%00"])
def test_a_nul_is_in_no_name(served: Served, path: str) -> None:
    """SQLite takes it, PostgreSQL raises."""
    answer = served.client().get(path, headers=served.headers)
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")


def test_a_nul_or_an_odd_moment_in_a_query_is_a_field_that_is_wrong(served: Served) -> None:
    early = base64.urlsafe_b64encode(json.dumps(["0001-01-01T00:00:00+14:00", "0" * 32]).encode()).decode()
    for query, path in (("analysis=%00", "analysis"), ("cursor=%00", "cursor"), (f"cursor={early}", "cursor")):
        answer = served.client().get(f"/v1/jobs?{query}", headers=served.headers)
        assert answer.status_code == 422
        assert [error["path"] for error in answer.get_json()["errors"]] == [path]

"""A service that asks for keys: nobody sees another's, and owners take turns."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from occluscope.client import ApiError, Client, Job
from service.running.stack import Stack, running_stack
from service.store.database import Database
from service.store.migrate import migrate
from tests.conftest import Keyed, encode, random_picture
from tests.parts import COMMAND, free_port, wait_until

MODEL = "efficientnet_lite0"
SHORT = {"window": 112, "stride": 56, "insertion_deletion": False}


@pytest.fixture
def clients(keyed: Keyed) -> Iterator[tuple[Client, Client]]:
    with ExitStack() as opened:
        ada, ben = (opened.enter_context(Client(keyed.stack.url, api_key=key)) for key in keyed.keys.values())
        yield ada, ben


@pytest.fixture
def job(clients: tuple[Client, Client]) -> Job:
    """One of ada's, done."""
    image = clients[0].upload(encode(random_picture(1)))
    return clients[0].wait(clients[0].submit("occlusion", MODEL, [image.id], SHORT, "the-key").id)


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer occ_x"}, {"Authorization": "Basic eDp5"}, {"Cookie": "occluscope_sign_in=x"}],
)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/models", "/v1/analyses", f"/v1/artifacts/{'0' * 32}", "/v1/session"])
def test_without_a_key_nothing_is_told(keyed: Keyed, path: str, headers: dict[str, str]) -> None:
    response = httpx.get(keyed.stack.url + path, headers=headers)
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert "Authorization: Bearer" in response.json()["detail"]


def test_every_call_that_is_published_needs_a_key(keyed: Keyed) -> None:
    paths = httpx.get(f"{keyed.stack.url}/openapi.json").json()["paths"]
    asked = 0
    for path, operations in paths.items():
        for method, operation in operations.items():
            if path.startswith("/v1/") and path != "/v1/session":
                url = keyed.stack.url + re.sub(r"\{\w+\}", "0" * 32, path)
                assert httpx.request(method, url).status_code == 401, (method, path)
                assert operation["security"] == [{"key": []}]
                asked += 1
    assert asked >= 14


def test_what_changes_something_needs_a_key_too(keyed: Keyed, job: Job) -> None:
    url = keyed.stack.url
    picture = {"file": encode(random_picture(2))}
    assert httpx.post(f"{url}/v1/images", files=picture).status_code == 401
    assert httpx.post(f"{url}/v1/jobs", json={}).status_code == 401
    assert httpx.post(f"{url}/v1/jobs/{job.id}/cancel").status_code == 401
    assert httpx.delete(f"{url}/v1/jobs/{job.id}").status_code == 401


def test_probes_and_pages_need_none(keyed: Keyed) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/", f"/jobs/{'0' * 32}"):
        assert httpx.get(keyed.stack.url + path).status_code == 200


def test_anothers_ids_are_ids_of_nothing(clients: tuple[Client, Client], keyed: Keyed, job: Job) -> None:
    """404, never 403: nobody learns what there is."""
    ada, ben = clients
    artifact = ada.results(job.id).artifacts[0]
    assert ada.download(artifact, "npy")
    headers = {"Authorization": f"Bearer {keyed.keys['ben']}"}
    asked = [
        ("GET", f"/v1/jobs/{job.id}"), ("GET", f"/v1/jobs/{job.id}/results"), ("POST", f"/v1/jobs/{job.id}/cancel"),
        ("DELETE", f"/v1/jobs/{job.id}"), ("GET", artifact.href), ("GET", f"/v1/images/{job.images[0]}"),
    ]  # fmt: skip
    for method, path in asked:
        theirs = httpx.request(method, keyed.stack.url + path, headers=headers)
        nothings = httpx.request(method, keyed.stack.url + re.sub("[0-9a-f]{32}", "0" * 32, path), headers=headers)
        assert (theirs.status_code, theirs.json()) == (404, nothings.json()), path
    assert job.id not in {other.id for other in ben.jobs()}
    assert ada.job(job.id).state == "succeeded"


def test_anothers_picture_cannot_be_used(clients: tuple[Client, Client], job: Job) -> None:
    ben = clients[1]
    with pytest.raises(ApiError, match=r"images\.0: there is no such picture"):
        ben.submit("occlusion", MODEL, job.images, SHORT)
    own = ben.upload(encode(random_picture(3)))
    with pytest.raises(ApiError, match=r"params\.region: there is no such picture"):
        ben.submit("occlusion", MODEL, [own.id], {**SHORT, "region": job.images[0]})


def test_who_has_the_same_picture_is_not_told_that_another_has_it(keyed: Keyed, job: Job) -> None:
    headers = {"Authorization": f"Bearer {keyed.keys['ben']}"}
    content = encode(random_picture(40))
    with Client(keyed.stack.url, api_key=keyed.keys["ada"]) as ada:
        first = ada.upload(content)
    statuses = [
        httpx.post(f"{keyed.stack.url}/v1/images", files={"file": content}, headers=headers).status_code for _ in "12"
    ]
    assert statuses == [201, 200]
    assert first.id != job.images[0]


def test_idempotency_keys_are_an_owners_own(clients: tuple[Client, Client], job: Job) -> None:
    ada, ben = clients
    assert ada.submit("occlusion", MODEL, job.images, SHORT, "the-key").id == job.id
    image = ben.upload(encode(random_picture(1)))
    assert image.id == job.images[0]
    assert ben.submit("occlusion", MODEL, [image.id], SHORT, "the-key").id != job.id


def test_an_owner_with_one_picture_does_not_wait_for_one_with_many(clients: tuple[Client, Client]) -> None:
    ada, ben = clients
    pictures = [ada.upload(encode(random_picture(number))).id for number in range(50, 70)]
    big = ada.submit("occlusion", MODEL, pictures, {"window": 32, "stride": 16, "insertion_deletion": False})
    small = ben.wait(ben.submit("occlusion", MODEL, [ben.upload(encode(random_picture(4))).id], SHORT).id)
    assert small.state == "succeeded"
    progress = ada.job(big.id).progress
    assert progress.done < progress.total / 2
    ada.cancel(big.id)


def test_a_browser_signs_in_and_out(keyed: Keyed) -> None:
    with httpx.Client(base_url=keyed.stack.url) as browser:
        refused = browser.post("/v1/session", json={"key": "occ_x"})
        assert refused.status_code == 422
        assert [error["path"] for error in refused.json()["errors"]] == ["key"]
        answer = browser.post("/v1/session", json={"key": keyed.keys["ben"]})
        assert answer.json() == {"owner": "ben"}
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert keyed.keys["ben"] not in cookie
        assert browser.get("/v1/session").json() == {"owner": "ben"}
        assert browser.get("/v1/jobs").status_code == 200
        copied = dict(browser.cookies)
        assert browser.delete("/v1/session", headers={"Origin": keyed.stack.url}).status_code == 204
        assert browser.get("/v1/jobs").status_code == 401
        assert "not signed in any more" in httpx.get(f"{keyed.stack.url}/v1/jobs", cookies=copied).json()["detail"]
    with Client(keyed.stack.url, api_key=keyed.keys["ben"]) as by_key:
        by_key.jobs()


def test_a_cookie_changes_something_only_from_our_own_pages(keyed: Keyed) -> None:
    """Browsers send cookies by themselves; whoever has a key in hand sends it on purpose."""
    other = f"/v1/jobs/{'0' * 32}"
    with httpx.Client(base_url=keyed.stack.url) as browser:
        browser.post("/v1/session", json={"key": keyed.keys["ben"]})
        own, localhost = keyed.stack.url, keyed.stack.url.replace("127.0.0.1", "localhost")
        for headers, status in (
            ({}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": localhost}, 403),
            ({"Origin": own, "Sec-Fetch-Site": "same-site"}, 403),
            ({"Origin": own}, 404),
            ({"Sec-Fetch-Site": "same-origin"}, 404),
            ({"Authorization": f"Bearer {keyed.keys['ben']}"}, 404),
        ):
            answer = browser.delete(other, headers=headers)
            assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), headers
        policy = browser.get("/").headers["Content-Security-Policy"]
        assert "base-uri 'none'" in policy
        assert "form-action 'self'" in policy


@pytest.mark.parametrize("key", ["\n", "a\u0000b", "\ud800", "x" * 200, "\u202e", "é" * 200])
def test_no_key_however_odd_is_more_than_wrong(keyed: Keyed, stack: Stack, key: str) -> None:
    body = json.dumps({"key": key})
    headers = {"Content-Type": "application/json"}
    with_keys = httpx.post(f"{keyed.stack.url}/v1/session", content=body, headers=headers)
    assert with_keys.status_code == 422
    without = httpx.post(f"{stack.url}/v1/session", content=body, headers=headers)
    assert without.status_code in (200, 422)  # no text at all, or text; and nobody needs a key
    assert "set-cookie" not in without.headers
    assert with_keys.headers["Content-Type"] == "application/problem+json"


def test_other_sites_pages_cannot_sign_in_or_act(keyed: Keyed) -> None:
    headers = {"Sec-Fetch-Site": "cross-site"}
    body = {"key": keyed.keys["ben"]}
    assert httpx.post(f"{keyed.stack.url}/v1/session", json=body, headers=headers).status_code == 403


def test_the_log_says_whose_request_it_was_and_no_key(keyed: Keyed, job: Job) -> None:
    log = (keyed.stack.state_dir / "logs" / "api.log").read_text()
    lines = [line for line in log.splitlines() if job.id in line]
    assert lines
    assert any('"owner": "ada"' in line for line in lines)
    assert not any(key in log for key in keyed.keys.values())


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(COMMAND), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_keys_from_the_command_line(tmp_path: Path) -> None:
    """Made, asked for, listed, and revoked while the service runs; what was there before is adopted."""
    with running_stack(tmp_path) as stack:
        environment = {
            **os.environ,
            "OCCLUSCOPE_DATABASE_URL": stack.settings.database_url,
            "OCCLUSCOPE_URL": stack.url,
        }
        with Client(stack.url) as nobody:
            image = nobody.upload(encode(random_picture(1)))
            before = nobody.wait(nobody.submit("occlusion", MODEL, [image.id], SHORT).id)
        for name in ("", "a b", "x" * 101, "-x", "ä"):
            assert run(environment, "keys", "add", "--", name).returncode == 2
        made = run(environment, "keys", "add", "ada", "--adopt")
        key = made.stdout.strip()
        assert re.fullmatch(r"occ_[\w-]{43}", key)
        assert "1 jobs are ada's now" in made.stderr
        wait_until(lambda: httpx.get(f"{stack.url}/v1/jobs").status_code == 401)
        assert "A key is needed" in run(environment, "jobs").stderr
        listed = run({**environment, "OCCLUSCOPE_API_KEY": key}, "jobs")
        assert before.id in listed.stdout
        keys = run(environment, "keys", "list").stdout
        assert key not in keys
        (key_id,) = re.findall(r"\b[0-9a-f]{12}\b", keys)
        assert run(environment, "keys", "revoke", "0" * 12).returncode == 1
        assert run(environment, "keys", "revoke", key_id).returncode == 0
        headers = {"Authorization": f"Bearer {key}"}
        wait_until(lambda: httpx.get(f"{stack.url}/v1/jobs", headers=headers).status_code == 401)


def test_a_database_that_is_not_the_services_is_said(tmp_path: Path) -> None:
    environment = {**os.environ, "OCCLUSCOPE_DATABASE_URL": f"sqlite:///{tmp_path / 'other.db'}"}
    for arguments in (("add", "ada"), ("list",), ("revoke", "0" * 12)):
        refused = run(environment, "keys", *arguments)
        assert refused.returncode == 1
        assert "occluscope migrate" in " ".join(refused.stderr.split())
        assert "Traceback" not in refused.stderr


def test_beyond_this_machine_only_with_keys(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'store.db'}")
    migrate(database)
    environment = {**os.environ, "OCCLUSCOPE_DATABASE_URL": f"sqlite:///{tmp_path / 'store.db'}"}
    serve = ("serve", "--host", "0.0.0.0", "--port", str(free_port()))  # noqa: S104
    refused = run(environment, *serve)
    assert refused.returncode == 2
    assert "occluscope keys add" in " ".join(refused.stderr.split())
    assert run(environment, "keys", "add", "ada").returncode == 0
    process = subprocess.Popen([COMMAND, *serve], env=environment, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{serve[-1]}/v1/jobs"
        wait_until(lambda: _status(url) == 401)
    finally:
        process.terminate()
        assert process.wait(30) == 0


def _status(url: str) -> int | None:
    try:
        return httpx.get(url).status_code
    except httpx.HTTPError:
        return None

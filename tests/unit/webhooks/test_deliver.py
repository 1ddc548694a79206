"""Deliveries to a real receiver: signed, repeated, given up, and never twice at once."""

import base64
import hashlib
import hmac
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from standardwebhooks import Webhook

from service.settings import Settings
from service.store.database import Database, clock
from service.store.deliveries import claim_deliveries, deliveries_by_state, delivery_of, note_delivered, webhook_secret
from service.store.ending import cancel_job
from service.store.tables import Delivery, Job
from service.webhooks.deliver import PLACES_OF_ONE_OWNER, Deliverer
from tests.parts import free_port, wait_until
from tests.receiver import Receiver
from tests.unit.store.conftest import SubmitUnits, submit

__all__ = ["submit"]  # the fixture

CONFIG = Settings(webhook_hosts=["127.0.0.1"], webhook_attempts=3)


def ended(database: Database, submit: SubmitUnits, url: str, owner: str = "") -> str:
    """A job with a webhook, ended."""
    job_id, _ = submit(owner=owner)
    with database.writing() as session:
        session.execute(update(Job).where(Job.id == job_id).values(webhook=url))
    with database.writing() as session:
        cancel_job(session, job_id)
    return job_id


def make_due(database: Database) -> None:
    with database.writing() as session:
        session.execute(update(Delivery).values(due_at=clock(session) - timedelta(seconds=1)))


@contextmanager
def running(deliverer: Deliverer) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=deliverer.run, args=[stop])
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def silent_receivers(count: int) -> Iterator[list[str]]:
    """URLs where connections are taken and nothing is ever said."""
    with ExitStack() as opened:
        servers = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        yield [f"http://127.0.0.1:{server.getsockname()[1]}/" for server in servers]


@contextmanager
def speaker(first: bytes, repeated: bytes) -> Iterator[str]:
    """URL where everybody is told `first`, and then `repeated` for as long as they listen."""

    def speak() -> None:
        connection, _ = server.accept()
        with connection:
            try:
                connection.sendall(first)
                while not ended.wait(0.01):
                    connection.sendall(repeated)
            except OSError:  # they have gone
                return

    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=speak)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        ended.set()
        thread.join()


def outcome(database: Database, job_id: str) -> tuple[Any, ...]:
    with database.reading() as session:
        delivery = delivery_of(session, job_id)
        assert delivery is not None
        return delivery.state, delivery.attempts, delivery.status, delivery.error


def seconds_until_due(database: Database) -> float:
    with database.reading() as session:
        return (session.scalars(select(Delivery.due_at)).one() - clock(session)).total_seconds()


def test_a_job_without_a_webhook_tells_nobody(database: Database, submit: SubmitUnits) -> None:
    job_id, _ = submit()
    with database.writing() as session:
        cancel_job(session, job_id)
        assert delivery_of(session, job_id) is None
    assert Deliverer(database, CONFIG).deliver_due() == 0


def test_a_delivery_is_signed_so_that_the_standards_library_and_hmac_agree(
    database: Database, submit: SubmitUnits
) -> None:
    with Receiver() as receiver:
        job_id = ended(database, submit, f"{receiver.url}?a=1", owner="ada")
        assert Deliverer(database, CONFIG).deliver_due() == 1
        assert Deliverer(database, CONFIG).deliver_due() == 0
        (told,) = receiver.told
    assert outcome(database, job_id) == ("delivered", 1, 204, None)
    with database.writing() as session:
        secret = webhook_secret(session, "ada")
        assert webhook_secret(session, "ada") == secret != webhook_secret(session, "ben")
    assert told.path == "/told?a=1"
    message = Webhook(secret).verify(told.body, told.headers)
    assert message["type"] == "job.cancelled"
    assert (message["data"]["id"], message["data"]["state"]) == (job_id, "cancelled")
    headers = {name.lower(): value for name, value in told.headers.items()}
    assert headers["host"] == receiver.url.split("/")[2]
    assert headers["content-type"] == "application/json"
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + told.body
    digest = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


def test_who_does_not_take_it_is_told_again_after_ever_longer_pauses_under_one_id(
    database: Database, submit: SubmitUnits
) -> None:
    deliverer = Deliverer(database, CONFIG)
    with Receiver(500, 302, 200) as receiver:
        job_id = ended(database, submit, receiver.url)
        deliverer.deliver_due()
        assert outcome(database, job_id) == ("waiting", 1, 500, "it answered 500")
        assert 9 < seconds_until_due(database) <= 10
        assert deliverer.deliver_due() == 0  # not due yet
        make_due(database)
        deliverer.deliver_due()
        assert outcome(database, job_id) == ("waiting", 2, 302, "it answered 302")
        assert 29 < seconds_until_due(database) <= 30
        make_due(database)
        deliverer.deliver_due()
        assert outcome(database, job_id) == ("delivered", 3, 200, None)
        assert len({told.headers["webhook-id"] for told in receiver.told}) == 1


@pytest.mark.parametrize(("answer", "attempts"), [(500, 3), (410, 1)])
def test_at_last_it_is_given_up_and_at_once_where_the_receiver_is_gone(
    database: Database, submit: SubmitUnits, answer: int, attempts: int
) -> None:
    with Receiver(answer) as receiver:
        job_id = ended(database, submit, receiver.url)
        for _ in range(attempts + 1):
            Deliverer(database, CONFIG).deliver_due()
            make_due(database)
        assert len(receiver.told) == attempts
    assert outcome(database, job_id) == ("given_up", attempts, answer, f"it answered {answer}")
    with database.reading() as session:
        assert deliveries_by_state(session) == {"waiting": 0, "delivered": 0, "given_up": 1}


def test_a_redirection_is_not_followed(database: Database, submit: SubmitUnits) -> None:
    with Receiver() as inner, Receiver(307, location=inner.url) as receiver:
        ended(database, submit, receiver.url)
        Deliverer(database, CONFIG).deliver_due()
        assert len(receiver.told) == 1
        assert inner.told == []


def test_an_address_is_checked_again_when_it_is_told(database: Database, submit: SubmitUnits) -> None:
    """A name may lead elsewhere by then."""
    with Receiver() as receiver:
        job_id = ended(database, submit, receiver.url)
        Deliverer(database, CONFIG.model_copy(update={"webhook_hosts": []})).deliver_due()
        assert receiver.told == []
    assert outcome(database, job_id) == ("waiting", 1, None, "its address is not a public one")


def test_nobody_there_is_an_attempt(database: Database, submit: SubmitUnits) -> None:
    job_id = ended(database, submit, f"http://127.0.0.1:{free_port()}/")
    Deliverer(database, CONFIG).deliver_due()
    state, attempts, status, error = outcome(database, job_id)
    assert (state, attempts, status) == ("waiting", 1, None)
    assert error


def test_a_receiver_that_does_not_answer_holds_up_no_other(
    database: Database, submit: SubmitUnits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.webhooks.sending.ATTEMPT_SECONDS", 0.5)
    with Receiver(seconds=2) as slow, Receiver() as quick:
        late, soon = ended(database, submit, slow.url), ended(database, submit, quick.url)
        assert Deliverer(database, CONFIG).deliver_due() == 2
    assert outcome(database, late)[:2] == ("waiting", 1)
    assert outcome(database, soon)[:2] == ("delivered", 1)


def test_several_deliverers_at_once_tell_each_receiver_once(database: Database, submit: SubmitUnits) -> None:
    with Receiver() as receiver:
        jobs = [ended(database, submit, receiver.url) for _ in range(30)]
        with ThreadPoolExecutor(4) as pool:
            rounds = list(pool.map(lambda _: Deliverer(database, CONFIG).deliver_due(), range(12)))
        assert sum(rounds) == 30
        told = [json.loads(one.body)["data"]["id"] for one in receiver.told]
    assert sorted(told) == sorted(jobs)


def test_a_deliverer_that_died_is_replaced_and_writes_nothing_late(database: Database, submit: SubmitUnits) -> None:
    with Receiver() as receiver:
        job_id = ended(database, submit, receiver.url)
        with database.writing() as session:
            (dead,) = claim_deliveries(session, "", 10, 60)
        assert Deliverer(database, CONFIG).deliver_due() == 0  # it may still be at it
        make_due(database)
        assert Deliverer(database, CONFIG).deliver_due() == 1
        with database.writing() as session:
            assert not note_delivered(session, dead, 200)
    assert outcome(database, job_id) == ("delivered", 2, 204, None)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts that do not end while a test lasts."""
    monkeypatch.setattr("service.webhooks.sending.ATTEMPT_SECONDS", 600.0)


def attempts_of(database: Database, owner: str) -> tuple[int, int]:
    """How many attempts were begun, and how many have ended."""
    with database.reading() as session:
        of_owner = session.scalars(select(Delivery).where(Delivery.owner == owner)).all()
        return sum(one.attempts for one in of_owner), sum(one.error is not None for one in of_owner)


@pytest.mark.usefixtures("patient")
def test_an_owner_whose_receivers_are_all_silent_delays_nobody_elses(database: Database, submit: SubmitUnits) -> None:
    """Those of others arrive while all places that the owner may have are taken, without one becoming free."""
    with silent_receivers(64) as silent, Receiver() as receiver:
        for url in silent:
            ended(database, submit, url, "ada")
        with running(Deliverer(database, CONFIG)):
            wait_until(lambda: attempts_of(database, "ada") == (PLACES_OF_ONE_OWNER, 0))
            for owner in ("aaron", "ben", "aaron", "ben"):
                job_id = ended(database, submit, receiver.url, owner)
                wait_until(lambda job_id=job_id: outcome(database, job_id)[0] == "delivered")  # type: ignore[misc]
            assert attempts_of(database, "ada") == (PLACES_OF_ONE_OWNER, 0)


@pytest.mark.usefixtures("patient")
def test_so_many_such_owners_leave_a_place_for_another(database: Database, submit: SubmitUnits) -> None:
    with silent_receivers(17) as silent, Receiver() as receiver:
        for owner in ("ada", "bea", "cai", "dee", "eve"):
            for url in silent:
                ended(database, submit, url, owner)
        with running(Deliverer(database, CONFIG)):
            wait_until(lambda: sum(attempts_of(database, owner)[0] for owner in ("ada", "bea", "cai")) > 30)
            job_id = ended(database, submit, receiver.url, "zoe")
            wait_until(lambda: outcome(database, job_id)[0] == "delivered")


def test_a_place_that_becomes_free_is_taken_at_once(database: Database, submit: SubmitUnits) -> None:
    """More deliveries of one owner than places end in one go, with one silent receiver among them."""
    with silent_receivers(1) as (silent,), Receiver() as receiver, pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.webhooks.sending.ATTEMPT_SECONDS", 600.0)
        late = ended(database, submit, silent)
        jobs = [ended(database, submit, receiver.url) for _ in range(3 * PLACES_OF_ONE_OWNER)]
        with running(Deliverer(database, CONFIG)):
            wait_until(lambda: {outcome(database, job_id)[0] for job_id in jobs} == {"delivered"})
            assert outcome(database, late) == ("waiting", 1, None, None)


def test_an_answer_that_comes_letter_by_letter_is_none_in_time(
    database: Database, submit: SubmitUnits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit holds for all of an attempt, not for each read."""
    monkeypatch.setattr("service.webhooks.sending.ATTEMPT_SECONDS", 0.5)
    with speaker(b"HTTP/1.1 200 OK\r\nx: ", b"x") as url:
        job_id = ended(database, submit, url)
        assert Deliverer(database, CONFIG).deliver_due() == 1
    assert outcome(database, job_id) == ("waiting", 1, None, "no answer within 0.5 s")


@pytest.mark.usefixtures("patient")
def test_an_answer_without_end_is_not_read(database: Database, submit: SubmitUnits) -> None:
    with speaker(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", bytes(100_000)) as url:
        job_id = ended(database, submit, url)
        assert Deliverer(database, CONFIG).deliver_due() == 1
    assert outcome(database, job_id) == ("delivered", 1, 200, None)


def test_of_a_names_addresses_the_first_that_takes_a_connection_is_told(
    database: Database, submit: SubmitUnits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server's answers cannot be had for real here."""

    def both(*_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(2, 1, 6, "", (address, 0)) for address in ("127.0.0.2", "127.0.0.1")]

    with Receiver() as receiver:
        port = receiver.url.split(":")[2]
        job_id = ended(database, submit, f"http://receiver.test:{port}")
        monkeypatch.setattr(socket, "getaddrinfo", both)
        Deliverer(database, CONFIG.model_copy(update={"webhook_hosts": ["receiver.test"]})).deliver_due()
        (told,) = receiver.told
    assert outcome(database, job_id)[0] == "delivered"
    assert {name.lower(): value for name, value in told.headers.items()}[
        "host"
    ] == f"receiver.test:{port.split('/')[0]}"


def test_a_server_by_tls_is_asked_for_the_webhooks_host_and_must_prove_to_be_it(
    database: Database, submit: SubmitUnits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for the address that was looked up. This one has no certificate, so it is told nothing."""
    asked: list[str | None] = []

    def greet() -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.sni_callback = lambda _socket, name, _context: asked.append(name)
        connection, _ = server.accept()
        with connection, suppress(OSError), tls.wrap_socket(connection, server_side=True):
            pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=greet)
        thread.start()
        port = server.getsockname()[1]
        job_id = ended(database, submit, f"https://receiver.test:{port}/")
        found = [(2, 1, 6, "", ("127.0.0.1", port))]
        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
            Deliverer(database, CONFIG.model_copy(update={"webhook_hosts": ["receiver.test"]})).deliver_due()
        thread.join()
    assert asked == ["receiver.test"]
    assert outcome(database, job_id)[:3] == ("waiting", 1, None)


def test_deliverers_who_begin_at_once_make_each_owners_secret_once(database: Database, submit: SubmitUnits) -> None:
    """Each starts with another owner, as their turns have it, and none waits for another for ever."""
    with Receiver() as receiver:
        owners = [f"owner-{number}" for number in range(12)]
        jobs = [ended(database, submit, receiver.url, owner) for owner in owners]
        deliverers = [Deliverer(database, CONFIG) for _ in range(4)]
        for first, deliverer in enumerate(deliverers):
            for owner in owners[: 3 * first]:
                deliverer._places.take(owner)
                deliverer._places.give_back(owner)
        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(Deliverer.deliver_due, deliverers)) == 12
    assert {outcome(database, job_id)[0] for job_id in jobs} == {"delivered"}

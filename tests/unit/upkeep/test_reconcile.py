"""The reconciler and the watchdog against a real broker: what they announce, when they wait, whom they end."""

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from service.queue import Queue
from service.settings import Settings
from service.store.database import Database, clock
from service.store.ending import cancel_job
from service.store.given import NOTHING
from service.store.leases import claim_unit
from service.store.tables import Artifact, Unit
from service.store.units import give_results
from service.upkeep.reconcile import Reconciler, _Watch
from tests.parts import BROKERS, free_port, wait_until
from tests.unit.store.conftest import SubmitUnits, outcome, submit
from workers.activity import Activity
from workers.watchdog import Watchdog

__all__ = ["submit"]  # the fixture

LEASE_SECONDS = 30.0


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Settings]:
    """Settings with a broker of their own."""
    port = free_port()
    command = [str(BROKERS["valkey"]), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    settings = Settings(broker_url=f"redis://127.0.0.1:{port}/0", lease_seconds=LEASE_SECONDS, broker_timeout_seconds=1)
    try:
        wait_until(lambda: Queue(settings).waiting() == 0)
        yield settings
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def silence(database: Database, *, seconds: float = 1) -> None:
    """As if every worker had died so long ago that its lease is over."""
    with database.writing() as session:
        over = clock(session) - timedelta(seconds=seconds)
        session.execute(update(Unit).where(Unit.state == "running").values(leased_until=over))
        session.execute(update(Unit).where(Unit.state == "queued").values(queued_at=over))


def claim(database: Database, unit_id: str) -> None:
    with database.writing() as session:
        assert claim_unit(session, unit_id, "w", LEASE_SECONDS)


def test_every_unit_that_waits_has_a_message_and_no_more(
    database: Database, submit: SubmitUnits, config: Settings
) -> None:
    queue = Queue(config)
    reconciler = Reconciler(database, queue, config)
    _, units = submit(5)
    assert queue.announce(2) == 2
    assert reconciler.round().announced == 3
    assert reconciler.round().announced == 0
    claim(database, units[0])
    assert reconciler.round().announced == 0
    assert queue.waiting() == 5
    silence(database)
    (freed,) = reconciler.round().freed
    assert (freed.unit_id, freed.failed) == (units[0], False)


def test_hidden_results_of_a_cancelled_job_are_deleted_within_some_rounds(
    database: Database, submit: SubmitUnits, config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few portions in each, so that leases are looked at in between."""
    monkeypatch.setattr("service.store.given._PORTION_ROWS", 1)
    monkeypatch.setattr("service.upkeep.reconcile._PORTIONS", 2)
    reconciler = Reconciler(database, Queue(config), config)
    job_id, (unit_id,) = submit(1)
    with database.writing() as session:
        held = claim_unit(session, unit_id, "w", LEASE_SECONDS)
        assert held is not None
        results = [*outcome().results] * 3
        named = [replace(one, name=f"{one.name}{number}") for number, one in enumerate(results)]
        assert give_results(session, held, NOTHING, named, [])
        assert cancel_job(session, job_id) == "cancelled"
    left = []
    unfinished = True
    while unfinished:
        unfinished = reconciler.round().unfinished
        with database.reading() as session:
            left.append(session.scalar(select(func.count()).select_from(Artifact)))
    assert left == [3, 1, 0, 0], "the last round finds none"


def test_after_time_was_missed_nobodys_lease_is_judged(
    database: Database, submit: SubmitUnits, config: Settings
) -> None:
    """Nobody could renew a lease while the database was away: a worker that lives is given time to do so."""
    quick = config.model_copy(update={"heartbeat_seconds": 0.2, "reconcile_seconds": 0.1})
    reconciler = Reconciler(database, Queue(quick), quick)
    (unit_id,) = submit(1)[1]
    claim(database, unit_id)
    assert not reconciler.round().patient
    silence(database)
    moment = datetime.now(UTC)
    wait_until(lambda: datetime.now(UTC) - moment > timedelta(seconds=0.5))
    late = reconciler.round()
    assert (late.patient, late.freed) == (True, [])
    wait_until(lambda: reconciler.round().freed, 5)


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(hours=-1)])
def test_a_clock_that_was_set_is_noticed(jump: timedelta) -> None:
    watch, moment = _Watch(Settings()), datetime.now(UTC)
    assert not watch.missed_something(moment)
    assert not watch.missed_something(moment + timedelta(seconds=0.01))
    assert watch.missed_something(moment + jump)


def watchdog(database: Database, config: Settings, activity: Activity) -> Watchdog:
    return Watchdog(database, Queue(config), config, activity)


def test_the_watchdog_ends_who_was_given_nothing_while_units_wait(
    database: Database, submit: SubmitUnits, config: Settings
) -> None:
    impatient = config.model_copy(update={"watchdog_seconds": 0.3, "stall_seconds": 0.3})
    activity = Activity()
    dog = watchdog(database, impatient, activity)
    wait_until(lambda: activity.still_seconds > 0.4)
    assert dog.reason() is None  # nothing waits
    submit(1)
    silence(database, seconds=5)
    assert "a unit waits for" in (dog.reason() or "")
    activity.note_progress()
    assert dog.reason() is None  # a message has just come
    with activity.working():
        assert dog.reason() is None
        wait_until(lambda: activity.still_seconds > 0.4)
        assert "made no progress" in (dog.reason() or "")


def test_without_a_broker_nobody_is_to_blame(database: Database, submit: SubmitUnits, config: Settings) -> None:
    nowhere = config.model_copy(update={"watchdog_seconds": 0.1, "broker_url": f"redis://127.0.0.1:{free_port()}/0"})
    activity = Activity()
    submit(1)
    silence(database, seconds=5)
    wait_until(lambda: activity.still_seconds > 0.2)
    assert watchdog(database, nowhere, activity).reason() is None


def test_a_broker_that_answers_with_errors_ends_nobody(
    database: Database, submit: SubmitUnits, config: Settings
) -> None:
    """Something else lies where the queue should: units are not announced, and leases are freed all the same."""
    queue = Queue(config)
    with queue._app.connection_for_read() as connection:
        client: Any = connection.default_channel.client
        client.set(config.queue_name, "no list")
    assert queue.waiting() is None
    assert queue.announce(3) == 0
    _, units = submit(1)
    claim(database, units[0])
    silence(database)
    assert [unit.unit_id for unit in Reconciler(database, queue, config).round().freed] == units
    assert Watchdog(database, queue, config, Activity()).reason() is None

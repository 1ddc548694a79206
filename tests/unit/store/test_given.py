"""What units give before their end: hidden until they have succeeded, gone where they do not, there once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from occluscope.results import Variant
from service.store.database import Database, clock
from service.store.ending import cancel_job
from service.store.given import NOTHING, Given, forget_of_ended
from service.store.jobs import delete_job, results_of
from service.store.leases import Claim, claim_unit, free_expired_units, give_back_unit
from service.store.locks import lock_job
from service.store.packing import PackedOutcome, UnpackableError
from service.store.results import find_artifact, names_of_results, results_page
from service.store.tables import Artifact, Job, Metric, Unit
from service.store.units import commit_unit, fail_unit, forget_earlier, give_results, report_progress
from tests.parts import wait_until
from tests.unit.store.conftest import SubmitUnits, outcome


def some(seed: int, image: str | None = None) -> PackedOutcome:
    """Two results and a metric; of each seed others, by their variant too."""
    made = outcome(seed, image)
    variant = Variant.of(seed=str(seed))
    return replace(made, results=[replace(one, variant=variant) for one in made.results])


def claimed(database: Database, unit_id: str) -> Claim:
    with database.writing() as session:
        claim = claim_unit(session, unit_id, "w", 30)
    assert claim is not None
    return claim


def give(database: Database, claim: Claim, seeds: list[int]) -> Given:
    """Each in a transaction of its own."""
    before = NOTHING
    for seed in seeds:
        with database.writing() as session:
            assert give_results(session, claim, before, some(seed).results, some(seed).metrics)
        before = before.plus(some(seed).results, some(seed).metrics)
    return before


def rows(database: Database) -> int:
    with database.reading() as session:
        return sum(session.scalar(select(func.count()).select_from(table)) or 0 for table in (Artifact, Metric))


def rows_of(database: Database, unit_id: str) -> int:
    with database.reading() as session:
        counts = (select(func.count()).where(table.unit_id == unit_id) for table in (Artifact, Metric))
        return sum(session.scalar(count) or 0 for count in counts)


def packed_bytes(artifact: Artifact) -> int:
    return sum(one.stored_bytes for one in some(int(str(artifact.variant))).results if one.name == artifact.name)


def job(database: Database, job_id: str) -> Job:
    with database.reading() as session:
        return session.get_one(Job, job_id)


def test_what_is_given_is_shown_when_its_unit_has_succeeded_and_not_before(
    database: Database, submit: SubmitUnits
) -> None:
    job_id, (unit_id, _) = submit(2)
    claim = claimed(database, unit_id)
    version = job(database, job_id).results_version
    before = give(database, claim, [1, 2])
    assert rows(database) == 6
    with database.reading() as session:
        artifact_id = session.scalars(select(Artifact.id)).first()
        assert artifact_id is not None
        assert find_artifact(session, artifact_id) is None
        assert results_of(session, job_id) == ([], [])
        assert names_of_results(session, job_id) == []
        page = results_page(session, job_id, limit=10)
        assert (page.artifacts, page.metrics) == ([], [])
    after = job(database, job_id)
    assert (after.results_version, after.stored_bytes) == (version, 0)

    with database.writing() as session:
        assert commit_unit(session, claim, some(3), before)
    with database.reading() as session:
        assert find_artifact(session, artifact_id) is not None
        metrics, artifacts = results_of(session, job_id)
        assert [(one.position, str(one.variant), one.name) for one in artifacts] == [
            (2 * (seed - 1) + place, str(seed), name)
            for seed in (1, 2, 3)
            for place, name in enumerate(("map", "rows"))
        ]
        assert [(one.position, one.value) for one in metrics] == [(0, 1.0), (1, 2.0), (2, 3.0)]
        assert set(names_of_results(session, job_id)) == {"map", "rows"}
        page = results_page(session, job_id, limit=10)
        assert (len(page.artifacts), len(page.metrics)) == (6, 3)
    ended = job(database, job_id)
    expected = sum(one.stored_bytes for seed in (1, 2, 3) for one in some(seed).results)
    assert (ended.results_version, ended.stored_bytes) == (version + 1, expected)


def test_a_picture_has_results_on_no_page_before_its_unit_has_succeeded(
    database: Database, submit: SubmitUnits
) -> None:
    job_id, unit_ids = submit(2)
    claims = [claimed(database, unit_id) for unit_id in unit_ids]
    images = [claim.unit.images[0] for claim in claims]
    with database.writing() as session:
        given = some(1, images[0])
        assert give_results(session, claims[0], NOTHING, given.results, given.metrics)
        assert commit_unit(session, claims[1], some(2, images[1]))
    with database.reading() as session:
        for name in (None, "map"):
            page = results_page(session, job_id, limit=1, name=name)
            assert {row.image_id for row in page.artifacts} == {row.image_id for row in page.metrics} == {images[1]}
            assert page.cursor is None


def let_the_lease_run_out(session: Session, claim: Claim, attempts: int) -> bool:
    over = clock(session) - timedelta(seconds=1)
    session.execute(update(Unit).where(Unit.id == claim.unit_id).values(leased_until=over))
    (freed,) = free_expired_units(session, attempts, 30)
    return freed.failed == (attempts == 1)


OTHER_ENDS: dict[str, Callable[[Session, Claim], object]] = {
    "fails": lambda session, claim: fail_unit(session, claim, "reason"),
    "is given back": give_back_unit,
    "is left by its worker": lambda session, claim: let_the_lease_run_out(session, claim, 3),
    "is left too often": lambda session, claim: let_the_lease_run_out(session, claim, 1),
    "is cancelled": lambda session, claim: cancel_job(session, claim.job_id) == "cancelled",
}


@pytest.mark.parametrize("ends", OTHER_ENDS)
def test_of_a_unit_that_ends_otherwise_nothing_is_left(database: Database, submit: SubmitUnits, ends: str) -> None:
    """And of a unit that has succeeded everything is."""
    job_id, (unit_id, other_id) = submit(2)
    other = claimed(database, other_id)
    with database.writing() as session:
        assert commit_unit(session, other, some(7), give(database, other, []))
    claim = claimed(database, unit_id)
    give(database, claim, [1, 2])
    assert rows(database) == 9
    with database.writing() as session:
        assert OTHER_ENDS[ends](session, claim)
    assert rows(database) == 3
    with database.writing() as session:
        assert not give_results(session, claim, NOTHING, some(1).results, [])
    with database.writing() as session:
        again = claim_unit(session, unit_id, "another", 30)
    assert (again is not None) == (ends in {"is given back", "is left by its worker"})
    if again:
        before = give(database, again, [1, 2])
        with database.writing() as session:
            assert commit_unit(session, again, PackedOutcome([], []), before)
        with database.reading() as session:
            assert [str(one.variant) for one in results_of(session, job_id)[1]] == ["1", "1", "2", "2", "7", "7"]


@pytest.mark.parametrize("ends", OTHER_ENDS)
def test_many_results_of_a_unit_that_ends_otherwise_are_hidden_at_once_and_deleted_in_portions(
    database: Database, submit: SubmitUnits, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No end of a unit takes longer, nor holds other writers up for longer, the more the unit gave."""
    monkeypatch.setattr("service.store.given._PORTION_ROWS", 3)
    job_id, (unit_id, other_id) = submit(2)
    other = claimed(database, other_id)
    with database.writing() as session:
        assert commit_unit(session, other, some(7), give(database, other, []))
    claim = claimed(database, unit_id)
    give(database, claim, [1, 2, 3, 4])
    shown = rows_of(database, other_id)
    with database.writing() as session:
        assert OTHER_ENDS[ends](session, claim)
    assert rows_of(database, unit_id) == 12 - 3
    with database.reading() as session:
        metrics, artifacts = results_of(session, job_id)
        assert len(metrics) + len(artifacts) == shown
        assert {row.unit_id for row in results_page(session, job_id, limit=10).artifacts} <= {other_id}
    waits = ends in {"is given back", "is left by its worker"}
    again = claimed(database, unit_id) if waits else None
    left = []
    is_all = False
    while not is_all:
        with database.writing() as session:
            if again:
                held, is_all = forget_earlier(session, again)
                assert held
            else:
                is_all = not forget_of_ended(session)
        left.append(rows_of(database, unit_id))
    assert left[-1] == 0
    assert all(before - after <= 6 for before, after in pairwise([9, *left]))
    assert rows_of(database, other_id) == shown
    with database.reading() as session:
        assert not session.scalars(select(Unit.id).where(Unit.has_given)).all()
        metrics, artifacts = results_of(session, job_id)
        assert job(database, job_id).stored_bytes == sum(packed_bytes(one) for one in artifacts)


def test_large_results_are_deleted_a_few_at_a_time(
    database: Database, submit: SubmitUnits, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as smaller:
        smaller.setattr("service.store.given._PORTION_BYTES", 1)
        _, (unit_id,) = submit(1)
        claim = claimed(database, unit_id)
        give(database, claim, [1, 2, 3])
        with database.writing() as session:
            assert fail_unit(session, claim, "reason")
        assert rows_of(database, unit_id) in {7, 8}, "one with an array went"
    with database.writing() as session:
        assert forget_of_ended(session)
    assert rows_of(database, unit_id) == 0
    with database.writing() as session:
        assert not forget_of_ended(session)


def test_a_job_with_hidden_results_is_deleted_whole(
    database: Database, submit: SubmitUnits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.given._PORTION_ROWS", 1)
    job_id, (unit_id,) = submit(1)
    give(database, claimed(database, unit_id), [1, 2])
    with database.writing() as session:
        assert cancel_job(session, job_id) == "cancelled"
    assert rows(database) > 0
    with database.writing() as session:
        assert delete_job(session, job_id)
    assert rows(database) == 0
    with database.writing() as session:
        assert not forget_of_ended(session)


@pytest.mark.parametrize("portion", [1, 1000])
@pytest.mark.parametrize("gives", [False, True])
def test_a_success_has_nothing_of_an_earlier_claim(
    database: Database, submit: SubmitUnits, gives: bool, portion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever freed the unit may be of a version that forgot nothing."""
    monkeypatch.setattr("service.store.given._PORTION_ROWS", portion)
    job_id, (unit_id,) = submit(1)
    give(database, claimed(database, unit_id), [1, 2])
    with database.writing() as session:
        session.execute(update(Unit).values(state="queued"))
    again = claimed(database, unit_id)
    before = give(database, again, [1] if gives else [])
    with database.writing() as session:
        assert commit_unit(session, again, some(3), before)
    assert rows(database) == (6 if gives else 3)
    with database.reading() as session:
        metrics, artifacts = results_of(session, job_id)
        assert [one.value for one in metrics] == ([1.0, 3.0] if gives else [3.0])
        assert job(database, job_id).stored_bytes == sum(packed_bytes(one) for one in artifacts)


@pytest.mark.parametrize("what", ["results", "metrics"])
def test_what_was_stored_though_no_answer_came_is_there_once(
    database: Database, submit: SubmitUnits, what: str
) -> None:
    """The connection was lost after the commit: the same is written again."""
    _, (unit_id,) = submit(1)
    claim = claimed(database, unit_id)
    before = give(database, claim, [1])
    given = some(2)
    results, metrics = (given.results, []) if what == "results" else ([], given.metrics)
    for again in (False, True, True):
        with database.writing() as session:
            assert give_results(session, claim, before, results, metrics, again=again)
    assert rows(database) == 3 + len(results) + len(metrics)


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_result_given_before_is_refused_by_its_name(
    database: Database, submit: SubmitUnits, at_the_end: bool
) -> None:
    job_id, (unit_id,) = submit(1)
    claim = claimed(database, unit_id)
    before = give(database, claim, [1, 2])
    again = replace(some(3), results=[*some(3).results, some(1).results[1]])
    with (
        pytest.raises(UnpackableError, match=r"result 'rows' \(1\) was given before; right is once"),
        database.writing() as session,
    ):
        if at_the_end:
            commit_unit(session, claim, again, before)
        else:
            give_results(session, claim, before, again.results, again.metrics)
    assert rows(database) == 6
    assert job(database, job_id).state == "running"


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_giving_waits_for_no_end_of_another_unit_and_holds_a_deletion_up(
    database: Database, submit: SubmitUnits
) -> None:
    job_id, (unit_id, _) = submit(2)
    claim = claimed(database, unit_id)
    with database.writing() as session:
        assert lock_job(session, job_id)  # as who ends the other unit
        before = give(database, claim, [1])

    def delete() -> bool:
        with database.writing() as session:
            return delete_job(session, job_id)

    with ThreadPoolExecutor(1) as pool:
        with database.writing() as session:
            assert give_results(session, claim, before, [], [])
            deleting = pool.submit(delete)
            assert give_results(session, claim, before, some(2).results, some(2).metrics)
        assert deleting.result(timeout=20)
    assert rows(database) == 0


WRITERS: dict[str, Callable[[Session, Claim], object]] = {
    **OTHER_ENDS,
    "gives": lambda session, claim: give_results(session, claim, NOTHING, some(3).results, []),
    "shows a preview": lambda session, claim: report_progress(session, claim, 1, some(3).results),
    "succeeds": lambda session, claim: commit_unit(session, claim, some(3)),
}


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("what", WRITERS)
def test_who_waits_for_a_deletion_to_end_holds_nothing_that_it_needs(
    database: Database, submit: SubmitUnits, what: str
) -> None:
    """A deletion may come to the results before the units: a restored database has its foreign keys in any order."""
    job_id, (unit_id,) = submit(1)
    claim = claimed(database, unit_id)
    give(database, claim, [1])

    def write() -> None:
        with suppress(ValueError), database.writing() as session:  # no unit was freed
            WRITERS[what](session, claim)

    def waits() -> bool:
        with database.reading() as session:
            return bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))

    with ThreadPoolExecutor(1) as pool:
        with database.writing() as session:
            session.execute(select(Job.id).where(Job.id == job_id).with_for_update())
            session.execute(select(Artifact.id).with_for_update())
            writing = pool.submit(write)
            wait_until(lambda: writing.done() or waits())
            assert session.scalar(select(Unit.id).with_for_update(nowait=True)) == unit_id
            assert delete_job(session, job_id)
        writing.result(timeout=20)
    assert rows(database) == 0

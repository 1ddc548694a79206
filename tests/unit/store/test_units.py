from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from occluscope.analyses.contract import Outcome, Part
from occluscope.analyses.gathering import Gathered
from occluscope.results import ONLY, Heatmap, Table, Variant
from service.store.comparing import compare_models
from service.store.database import Database, now
from service.store.ending import cancel_job
from service.store.given import NOTHING
from service.store.jobs import delete_job, results_of, standing_of
from service.store.kept import kept_before
from service.store.leases import Claim, Freed, claim_unit, free_expired_units, give_back_unit, next_expiry, renew_lease
from service.store.packing import PackedOutcome, pack_outcome
from service.store.planning import units_made
from service.store.scheduling import count_waiting, due_unit
from service.store.tables import Artifact, Job, KeptArray, Metric, Stage, Unit
from service.store.units import commit_unit, fail_unit, give_results, report_progress, stored_result
from tests.parts import wait_until
from tests.unit.store.conftest import SubmitUnits, given, outcome

LEASE_SECONDS = 30.0
Write = Callable[[Session, Claim], bool]

WRITES: dict[str, Write] = {
    "commit": lambda session, claim: commit_unit(session, claim, outcome()),
    "fail": lambda session, claim: fail_unit(session, claim, "reason"),
    "renew": lambda session, claim: renew_lease(session, claim, LEASE_SECONDS),
    "report": lambda session, claim: report_progress(session, claim, 50),
    "give back": give_back_unit,
    "give": lambda session, claim: give_results(session, claim, NOTHING, outcome().results, outcome().metrics),
}


def try_claim(database: Database, unit_id: str, worker: str = "w") -> Claim | None:
    with database.writing() as session:
        return claim_unit(session, unit_id, worker, LEASE_SECONDS)


def claim(database: Database, unit_id: str) -> Claim:
    got = try_claim(database, unit_id)
    assert got is not None
    return got


def write(database: Database, claimed: Claim, what: str) -> bool:
    with database.writing() as session:
        return WRITES[what](session, claimed)


def states(database: Database, job_id: str) -> tuple[str, list[str]]:
    with database.reading() as session:
        job = session.get_one(Job, job_id)
        units = session.scalars(select(Unit.state).where(Unit.job_id == job_id).order_by(Unit.position))
        return job.state, list(units)


def let_leases_run_out(database: Database, attempts: int = 3) -> list[Freed]:
    """As if every worker had fallen silent; gives what was freed."""
    with database.writing() as session:
        session.execute(update(Unit).where(Unit.state == "running").values(leased_until=now() - timedelta(seconds=1)))
    with database.writing() as session:
        return free_expired_units(session, attempts, LEASE_SECONDS)


def rows(database: Database) -> int:
    """Artifacts and metrics there are."""
    with database.reading() as session:
        return sum(session.scalar(select(func.count()).select_from(table)) or 0 for table in (Artifact, Metric))


def test_a_claim_brings_all_that_the_unit_needs(database: Database, submit: SubmitUnits) -> None:
    job_id, (unit_id, _) = submit(2)
    got = claim(database, unit_id)
    assert (got.job_id, got.fence, got.analysis, got.model) == (job_id, 1, "occlusion", "efficientnet_lite0")
    assert got.params == {"window": [32, 32]}
    assert (got.unit.steps, got.unit.payload) == (100, {"part": "a"})
    assert len(got.unit.images) == 1
    assert states(database, job_id) == ("running", ["running", "queued"])


def test_second_delivery_claims_nothing(database: Database, submit: SubmitUnits) -> None:
    _, (unit_id,) = submit()
    claim(database, unit_id)
    assert try_claim(database, unit_id, "another") is None


def test_of_ten_deliveries_at_once_one_claims(database: Database, submit: SubmitUnits) -> None:
    _, (unit_id,) = submit()
    with ThreadPoolExecutor(10) as pool:
        claims = list(pool.map(lambda number: try_claim(database, unit_id, f"w{number}"), range(10)))
    assert sum(got is not None for got in claims) == 1


def test_an_unknown_unit_claims_nothing(database: Database) -> None:
    assert try_claim(database, "0" * 32) is None


def test_committed_results_come_back_bit_for_bit(database: Database, submit: SubmitUnits) -> None:
    job_id, (unit_id,) = submit()
    claimed, before = claim(database, unit_id), given(7).results
    with database.writing() as session:
        assert commit_unit(session, claimed, outcome(7))
    assert states(database, job_id) == ("succeeded", ["succeeded"])
    with database.reading() as session:
        metrics, artifacts = results_of(session, job_id)
        assert [(metric.name, metric.value, metric.unit) for metric in metrics] == [("seed", 7.0, "s")]
        heatmap, table = (stored_result(artifact) for artifact in artifacts)
        assert [artifact.shape for artifact in artifacts] == [[3, 4], None]
    assert isinstance(heatmap, Heatmap)
    assert isinstance(before[0].result, Heatmap)
    assert heatmap.values.tobytes() == before[0].result.values.tobytes()
    assert np.isnan(heatmap.values[0, 0])
    assert heatmap.geometry == before[0].result.geometry
    assert isinstance(table, Table)
    assert table == before[1].result


@pytest.mark.parametrize("what", WRITES)
def test_a_write_under_an_old_fencing_number_is_refused(database: Database, submit: SubmitUnits, what: str) -> None:
    job_id, (unit_id,) = submit()
    old = claim(database, unit_id)
    assert let_leases_run_out(database) == [Freed(unit_id, job_id, 1, failed=False)]
    new = claim(database, unit_id)
    assert new.fence == old.fence + 1
    assert write(database, old, what) is False
    assert rows(database) == 0
    assert states(database, job_id) == ("running", ["running"])
    assert write(database, new, "commit") is True
    assert rows(database) == 3


@pytest.mark.parametrize("what", WRITES)
def test_a_write_after_the_units_end_is_refused(database: Database, submit: SubmitUnits, what: str) -> None:
    job_id, (unit_id,) = submit()
    claimed = claim(database, unit_id)
    assert write(database, claimed, "commit")
    assert write(database, claimed, what) is False
    assert rows(database) == 3
    assert states(database, job_id) == ("succeeded", ["succeeded"])


@pytest.mark.parametrize("what", WRITES)
def test_a_write_to_a_deleted_job_is_refused(database: Database, submit: SubmitUnits, what: str) -> None:
    job_id, (unit_id,) = submit()
    claimed = claim(database, unit_id)
    with database.writing() as session:
        assert delete_job(session, job_id)
    assert write(database, claimed, what) is False
    assert rows(database) == 0


@pytest.mark.parametrize("with_picture", [False, True])
def test_two_results_of_one_name_are_refused_whole(database: Database, submit: SubmitUnits, with_picture: bool) -> None:
    """Of a picture and of none: which of the two should be shown?"""
    job_id, (unit_id,) = submit()
    claimed = claim(database, unit_id)
    image = claimed.unit.images[0] if with_picture else None
    twice = PackedOutcome([*outcome(1, image).results, *outcome(2, image).results], [])
    with pytest.raises(IntegrityError), database.writing() as session:
        commit_unit(session, claimed, twice)
    assert rows(database) == 0
    assert states(database, job_id) == ("running", ["running"])


def test_a_commit_that_breaks_leaves_nothing_and_can_be_tried_again(database: Database, submit: SubmitUnits) -> None:
    job_id, (unit_id,) = submit()
    claimed = claim(database, unit_id)
    with pytest.raises(RuntimeError, match="power cut"), database.writing() as session:
        commit_unit(session, claimed, outcome())
        raise RuntimeError("power cut")
    assert rows(database) == 0
    assert states(database, job_id) == ("running", ["running"])
    assert write(database, claimed, "commit")


def test_a_job_ends_with_its_last_unit_and_fails_with_any(database: Database, submit: SubmitUnits) -> None:
    job_id, unit_ids = submit(3)
    claims = [claim(database, unit_id) for unit_id in unit_ids]
    assert write(database, claims[0], "commit")
    assert write(database, claims[1], "fail")
    assert states(database, job_id) == ("running", ["succeeded", "failed", "running"])
    assert write(database, claims[2], "commit")
    assert states(database, job_id) == ("failed", ["succeeded", "failed", "succeeded"])
    with database.reading() as session:
        job = session.get_one(Job, job_id)
        failed = session.get_one(Unit, unit_ids[1]).images[0]
        assert job.error == f"1 of 3 units failed; the first, of picture {failed}: reason"
        assert job.finished_at is not None
    assert rows(database) == 6  # what succeeded is kept


def test_last_units_that_end_at_once_end_the_job(database: Database, submit: SubmitUnits) -> None:
    job_id, unit_ids = submit(8)
    claims = [claim(database, unit_id) for unit_id in unit_ids]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda claimed: write(database, claimed, "commit"), claims))
    assert states(database, job_id)[0] == "succeeded"


def test_a_unit_given_back_is_queued_and_no_attempt_is_lost(database: Database, submit: SubmitUnits) -> None:
    job_id, (unit_id,) = submit()
    for _ in range(5):
        assert write(database, claim(database, unit_id), "give back")
    assert states(database, job_id) == ("running", ["queued"])
    claim(database, unit_id)
    assert let_leases_run_out(database, attempts=2) == [Freed(unit_id, job_id, 1, failed=False)]


def test_a_unit_whose_workers_die_every_time_fails_and_so_does_its_job(database: Database, submit: SubmitUnits) -> None:
    job_id, (unit_id,) = submit()
    for attempt in range(1, 4):
        claim(database, unit_id)
        assert let_leases_run_out(database, attempts=3) == [Freed(unit_id, job_id, attempt, failed=attempt == 3)]
    assert states(database, job_id) == ("failed", ["failed"])
    with database.reading() as session:
        assert "died or fell silent 3 times" in (session.get_one(Job, job_id).error or "")


def test_a_job_whose_end_cannot_be_written_holds_up_no_others_units(database: Database, submit: SubmitUnits) -> None:
    """Here the row of a stage that is still to be planned is there already."""
    (broken, of_broken), (other, (of_other, _)) = submit(2, later=True), submit(2)
    assert write(database, claim(database, of_broken[0]), "commit")
    with database.writing() as session:
        model = session.scalars(select(Stage.model).where(Stage.job_id == broken)).one()
        session.add(Stage(job_id=broken, name="means", model=model, position=-1, units=0, still_open=0, steps_total=0))
    for unit_id in (of_broken[1], of_other):
        claim(database, unit_id)
    assert let_leases_run_out(database, attempts=1) == [Freed(of_other, other, 1, failed=True)]
    assert states(database, broken) == ("running", ["succeeded", "running"])


def test_a_job_of_an_analysis_that_there_is_no_more_ends_with_that_reason(
    database: Database, submit: SubmitUnits
) -> None:
    job_id, unit_ids = submit(2, analysis="gone")
    for unit_id in unit_ids:
        assert write(database, claim(database, unit_id), "commit")
    assert states(database, job_id)[0] == "failed"
    with database.reading() as session:
        assert "there is no analysis 'gone'" in (session.get_one(Job, job_id).error or "")


def test_a_renewed_lease_does_not_run_out(database: Database, submit: SubmitUnits) -> None:
    _, (unit_id,) = submit()
    assert write(database, claim(database, unit_id), "renew")
    with database.writing() as session:
        assert free_expired_units(session, 3, LEASE_SECONDS) == []
        assert 29 < (next_expiry(session) or 0) < 30


def test_a_lease_that_is_renewed_while_it_is_freed_is_not_freed(database: Database, submit: SubmitUnits) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has one writer")
    _, (unit_id,) = submit()
    held = claim(database, unit_id)
    with database.writing() as session:
        session.execute(update(Unit).values(leased_until=now() - timedelta(seconds=1)))

    def freed() -> list[Freed]:
        with database.writing() as session:
            return free_expired_units(session, 3, LEASE_SECONDS)

    with ThreadPoolExecutor(1) as pool:
        with database.writing() as session:
            assert renew_lease(session, held, LEASE_SECONDS)
            freeing = pool.submit(freed)
            wait_until(lambda: freeing.done() or _waits_for_a_lock(database))
        assert freeing.result(timeout=20) == []
    assert write(database, held, "commit")


def _waits_for_a_lock(database: Database) -> bool:
    with database.reading() as session:
        waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return bool(session.scalar(waiting))


def test_progress_sums_over_units(database: Database, submit: SubmitUnits) -> None:
    job_id, unit_ids = submit(2)
    assert write(database, claim(database, unit_ids[0]), "report")
    with database.reading() as session:
        progress = standing_of(session, [session.get_one(Job, job_id)])[job_id].progress
    assert (progress.done, progress.total) == (50, 200)
    assert progress.eta_seconds is not None


def kept(database: Database) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(KeptArray)) or 0


def end(database: Database, unit_id: str, number: int, *, succeeds: bool = True) -> None:
    claimed = claim(database, unit_id)
    result = given(number)
    arrays = {"numbers": np.full((2, 3), number, dtype=np.float32)}
    with database.writing() as session:
        done = pack_outcome(Outcome(result.results, result.metrics, arrays))
        waiting = count_waiting(session, 100)
        assert commit_unit(session, claimed, done) if succeeds else fail_unit(session, claimed, "reason")
        assert units_made(session) == count_waiting(session, 100) - waiting


def parts_of(database: Database, job_id: str, model: str) -> list[Part]:
    return list(kept_before(database.reading, job_id, model, ["work"])["work"])


def following(database: Database, job_id: str) -> list[str]:
    """Units of later stages that wait."""
    wanted = (Unit.job_id == job_id, Unit.stage != "work", Unit.state == "queued")
    with database.reading() as session:
        return list(session.scalars(select(Unit.id).where(*wanted).order_by(Unit.position)))


@pytest.mark.parametrize("failing", [False, True])
def test_what_units_kept_is_combined_once_and_then_gone(database: Database, submit: SubmitUnits, failing: bool) -> None:
    job_id, unit_ids = submit(3, later=True)
    for number, unit_id in enumerate(unit_ids):
        assert following(database, job_id) == []
        end(database, unit_id, number, succeeds=not (failing and number == 1))
    assert states(database, job_id)[0] == "running"
    (combining,) = following(database, job_id)
    with database.writing() as session:
        assert due_unit(session) == combining
    parts = parts_of(database, job_id, "efficientnet_lite0")
    assert [float(part.kept["numbers"][0, 0]) for part in parts] == ([0, 2] if failing else [0, 1, 2])
    assert [list(part.kept) for part in parts] == [["numbers"]] * len(parts)
    with pytest.raises(KeyError):
        parts[0].kept["letters"]
    claimed = claim(database, combining)
    assert (claimed.stage, claimed.model) == ("means", "efficientnet_lite0")
    with database.writing() as session:
        assert commit_unit(session, claimed, outcome(9))
    assert states(database, job_id)[0] == ("failed" if failing else "succeeded")
    assert kept(database) == 0
    assert following(database, job_id) == []


def test_each_model_is_combined_by_itself_and_then_all_are_compared(database: Database, submit: SubmitUnits) -> None:
    job_id, unit_ids = submit(2, later=True, models=("resnet18", "resnet50"))
    assert len(unit_ids) == 4
    for number, unit_id in enumerate(unit_ids[:2]):
        end(database, unit_id, number)
    (first,) = following(database, job_id)  # the other model's units still wait
    assert claim(database, first).model == "resnet18"
    assert [float(part.kept["numbers"][0, 0]) for part in parts_of(database, job_id, "resnet18")] == [0, 1]
    for number, unit_id in enumerate(unit_ids[2:]):
        end(database, unit_id, number + 5)
    (second,) = following(database, job_id)
    end(database, second, 9)
    assert following(database, job_id) == []
    with database.writing() as session:
        session.execute(update(Unit).where(Unit.id == first).values(state="queued"))
    end(database, first, 8)
    (comparing,) = following(database, job_id)
    claimed = claim(database, comparing)
    assert (claimed.stage, claimed.model) == ("compare", "")
    sink = Gathered()
    rest = compare_models(database, job_id, sink)
    assert [one.name for one in rest.results] == ["metrics_compared"]  # maps are given as they are found
    compared = sink.outcome(rest)
    assert [(one.name, one.variant) for one in compared.results] == [
        ("map", Variant.of(compared="resnet18 − resnet50")),
        ("metrics_compared", ONLY),
    ]
    with database.writing() as session:
        assert commit_unit(session, claimed, pack_outcome(compared))
    assert states(database, job_id)[0] == "succeeded"
    with database.reading() as session:
        metrics, artifacts = results_of(session, job_id)
    assert [one.model for one in artifacts if one.name == "map"][-3:] == ["resnet18", "resnet50", ""]
    assert {one.model for one in metrics} == {"resnet18", "resnet50"}


def test_where_one_model_gave_nothing_nothing_is_compared(database: Database, submit: SubmitUnits) -> None:
    job_id, unit_ids = submit(1, models=("resnet18", "resnet50"))
    end(database, unit_ids[0], 0)
    end(database, unit_ids[1], 1, succeeds=False)
    assert states(database, job_id) == ("failed", ["succeeded", "failed"])
    with database.reading() as session:
        error = session.get_one(Job, job_id).error
    assert error is not None
    assert error.startswith("1 of 2 units failed; the first, of picture ")
    assert error.endswith(", with resnet50: reason")


def test_where_all_units_failed_nothing_is_combined(database: Database, submit: SubmitUnits) -> None:
    job_id, unit_ids = submit(2, later=True)
    for number, unit_id in enumerate(unit_ids):
        end(database, unit_id, number, succeeds=False)
    assert states(database, job_id) == ("failed", ["failed", "failed"])


def test_a_cancelled_job_takes_its_units_with_it_and_keeps_what_is_stored(
    database: Database, submit: SubmitUnits
) -> None:
    job_id, (ended, running, waiting) = submit(3, later=True)
    end(database, ended, 0)
    claimed = claim(database, running)
    with database.writing() as session:
        assert report_progress(session, claimed, 5, outcome().results)
        assert cancel_job(session, job_id) == "cancelled"
        assert cancel_job(session, job_id) == "cancelled"
        assert cancel_job(session, "nobody") is None
    assert states(database, job_id) == ("cancelled", ["succeeded", "cancelled", "cancelled"])
    assert try_claim(database, waiting) is None
    for write_late in WRITES:
        assert not write(database, claimed, write_late)
    assert states(database, job_id) == ("cancelled", ["succeeded", "cancelled", "cancelled"])
    assert kept(database) == 0
    with database.reading() as session:
        metrics, artifacts = results_of(session, job_id)
        assert (len(metrics), [artifact.preview for artifact in artifacts]) == (1, [False, False])
        assert count_waiting(session, 10) == 0


def test_a_job_that_has_ended_cannot_be_cancelled(database: Database, submit: SubmitUnits) -> None:
    job_id, (unit_id,) = submit(1)
    end(database, unit_id, 0)
    with database.writing() as session:
        assert cancel_job(session, job_id) == "succeeded"
    assert states(database, job_id)[0] == "succeeded"


def test_a_preview_is_replaced_and_goes_with_its_unit(database: Database, submit: SubmitUnits) -> None:
    job_id, (unit_id,) = submit(1)
    claimed = claim(database, unit_id)
    for seed in (1, 2):
        with database.writing() as session:
            assert report_progress(session, claimed, seed, outcome(seed).results[:1])
        with database.reading() as session:
            (preview,) = results_of(session, job_id)[1]
            assert preview.preview
            expected = given(seed).results[0].result
            assert isinstance(expected, Heatmap)
            assert stored_result(preview).to_json() == expected.to_json()
    assert write(database, claimed, "commit")
    with database.reading() as session:
        assert [artifact.preview for artifact in results_of(session, job_id)[1]] == [False, False]

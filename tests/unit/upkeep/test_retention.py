"""Old jobs are deleted whole, and no more of them than asked for."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from occluscope import analyses
from occluscope.analyses.contract import AnalysisSpec, Stage
from occluscope.analyses.contract import Unit as PlannedUnit
from service.api.submission import JobRequest, check_request
from service.settings import Settings
from service.store.database import Database, now
from service.store.images import add_image
from service.store.jobs import delete_job, submit_job
from service.store.keys import NOBODY
from service.store.leases import claim_unit
from service.store.tables import Artifact, Base, Image, Job, Unit
from service.store.units import commit_unit
from service.upkeep.retention import delete_what_is_over, stored_bytes
from tests.conftest import encode, random_picture
from tests.unit.store.conftest import SubmitUnits, outcome, submit

__all__ = ["submit"]  # the fixture

DAY = timedelta(days=1)
SPEC = analyses.spec("invariance")


def finished(database: Database, submit: SubmitUnits, days_ago: float) -> str:
    job_id, (unit_id,) = submit()
    with database.writing() as session:
        claim = claim_unit(session, unit_id, "w", 30)
        assert claim is not None
        commit_unit(session, claim, outcome())
    with database.writing() as session:
        session.execute(update(Job).where(Job.id == job_id).values(finished_at=now() - days_ago * DAY))
    return job_id


def jobs(database: Database) -> set[str]:
    with database.reading() as session:
        return set(session.scalars(select(Job.id)))


def rows(database: Database, table: type[Base]) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_by_default_nothing_is_deleted(database: Database, submit: SubmitUnits) -> None:
    finished(database, submit, 1000)
    assert delete_what_is_over(database, Settings()) == 0
    assert rows(database, Job) == 1


def test_jobs_that_ended_too_long_ago_go_with_their_rows(database: Database, submit: SubmitUnits) -> None:
    old, young = finished(database, submit, 8), finished(database, submit, 6)
    running, _ = submit()
    with database.writing() as session:  # a job that has not ended is kept, however old
        session.execute(update(Job).where(Job.id == running).values(created_at=now() - 100 * DAY))
    assert delete_what_is_over(database, Settings(keep_days=7)) == 1
    assert jobs(database) == {young, running}
    assert old not in jobs(database)
    assert rows(database, Unit) == 2
    assert rows(database, Artifact) == 2


@pytest.mark.parametrize("kept", [0, 1, 2, 30])
def test_the_first_to_end_go_until_the_rest_fits(database: Database, submit: SubmitUnits, kept: int) -> None:
    ended = [finished(database, submit, days_ago) for days_ago in range(30)]
    with database.reading() as session:
        of_one = session.get_one(Job, ended[0]).stored_bytes
    pictures = stored_bytes(database) - 30 * of_one
    assert of_one > 0
    deleted = delete_what_is_over(database, Settings(max_bytes=pictures + kept * of_one))
    remaining = jobs(database)
    assert deleted == 30 - kept
    assert remaining == set(ended[:kept])  # the newest
    assert stored_bytes(database) <= pictures + kept * of_one


def test_pictures_of_no_job_that_nobody_used_lately_go(database: Database, submit: SubmitUnits) -> None:
    finished(database, submit, 30)
    finished(database, submit, 1)  # has the same picture
    for number, days_ago in ((100, 9.0), (101, 0.5)):
        image, _ = add_image(database, encode(random_picture(number)), NOBODY)
        with database.writing() as session:
            session.execute(update(Image).where(Image.id == image.id).values(used_at=now() - days_ago * DAY))
    assert rows(database, Image) == 3
    delete_what_is_over(database, Settings(keep_days=7))
    assert rows(database, Image) == 2


@pytest.mark.parametrize("state", ["queued", "running", "succeeded"])
def test_a_mask_is_kept_as_long_as_its_job(database: Database, submit: SubmitUnits, state: str) -> None:
    """It is none of the job's own pictures: its parameters name it."""
    mask, _ = add_image(database, encode(random_picture(100)), NOBODY)
    job_id, (unit_id,) = submit(masks=[mask.id])
    if state != "queued":
        with database.writing() as session:
            claim = claim_unit(session, unit_id, "w", 30)
            assert claim is not None
            if state == "succeeded":
                commit_unit(session, claim, outcome())
    with database.writing() as session:
        session.execute(update(Image).values(used_at=now() - 30 * DAY))
    delete_what_is_over(database, Settings(keep_days=7))
    assert rows(database, Image) == 2
    with database.writing() as session:
        assert delete_job(session, job_id)
    delete_what_is_over(database, Settings(keep_days=7))
    assert rows(database, Image) == 0


def naming(mask: str) -> AnalysisSpec:
    """An analysis of two stages whose second alone needs a picture that is not the job's."""

    def plan_means(*_: object) -> list[PlannedUnit]:
        return [PlannedUnit((mask,), 1)]

    return replace(SPEC, named_images=lambda _params: {"mask": mask}, later=(Stage("means", plan_means),))


def test_a_picture_that_a_later_stage_needs_is_kept_from_when_that_is_planned(
    database: Database, submit: SubmitUnits, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask, _ = add_image(database, encode(random_picture(100)), NOBODY)
    named = naming(mask.id)
    monkeypatch.setattr(analyses, "spec", lambda _name: named)
    _, (unit_id,) = submit(later=True)
    with database.writing() as session:
        claim = claim_unit(session, unit_id, "w", 30)
        assert claim is not None
        assert commit_unit(session, claim, outcome())
        session.execute(update(Image).values(used_at=now() - 30 * DAY))
    delete_what_is_over(database, Settings(keep_days=7))
    assert rows(database, Image) == 2


def test_a_stage_whose_picture_is_gone_is_planned_all_the_same(
    database: Database, submit: SubmitUnits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its unit says so when it is computed."""
    named = naming("0" * 32)
    monkeypatch.setattr(analyses, "spec", lambda _name: named)
    _, (unit_id,) = submit(later=True)
    with database.writing() as session:
        claim = claim_unit(session, unit_id, "w", 30)
        assert claim is not None
        assert commit_unit(session, claim, outcome())
    with database.reading() as session:
        assert session.scalars(select(Unit.images).where(Unit.stage == "means")).all() == [["0" * 32]]


def test_a_picture_that_parameters_name_is_kept_from_when_the_job_is_accepted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever stage needs it: its first has no unit with it."""
    image, mask = (add_image(database, encode(random_picture(number)), NOBODY)[0] for number in (1, 100))
    named = naming(mask.id)
    monkeypatch.setattr(analyses, "spec", lambda _name: named)
    monkeypatch.setattr(analyses, "names", lambda: ("invariance",))
    request = JobRequest(analysis="invariance", model="efficientnet_lite0", images=[image.id], params={})
    with database.reading() as session:
        checked = check_request(session, request, Settings(), NOBODY)
    assert {picture for units in checked.units.values() for unit in units for picture in unit.images} == {image.id}
    with database.writing() as session:
        submit_job(
            session,
            analysis="invariance",
            params=checked.params,
            images=[image.id],
            units=checked.units,
            request_sha256="0" * 64,
            named=checked.named,
        )
        session.execute(update(Image).values(used_at=now() - 30 * DAY))
    delete_what_is_over(database, Settings(keep_days=7))
    assert rows(database, Image) == 2


def test_uploading_a_picture_again_keeps_it(database: Database) -> None:
    content = encode(random_picture(1))
    image, _ = add_image(database, content, NOBODY)
    with database.writing() as session:
        session.execute(update(Image).values(used_at=now() - 30 * DAY))
    assert add_image(database, content, NOBODY)[0].id == image.id
    delete_what_is_over(database, Settings(keep_days=7))
    assert rows(database, Image) == 1

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from service.store.database import Database
from service.store.images import add_image, find_image, image_content
from service.store.jobs import delete_job, find_by_idempotency_key, find_job, jobs_by_state, list_jobs
from service.store.keys import NOBODY
from service.store.leases import claim_unit
from service.store.tables import Artifact, Base, Blob, Job
from service.store.units import commit_unit
from tests.conftest import encode, random_picture
from tests.unit.store.conftest import SubmitUnits, outcome


def counts(database: Database) -> dict[str, int]:
    with database.reading() as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        }


def test_the_same_bytes_are_one_image(database: Database) -> None:
    content = encode(random_picture(1))
    first, is_new = add_image(database, content, NOBODY)
    again, is_new_again = add_image(database, content, NOBODY)
    assert (is_new, is_new_again) == (True, False)
    assert first.id == again.id
    with database.reading() as session:
        assert session.scalars(select(Blob.content)).all() == [content]
    assert image_content(database, first.id) == content


def test_pages_follow_each_other_newest_first(database: Database, submit: SubmitUnits) -> None:
    submitted = [submit()[0] for _ in range(7)]
    listed: list[str] = []
    cursor = None
    pages = 0
    while pages == 0 or cursor:
        with database.reading() as session:
            page = list_jobs(session, owner=NOBODY, limit=3, cursor=cursor)
        listed += [job.id for job in page.jobs]
        cursor, pages = page.cursor, pages + 1
    assert pages == 3
    assert listed == submitted[::-1]


def test_a_page_stays_right_while_jobs_come(database: Database, submit: SubmitUnits) -> None:
    old = [submit()[0] for _ in range(4)]
    with database.reading() as session:
        page = list_jobs(session, owner=NOBODY, limit=2)
    submit()
    with database.reading() as session:
        rest = list_jobs(session, owner=NOBODY, limit=2, cursor=page.cursor)
    assert [job.id for job in rest.jobs] == old[1::-1]
    assert rest.cursor is None


def test_jobs_are_listed_by_state_and_analysis(database: Database, submit: SubmitUnits) -> None:
    queued, (running, (unit_id,)), other = submit()[0], submit(), submit(analysis="other")[0]
    with database.writing() as session:
        claim_unit(session, unit_id, "w", 30)
    with database.reading() as session:
        assert [job.id for job in list_jobs(session, owner=NOBODY, state="running").jobs] == [running]
        assert [job.id for job in list_jobs(session, owner=NOBODY, analysis="other").jobs] == [other]
        assert [job.id for job in list_jobs(session, owner=NOBODY, state="queued").jobs] == [other, queued]
        assert jobs_by_state(session) == {
            "queued": 2, "running": 1, "succeeded": 0, "failed": 0, "cancelled": 0
        }  # fmt: skip


@pytest.mark.parametrize("cursor", ["", "x", "bm90IGpzb24=", "WzEsMl0=", "WyJhIiwgImIiXQ=="])
def test_a_foreign_cursor_is_refused(database: Database, cursor: str) -> None:
    with database.reading() as session:
        if cursor:
            with pytest.raises(ValueError, match="not a cursor"):
                list_jobs(session, owner=NOBODY, cursor=cursor)
        else:
            assert list_jobs(session, owner=NOBODY, cursor=cursor).jobs == []


def test_deleting_a_job_takes_its_results_and_nothing_else(database: Database, submit: SubmitUnits) -> None:
    (kept, (kept_unit,)), (gone, (gone_unit,)) = submit(), submit()
    for unit_id in (kept_unit, gone_unit):
        with database.writing() as session:
            claimed = claim_unit(session, unit_id, "w", 30)
        assert claimed is not None
        with database.writing() as session:
            commit_unit(session, claimed, outcome())
    with database.writing() as session:
        assert delete_job(session, gone)
    with database.writing() as session:
        assert not delete_job(session, gone)
    assert counts(database) == {
        "images": 1, "jobs": 1, "job_images": 1, "units": 1, "artifacts": 2, "metrics": 1, "workers": 0,
        "kept_arrays": 0, "owners": 1, "tallies": 4, "api_keys": 0, "image_owners": 1, "deliveries": 0, "stages": 1,
        "named_images": 0, "sign_ins": 0, "turns": 0, "models": 0, "blobs": 1,
    }  # fmt: skip
    with database.reading() as session:
        assert session.scalars(select(Artifact.job_id).distinct()).all() == [kept]


def test_an_idempotency_key_stands_for_one_job(database: Database, submit: SubmitUnits) -> None:
    job_id, _ = submit(key="k")
    with pytest.raises(IntegrityError):
        submit(key="k")
    with database.reading() as session:
        found = find_by_idempotency_key(session, "k", NOBODY)
        assert found is not None
        assert found.id == job_id
        assert find_by_idempotency_key(session, "other", NOBODY) is None
    assert counts(database)["jobs"] == 1


def test_an_idempotency_key_is_its_owners_alone(database: Database, submit: SubmitUnits) -> None:
    submitted = {owner: submit(key="k", owner=owner)[0] for owner in ("a", "b", NOBODY)}
    with database.reading() as session:
        for owner, job_id in submitted.items():
            found = find_by_idempotency_key(session, "k", owner)
            assert found is not None
            assert found.id == job_id


def test_owners_see_their_own_jobs_and_pictures(database: Database, submit: SubmitUnits) -> None:
    (mine, _), (theirs, _) = submit(owner="a"), submit(owner="b")
    content = encode(random_picture(0))  # the picture of both
    with database.reading() as session:
        for owner, own, others in (("a", mine, theirs), ("b", theirs, mine)):
            assert [job.id for job in list_jobs(session, owner=owner).jobs] == [own]
            assert find_job(session, own, owner) is not None
            assert find_job(session, others, owner) is None
    image, is_new = add_image(database, content, "a")
    assert not is_new
    with database.reading() as session:
        assert find_image(session, image.id, "b") is not None
        assert find_image(session, image.id, "c") is None
    same, is_new = add_image(database, content, "c")
    assert (same.id, is_new) == (image.id, True)  # nobody is told what others have
    assert not add_image(database, content, "c")[1]
    assert counts(database)["images"] == 1


def test_moments_are_given_back_in_utc(database: Database, submit: SubmitUnits) -> None:
    job_id, _ = submit()
    with database.reading() as session:
        offset = session.get_one(Job, job_id).created_at.utcoffset()
    assert offset is not None
    assert offset.total_seconds() == 0

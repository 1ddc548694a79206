"""Keys, and what becomes of what was there before them."""

import pytest
from sqlalchemy import inspect, select, text, update

from service.keyring import Keyring
from service.store.database import Database
from service.store.deliveries import owners_due
from service.store.ending import cancel_job
from service.store.images import add_image, find_image
from service.store.jobs import list_jobs
from service.store.keys import NOBODY, add_key, adopt, key_sha256, list_keys, owners_by_key, revoke_key
from service.store.leases import claim_unit
from service.store.scheduling import due_unit
from service.store.tables import Job, Unit
from tests.conftest import encode, random_picture
from tests.unit.store.conftest import SubmitUnits


def make(database: Database, owner: str) -> str:
    with database.writing() as session:
        return add_key(session, owner)


def test_a_key_is_its_owners_and_stands_nowhere(database: Database) -> None:
    keys = [make(database, owner) for owner in ("a", "a", "b")]
    assert len(set(keys)) == 3
    assert all(len(key) > 40 for key in keys)
    ring = Keyring(database)
    assert [ring.owner_of(key) for key in keys] == ["a", "a", "b"]
    with database.reading() as session:
        for table in inspect(database.engine).get_table_names():
            rows = str(session.execute(text(f'SELECT * FROM "{table}"')).all())
            assert not any(key in rows for key in keys)


@pytest.mark.parametrize("key", [None, "", "occ_", "occ_" + "a" * 43, "\udc80", "a" * 10_000])
def test_what_is_no_key_is_nobodys(database: Database, key: str | None) -> None:
    make(database, "a")
    assert Keyring(database).owner_of(key) is None


def test_without_keys_everything_is_the_nameless_owners(database: Database) -> None:
    assert Keyring(database).owner_of(None) == NOBODY
    assert Keyring(database).owner_of("anything") == NOBODY


def test_revoking_the_last_key_does_not_open_the_service(database: Database) -> None:
    key = make(database, "a")
    with database.writing() as session:
        (row,) = list_keys(session)
        first = revoke_key(session, row.id)
        assert first is not None
        assert revoke_key(session, row.id) == first
        assert revoke_key(session, "nobody") is None
    with database.reading() as session:
        assert owners_by_key(session) == {key_sha256(key): None}
    ring = Keyring(database)
    assert ring.owner_of(key) is None
    assert ring.owner_of(None) is None


def test_what_was_there_before_keys_can_be_adopted(database: Database, submit: SubmitUnits) -> None:
    """Pictures that the owner has too among it; what waits goes on, in the owner's turn."""
    job_id, unit_ids = submit(2)
    both, _ = add_image(database, encode(random_picture(0)), "a")
    ended, _ = submit()
    with database.writing() as session:
        session.execute(update(Job).where(Job.id == ended).values(webhook="https://example.org/"))
        cancel_job(session, ended)
        add_key(session, "a")
        assert adopt(session, "a") == 2
        assert adopt(session, "a") == 0
    with database.writing() as session:
        assert [job.id for job in list_jobs(session, owner="a").jobs] == [ended, job_id]
        assert list_jobs(session, owner=NOBODY).jobs == []
        assert find_image(session, both.id, "a") is not None
        assert find_image(session, both.id, NOBODY) is None
        assert set(session.scalars(select(Unit.owner))) == {"a"}
        assert owners_due(session) == ["a"]
        due = due_unit(session)
        assert due == unit_ids[0]
        assert claim_unit(session, due, "w", 30) is not None

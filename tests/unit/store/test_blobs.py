"""Bytes that rows name by their hash."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from alembic import command
from sqlalchemy import delete, select, text, update

from service.store.blobs import GRACE, MissingBlobError, blobs_of
from service.store.database import Database, clock
from service.store.images import add_image, image_content
from service.store.keys import NOBODY
from service.store.migrate import alembic_config
from service.store.tables import Blob, Image
from tests.conftest import encode, random_picture

CONTENT = b"some bytes"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def age(database: Database, sha256: str) -> None:
    """As if the blob had been put before the time of grace."""
    with database.writing() as session:
        long_ago = clock(session) - 2 * GRACE
        session.execute(update(Blob).where(Blob.sha256 == sha256).values(put_at=long_ago))


def test_bytes_come_back_by_their_hash_and_are_stored_once(database: Database) -> None:
    blobs = blobs_of(database)
    assert not blobs.exists(SHA256)
    with pytest.raises(MissingBlobError, match=SHA256):
        blobs.open(SHA256)
    assert [blobs.put(CONTENT) for _ in range(2)] == [SHA256] * 2
    assert blobs.exists(SHA256)
    with blobs.open(SHA256) as opened:
        assert opened.read(4) + opened.read() == CONTENT
    with database.reading() as session:
        assert session.execute(select(Blob.sha256, Blob.size)).all() == [(SHA256, len(CONTENT))]


def test_the_same_bytes_put_at_once_are_one_blob(database: Database) -> None:
    together = threading.Barrier(4)

    def put(_: int) -> str:
        together.wait()
        return blobs_of(database).put(CONTENT)

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(put, range(4))) == {SHA256}
    with database.reading() as session:
        assert session.scalars(select(Blob.sha256)).all() == [SHA256]


def test_what_no_row_names_is_swept_after_the_time_of_grace(database: Database) -> None:
    blobs = blobs_of(database)
    image, _ = add_image(database, encode(random_picture(1)), NOBODY)
    blobs.put(CONTENT)
    assert blobs.sweep() == 0
    for sha256 in (SHA256, image.sha256):
        age(database, sha256)
    assert blobs.sweep() == 1
    assert not blobs.exists(SHA256)
    assert image_content(database, image.id) == encode(random_picture(1))
    with database.writing() as session:
        session.execute(delete(Image))
    assert blobs.sweep() == 1


def test_what_is_put_again_is_not_swept(database: Database) -> None:
    """Its row is still to be written."""
    blobs = blobs_of(database)
    blobs.put(CONTENT)
    age(database, SHA256)
    blobs.put(CONTENT)
    assert blobs.sweep() == 0
    assert blobs.exists(SHA256)


def test_a_put_beside_a_sweep_keeps_its_bytes(database: Database) -> None:
    """The sweep has chosen the blob when the put changes its row."""
    if database.is_sqlite:
        pytest.skip("SQLite has one writer")
    blobs = blobs_of(database)
    blobs.put(CONTENT)
    age(database, SHA256)
    with ThreadPoolExecutor(1) as threads:
        with database.writing() as session:
            session.execute(update(Blob).values(put_at=clock(session)))
            session.flush()
            sweeping = threads.submit(blobs.sweep)
            with database.reading() as other:
                waiting = (
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE%'"
                )
                while not other.scalar(text(waiting)):
                    other.rollback()
        assert sweeping.result(30) == 0
    assert blobs.exists(SHA256)


def test_a_picture_that_is_deleted_has_no_content(database: Database) -> None:
    image, _ = add_image(database, encode(random_picture(1)), NOBODY)
    with database.writing() as session:
        session.execute(delete(Blob))
    assert image_content(database, image.id) is None
    assert image_content(database, "nobody's") is None


def test_a_picture_that_is_none_leaves_no_blob(database: Database) -> None:
    with pytest.raises(Exception, match="not a picture"):
        add_image(database, CONTENT, NOBODY)
    with database.reading() as session:
        assert session.scalars(select(Blob.sha256)).all() == []


def test_pictures_of_before_blobs_are_blobs_and_go_back(database: Database) -> None:
    contents = [encode(random_picture(number)) for number in range(3)]
    images = [add_image(database, content, NOBODY)[0] for content in contents]
    config = alembic_config(database)
    command.downgrade(config, "0014")
    with database.engine.begin() as connection:
        stored = connection.execute(text("SELECT id, content FROM images")).all()
    assert {row[0]: bytes(row[1]) for row in stored} == {
        image.id: content for image, content in zip(images, contents, strict=True)
    }
    command.upgrade(config, "head")
    assert [image_content(database, image.id) for image in images] == contents
    with database.writing() as session:  # they were put when they were last used
        session.execute(update(Blob).values(put_at=clock(session) - timedelta(days=2)))
    assert blobs_of(database).sweep() == 0

"""Retention: ended jobs are deleted with their results, oldest end first, by age and by total size."""

import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import delete, exists, func, select

from service.settings import Settings
from service.store.blobs import blobs_of
from service.store.database import Database, clock
from service.store.sign_ins import forget_expired
from service.store.tables import Blob, Image, Job, JobImage, NamedImage

_BATCH: Final = 20  # rows deleted in one transaction, so that other writers get their turn
_UNUSED_FOR: Final = timedelta(days=1)  # a picture that was just uploaded will be used soon

_log = structlog.get_logger(__name__)


def delete_what_is_over(database: Database, config: Settings) -> int:
    """Delete jobs that ended more than `keep_days` ago, then the oldest until the total is within `max_bytes`.

    Pictures that no job refers to any more, and that were not used for a day, are deleted too. Returns the number of
    deleted jobs.
    """
    with database.reading() as session:
        moment = clock(session)
    with database.writing() as session:
        forget_expired(session)
    deleted = 0
    if config.keep_days is not None:
        too_old = moment - timedelta(days=config.keep_days)
        deleted += sum(_deleted_jobs(database, too_old))
        _delete_unused_images(database, min(too_old, moment - _UNUSED_FOR))
    if config.max_bytes is not None and stored_bytes(database) > config.max_bytes:
        _delete_unused_images(database, moment - _UNUSED_FOR)
        deleted += sum(_deleted_jobs(database, moment, stored_bytes(database) - config.max_bytes))
        _delete_unused_images(database, moment - _UNUSED_FOR)
    if deleted:
        _log.info("jobs deleted", jobs=deleted)
    return deleted


def stored_bytes(database: Database) -> int:
    """Bytes of all results and pictures, without the database's own overhead."""
    with database.reading() as session:
        results = session.scalar(select(func.sum(Job.stored_bytes))) or 0
        blobs = session.scalar(select(func.sum(Blob.size))) or 0
    return int(results) + int(blobs)


def _deleted_jobs(database: Database, before: datetime, excess_bytes: float = math.inf) -> Iterator[int]:
    """Delete jobs that ended before a moment, in portions, until enough bytes are freed; yield each portion's count."""
    ended = select(Job.id, Job.stored_bytes).where(Job.finished_at < before).order_by(Job.finished_at)
    while excess_bytes > 0:
        with database.writing() as session:
            chosen: list[str] = []
            for job_id, its_bytes in session.execute(ended.limit(_BATCH).with_for_update(skip_locked=True)):
                if excess_bytes <= 0:
                    break
                chosen.append(job_id)
                excess_bytes -= its_bytes
            session.execute(delete(Job).where(Job.id.in_(chosen)))
        if not chosen:
            return
        yield len(chosen)


def _delete_unused_images(database: Database, unused_since: datetime) -> None:
    """Delete pictures that no job refers to and that were not used since a moment, and blobs that no row names."""
    unused = (
        Image.used_at < unused_since,
        ~exists().where(JobImage.image_id == Image.id),
        ~exists().where(NamedImage.image_id == Image.id),
    )
    while True:
        with database.writing() as session:
            image_ids = session.scalars(select(Image.id).where(*unused).limit(_BATCH)).all()
            session.execute(delete(Image).where(Image.id.in_(image_ids), *unused))
        if not image_ids:
            break
    blobs_of(database).sweep()

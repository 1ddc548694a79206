"""Row locks. Every transaction takes them in the order turn, owner, job, unit or delivery: no two deadlock."""

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from service.store.tables import Job


def share_job(session: Session, job_id: str) -> bool:
    """Keep a job from being deleted until the transaction ends, and hold up nobody else; false where there is none.

    Rows that refer to a job share it anyway, when they are written: here it comes before its units, as the order is.
    """
    query = select(Job.id).where(Job.id == job_id).with_for_update(read=True, key_share=True)
    return session.scalar(query) is not None


def lock_job(session: Session, job_id: str, *, skip_locked: bool = False) -> Job | None:
    """Lock a job's row until the transaction ends: of two workers that end its last units, the second sees the first's.

    Returns None if there is no such job or, with `skip_locked`, if another transaction holds the lock. SQLite has no
    row locks and needs none: a writer locks the whole database. The job's parameters are read only on access, so that a
    job whose parameters cannot be read can still be ended or deleted.
    """
    query = select(Job).where(Job.id == job_id).options(defer(Job.params))
    query = query.with_for_update(key_share=True, skip_locked=skip_locked)
    return session.scalar(query.execution_options(populate_existing=True))

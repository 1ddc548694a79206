"""Workers as the control plane sees them: by their heartbeat."""

from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from service.store.database import now
from service.store.tables import Worker


def note_worker(session: Session, worker_id: str, device: str) -> None:
    """A worker's heartbeat."""
    worker = session.get(Worker, worker_id)
    if worker:
        worker.seen_at = now()
    else:
        session.add(Worker(id=worker_id, device=device, started_at=now(), seen_at=now()))


def forget_worker(session: Session, worker_id: str) -> None:
    """A worker says that it stops."""
    session.execute(delete(Worker).where(Worker.id == worker_id))


def forget_silent_workers(session: Session, within_seconds: float) -> None:
    """Drop workers that died without a word."""
    session.execute(delete(Worker).where(Worker.seen_at < now() - timedelta(seconds=within_seconds)))


def live_workers(session: Session, within_seconds: float) -> int:
    """How many workers were heard of lately."""
    query = select(func.count()).select_from(Worker).where(Worker.seen_at >= now() - timedelta(seconds=within_seconds))
    return session.scalar(query) or 0

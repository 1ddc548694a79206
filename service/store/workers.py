"""Workers, as the control plane knows them from their heartbeats."""

import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.store.database import clock
from service.store.tables import Worker

_HOST: Final = 60  # characters of a machine's name in a worker's id


@dataclass(frozen=True)
class Pulse:
    """What a heartbeat reports. consuming: whether the worker takes units from the broker. Memory in bytes."""

    worker_id: str
    device: str
    consuming: bool = True
    memory_bytes: int = 0
    gpu_memory_bytes: int | None = None


def worker_prefix(process: int) -> str:
    """The beginning of the ids of workers that run, or ran, as this process of this machine."""
    return f"{socket.gethostname()[:_HOST]}-{process}-"


def note_worker(session: Session, pulse: Pulse) -> None:
    """Store a worker's heartbeat."""
    moment = clock(session)
    worker = session.get(Worker, pulse.worker_id)
    if worker is None:
        worker = Worker(id=pulse.worker_id, device=pulse.device, started_at=moment)
        session.add(worker)
    worker.seen_at, worker.consuming = moment, pulse.consuming
    worker.memory_bytes, worker.gpu_memory_bytes = pulse.memory_bytes, pulse.gpu_memory_bytes


def forget_worker(session: Session, worker_id: str) -> None:
    """Remove a worker that stops."""
    session.execute(delete(Worker).where(Worker.id == worker_id))


def forget_silent_workers(session: Session, within_seconds: float) -> None:
    """Remove workers whose heartbeats have stopped."""
    session.execute(delete(Worker).where(Worker.seen_at < clock(session) - timedelta(seconds=within_seconds)))


def live_workers(session: Session, within_seconds: float) -> list[Worker]:
    """Workers with a recent heartbeat."""
    heard_of = Worker.seen_at >= clock(session) - timedelta(seconds=within_seconds)
    return list(session.scalars(select(Worker).where(heard_of).order_by(Worker.id)))

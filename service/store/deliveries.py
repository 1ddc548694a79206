"""Deliveries: notifications of webhooks, written with the job's end, so that none is lost and no job waits for one.

A deliverer claims a delivery by moving its due time; if the deliverer dies, the delivery is due again then. So a
receiver may be notified twice; the delivery's id shows that.
"""

import base64
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.store.changes import note_change
from service.store.database import clock
from service.store.locks import lock_job
from service.store.scheduling import note_owner
from service.store.states import DeliveryState
from service.store.tables import Delivery, Job, Owner

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - how Standard Webhooks marks one
_SECRET_BYTES: Final = 24
_WAITING = Delivery.state == DeliveryState.WAITING


@dataclass(frozen=True)
class Due:
    """A claimed delivery. attempt: its number, from 1; only the newest attempt may write."""

    id: str
    job_id: str
    owner: str
    url: str
    attempt: int
    message: dict[str, Any]


def queue_delivery(session: Session, job: Job, moment: datetime) -> None:
    """Queue the notification of the job's webhook, if it has one."""
    if job.webhook:
        session.add(
            Delivery(job_id=job.id, owner=job.owner, state=DeliveryState.WAITING, created_at=moment, due_at=moment)
        )


def owners_due(session: Session) -> list[str]:
    """The owners with deliveries that are due."""
    waiting = select(func.min(Delivery.owner).label("owner")).where(_WAITING).cte("waiting", recursive=True)
    # From owner to owner along the index, skipping the deliveries of each.
    following: Any = select(func.min(Delivery.owner)).where(_WAITING, Delivery.owner > waiting.c.owner)
    waiting = waiting.union_all(select(following.scalar_subquery()).where(waiting.c.owner.is_not(None)))
    first = select(func.min(Delivery.due_at)).where(_WAITING, Delivery.owner == waiting.c.owner).scalar_subquery()
    return list(session.scalars(select(waiting.c.owner).where(first <= clock(session))))


def claim_deliveries(session: Session, owner: str, limit: int, lease_seconds: float) -> list[Due]:
    """Claim an owner's due deliveries; no other deliverer gets them before the lease expires."""
    moment = clock(session)
    due = (
        select(Delivery.id)
        .join(Job, Job.id == Delivery.job_id)
        .where(_WAITING, Delivery.owner == owner, Delivery.due_at <= moment)
        .order_by(Delivery.due_at)
        .limit(limit)
        # Both, and without waiting: who deletes a job locks it before its delivery.
        .with_for_update(of=(Delivery, Job), key_share=True, skip_locked=True)
    )
    ids = session.scalars(due).all()
    session.execute(
        update(Delivery)
        .where(Delivery.id.in_(ids))
        .values(attempts=Delivery.attempts + 1, due_at=moment + timedelta(seconds=lease_seconds))
    )
    claimed = select(Delivery, Job).join(Job, Job.id == Delivery.job_id).where(Delivery.id.in_(ids))
    found = session.execute(claimed).all()
    for _, job in found:
        note_change(job)
    return [
        Due(delivery.id, job.id, job.owner, job.webhook or "", delivery.attempts, _message(job))
        for delivery, job in found
    ]


def note_delivered(session: Session, due: Due, status: int | None) -> bool:
    """Note that the receiver accepted it; false if another deliverer has claimed it by now."""
    return _change(session, due, state=DeliveryState.DELIVERED, status=status, error=None, delivered_at=clock(session))


def note_refused(
    session: Session, due: Due, error: str, status: int | None = None, again_in_seconds: float | None = None
) -> bool:
    """Note that the receiver did not accept it. again_in_seconds: until the next attempt; None to give up."""
    state = DeliveryState.GIVEN_UP if again_in_seconds is None else DeliveryState.WAITING
    due_at = clock(session) + timedelta(seconds=again_in_seconds or 0.0)
    return _change(session, due, state=state, status=status, error=error, due_at=due_at)


def delivery_of(session: Session, job_id: str) -> Delivery | None:
    """The delivery to the job's webhook; None before the job's end, and if it has no webhook."""
    return session.scalar(select(Delivery).where(Delivery.job_id == job_id))


def deliveries_by_state(session: Session) -> dict[str, int]:
    """How many deliveries there are in each state."""
    query = select(Delivery.state, func.count()).group_by(Delivery.state)
    counts: dict[str, int] = dict(session.execute(query).all())
    return {state: counts.get(state, 0) for state in DeliveryState}


def webhook_secret(session: Session, owner: str) -> str:
    """The secret that signs an owner's notifications; made when it is first asked for."""
    note_owner(session, owner)
    fresh = _SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    of_owner = update(Owner).where(Owner.name == owner)
    session.execute(of_owner.where(Owner.webhook_secret.is_(None)).values(webhook_secret=fresh))
    return str(session.scalar(select(Owner.webhook_secret).where(Owner.name == owner)))


def _message(job: Job) -> dict[str, Any]:
    """The body of the notification."""
    moments = {"created_at": job.created_at, "started_at": job.started_at, "finished_at": job.finished_at}
    told = {name: moment.isoformat() if moment else None for name, moment in moments.items()}
    return {
        "type": f"job.{job.state}",
        "timestamp": told["finished_at"],
        "data": {"id": job.id, "analysis": job.analysis, "state": job.state, "error": job.error, **told},
    }


def _change(session: Session, due: Due, **values: Any) -> bool:
    if (job := lock_job(session, due.job_id)) is None:
        return False
    changed = session.execute(
        update(Delivery)
        .where(Delivery.id == due.id, Delivery.attempts == due.attempt, Delivery.state == DeliveryState.WAITING)
        .values(**values)
        .returning(Delivery.id)
    )
    if changed.first() is None:
        return False
    note_change(job)
    return True

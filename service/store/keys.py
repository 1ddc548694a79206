"""Keys: a request with a key acts for the key's owner.

A key is shown once, when it is made; the database has only its SHA-256. As long as no key was ever made, none is
needed, and everything belongs to the owner without a name. The row of a revoked key stays, so that revoking the last
key does not open the service.
"""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from service.store.database import clock
from service.store.scheduling import note_owner
from service.store.tables import ApiKey, Delivery, ImageOwner, Job, Unit

NOBODY: Final = ""  # owner of everything while there are no keys
_PREFIX: Final = "occ_"
_BYTES: Final = 32  # of randomness in a key
_ID_DIGITS: Final = 12


def add_key(session: Session, owner: str) -> str:
    """Make a key for an owner; return the key itself, which is not stored."""
    key = _PREFIX + secrets.token_urlsafe(_BYTES)
    digest = key_sha256(key)
    note_owner(session, owner)
    session.add(ApiKey(id=digest[:_ID_DIGITS], sha256=digest, owner=owner, created_at=clock(session)))
    session.flush()
    return key


def revoke_key(session: Session, key_id: str) -> datetime | None:
    """Revoke a key; return when it was revoked, None if there is no such key."""
    key = session.get(ApiKey, key_id)
    if key is None:
        return None
    key.revoked_at = key.revoked_at or clock(session)
    return key.revoked_at


def list_keys(session: Session) -> list[ApiKey]:
    """Every key, the oldest first."""
    return list(session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)))


def owners_by_key(session: Session) -> Mapping[str, str | None]:
    """The owner of each key, by the key's SHA-256; None for a revoked key. Empty while no key is needed."""
    query = select(ApiKey.sha256, ApiKey.owner, ApiKey.revoked_at)
    return {sha256: None if revoked_at else owner for sha256, owner, revoked_at in session.execute(query)}


def adopt(session: Session, owner: str) -> int:
    """Give an owner everything that was submitted while there were no keys; return how many jobs that are."""
    owned = select(ImageOwner.image_id).where(ImageOwner.owner == owner)
    session.execute(delete(ImageOwner).where(ImageOwner.owner == NOBODY, ImageOwner.image_id.in_(owned)))
    session.execute(update(ImageOwner).where(ImageOwner.owner == NOBODY).values(owner=owner))
    jobs = session.scalars(update(Job).where(Job.owner == NOBODY).values(owner=owner).returning(Job.id)).all()
    for table in (Unit, Delivery):
        session.execute(update(table).where(table.owner == NOBODY).values(owner=owner))
    return len(jobs)


def key_sha256(key: str) -> str:
    """The hash that is stored in place of a key."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()

"""Browsers that are signed in: each by a token of its own, so that signing out ends what its cookie is worth.

A token is shown once, to the browser; the database has only its SHA-256. It acts for its key's owner, as long as the
key does.
"""

import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.store.database import clock
from service.store.keys import key_sha256
from service.store.tables import ApiKey, SignIn

SIGNED_IN_FOR: Final = timedelta(days=90)
_BYTES: Final = 32  # of chance in a token


def sign_in(session: Session, key: str) -> str | None:
    """Make a token that acts for a key's owner; none where the key is nobody's or revoked."""
    of_key = select(ApiKey.id).where(ApiKey.sha256 == key_sha256(key), ApiKey.revoked_at.is_(None))
    key_id = session.scalar(of_key)
    if key_id is None:
        return None
    token = secrets.token_urlsafe(_BYTES)
    session.add(SignIn(sha256=key_sha256(token), key_id=key_id, expires_at=clock(session) + SIGNED_IN_FOR))
    session.flush()
    return token


def sign_out(session: Session, token: str) -> None:
    """End a token, if it is one."""
    session.execute(delete(SignIn).where(SignIn.sha256 == key_sha256(token)))


def owners_by_token(session: Session) -> Mapping[str, str]:
    """Whom each token acts for, by its SHA-256; without those whose time is over or whose key is revoked."""
    query = (
        select(SignIn.sha256, ApiKey.owner)
        .join(ApiKey, ApiKey.id == SignIn.key_id)
        .where(ApiKey.revoked_at.is_(None), SignIn.expires_at > clock(session))
    )
    return {sha256: owner for sha256, owner in session.execute(query)}  # noqa: C416 - rows are no pairs to `dict`'s types


def forget_expired(session: Session) -> None:
    """Drop tokens whose time is over."""
    session.execute(delete(SignIn).where(SignIn.expires_at <= clock(session)))

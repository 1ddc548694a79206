"""Browsers that are signed in: each by a token of its own, so that signing out ends what its cookie is worth.

A token is shown once, to the browser; the database has only its SHA-256. It acts for its key's owner, as long as the
key does.
"""

import secrets
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.store.database import clock
from service.store.keys import key_sha256
from service.store.tables import ApiKey, SignIn

SIGNED_IN_FOR: Final = timedelta(days=90)
MOST_OF_A_KEY: Final = 100  # browsers signed in with one key at once
_BYTES: Final = 32  # of chance in a token


def sign_in(session: Session, key: str) -> str | None:
    """Make a token that acts for a key's owner; none where the key is nobody's or revoked.

    Of very many of one key the oldest end.
    """
    of_key = select(ApiKey.id).where(ApiKey.sha256 == key_sha256(key), ApiKey.revoked_at.is_(None))
    key_id = session.scalar(of_key)
    if key_id is None:
        return None
    of_this_key = select(SignIn.sha256).where(SignIn.key_id == key_id).order_by(SignIn.expires_at.desc())
    oldest = session.scalars(of_this_key.offset(MOST_OF_A_KEY - 1)).all()
    session.execute(delete(SignIn).where(SignIn.sha256.in_(oldest)))
    token = secrets.token_urlsafe(_BYTES)
    session.add(SignIn(sha256=key_sha256(token), key_id=key_id, expires_at=clock(session) + SIGNED_IN_FOR))
    session.flush()
    return token


def sign_out(session: Session, token: str) -> None:
    """End a token, if it is one."""
    session.execute(delete(SignIn).where(SignIn.sha256 == key_sha256(token)))


def owner_signed_in(session: Session, token: str) -> str | None:
    """Whom a token acts for; none where it is no token, its time is over, or its key is revoked."""
    query = (
        select(ApiKey.owner)
        .join(SignIn, ApiKey.id == SignIn.key_id)
        .where(SignIn.sha256 == key_sha256(token), ApiKey.revoked_at.is_(None), SignIn.expires_at > clock(session))
    )
    return session.scalar(query)


def forget_expired(session: Session) -> None:
    """Drop tokens whose time is over."""
    session.execute(delete(SignIn).where(SignIn.expires_at <= clock(session)))

"""Signed-in browsers: each has its own token, so that signing out makes the browser's cookie invalid.

A token is shown once, to the browser; the database has only its SHA-256. It acts for the owner of its key, as long as
the key is valid.
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
MOST_OF_A_KEY: Final = 100  # browsers signed in with one key at the same time
_BYTES: Final = 32  # of randomness in a token


def sign_in(session: Session, key: str) -> str | None:
    """Make a token that acts for a key's owner; None if the key is unknown or revoked.

    If one key has too many tokens, the oldest end.
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
    """End a token; an unknown one changes nothing."""
    session.execute(delete(SignIn).where(SignIn.sha256 == key_sha256(token)))


def owner_signed_in(session: Session, token: str) -> str | None:
    """The owner that a token acts for; None if it is unknown or expired, or its key is revoked."""
    query = (
        select(ApiKey.owner)
        .join(SignIn, ApiKey.id == SignIn.key_id)
        .where(SignIn.sha256 == key_sha256(token), ApiKey.revoked_at.is_(None), SignIn.expires_at > clock(session))
    )
    return session.scalar(query)


def forget_expired(session: Session) -> None:
    """Delete expired tokens."""
    session.execute(delete(SignIn).where(SignIn.expires_at <= clock(session)))

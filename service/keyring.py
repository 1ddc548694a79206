"""The keys and the signed-in browsers, cached by the process that answers requests."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from service.store.database import Database
from service.store.keys import NOBODY, key_sha256, owners_by_key
from service.store.sign_ins import owner_signed_in, sign_in, sign_out

_FRESH_SECONDS: Final = 2.0  # a new or revoked key takes effect everywhere after at most this long


@dataclass(frozen=True)
class _Known:
    """What the database had. asked: when, by the monotonic clock. by_key: owners by the SHA-256 of their keys."""

    asked: float
    by_key: Mapping[str, str | None]


class Keyring:
    """The keys, read from the database every few seconds. Safe for use by several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last: _Known | None = None

    def owner_of(self, key: str | None, token: str | None = None) -> str | None:
        """The owner of a key or, without a key, of a browser's token; None if one is required and there is none."""
        known = self._known()
        if not known.by_key:
            return NOBODY
        if key is not None:
            return known.by_key.get(key_sha256(key))
        if token is None:
            return None
        with self._database.reading() as session:
            return owner_signed_in(session, token)

    def sign_in(self, key: str) -> str | None:
        """Make a token with which a browser acts for the key's owner; None if the key is not valid."""
        with self._database.writing() as session:
            return sign_in(session, key)

    def sign_out(self, token: str) -> None:
        """End a browser's token; an unknown token changes nothing."""
        with self._database.reading() as session:
            if owner_signed_in(session, token) is None:
                return
        with self._database.writing() as session:
            sign_out(session, token)

    def _known(self) -> _Known:
        last = self._last
        if last is None or time.monotonic() - last.asked > _FRESH_SECONDS:
            asked = time.monotonic()
            with self._database.reading() as session:
                last = _Known(asked, owners_by_key(session))
            self._last = last
        return last

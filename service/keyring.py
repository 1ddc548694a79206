"""The keys, and the browsers signed in with them, as a process that answers requests knows them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from service.store.database import Database
from service.store.keys import NOBODY, key_sha256, owners_by_key
from service.store.sign_ins import owners_by_token, sign_in, sign_out

_FRESH_SECONDS: Final = 2.0  # a key that is made or revoked is so everywhere after at most this long


@dataclass(frozen=True)
class _Known:
    """What the database had. asked: moment of the steady clock. Owners by the SHA-256 of keys and of tokens."""

    asked: float
    by_key: Mapping[str, str | None]
    by_token: Mapping[str, str]


class Keyring:
    """The keys, read from the database every few seconds. Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last: _Known | None = None

    def owner_of(self, key: str | None, token: str | None = None) -> str | None:
        """Whom a key acts for, or without one a browser's token; none where that is nobody, and somebody is needed."""
        known = self._known()
        if not known.by_key:
            return NOBODY
        if key is not None:
            return known.by_key.get(key_sha256(key))
        return known.by_token.get(key_sha256(token)) if token is not None else None

    def sign_in(self, key: str) -> str | None:
        """A token for a browser, which acts for the key's owner; none where the key is nobody's."""
        with self._database.writing() as session:
            token = sign_in(session, key)
        self._last = None
        return token

    def sign_out(self, token: str) -> None:
        """End a browser's token."""
        with self._database.writing() as session:
            sign_out(session, token)
        self._last = None

    def _known(self) -> _Known:
        last = self._last
        if last is None or time.monotonic() - last.asked > _FRESH_SECONDS:
            asked = time.monotonic()
            with self._database.reading() as session:
                last = _Known(asked, owners_by_key(session), owners_by_token(session))
            self._last = last
        return last

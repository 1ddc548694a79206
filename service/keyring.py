"""The keys as a process that answers requests knows them."""

import time
from collections.abc import Mapping
from typing import Final

from service.store.database import Database
from service.store.keys import NOBODY, key_sha256, owners_by_key

_FRESH_SECONDS: Final = 2.0  # a key that is made or revoked is so everywhere after at most this long


class Keyring:
    """The keys, read from the database every few seconds. Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: tuple[float, Mapping[str, str | None]] | None = None  # since when, and what

    def owner_of(self, key: str | None) -> str | None:
        """Whose a key is; none where it is nobody's, or is missing and needed."""
        owners = self._owners()
        if not owners:
            return NOBODY
        return owners.get(key_sha256(key)) if key else None

    def _owners(self) -> Mapping[str, str | None]:
        if self._known and time.monotonic() - self._known[0] <= _FRESH_SECONDS:
            return self._known[1]
        asked = time.monotonic()
        with self._database.reading() as session:
            owners = owners_by_key(session)
        self._known = asked, owners
        return owners

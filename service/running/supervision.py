"""Supervising child processes: started in order, restarted when they die, and ended together."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_UMASK: Final = 0o077  # files that parts create are for this user alone
_LONG_LIFE_SECONDS: Final = 10.0  # a part that lived longer is restarted at once
_FIRST_DELAY_SECONDS: Final = 1.0  # otherwise after a pause that doubles each time
_LONGEST_DELAY_SECONDS: Final = 30.0
_LARGEST_LOG_BYTES: Final = 50 * 2**20  # then it is put aside and replaces the one put aside before


@dataclass
class Part:
    """A process that should run. log: file of its output. grace_seconds: between SIGTERM and SIGKILL."""

    name: str
    command: Sequence[str]
    folder: Path
    log: Path
    environment: Mapping[str, str]
    pass_fds: tuple[int, ...] = ()
    grace_seconds: float = 10.0
    process: subprocess.Popen[bytes] | None = None
    _started: float = 0.0
    _delay: float = 0.0
    _due: float | None = field(default=None)

    def start(self) -> None:
        """Start it in a session of its own: a terminal's Ctrl-C reaches only this process, which stops it in order."""
        with open(self.log, "ab", opener=private) as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                pass_fds=self.pass_fds,
                umask=_UMASK,
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=_end_with_parent(os.getpid()),  # noqa: PLW1509 - the supervisor has no threads
            )
        self._started, self._due = time.monotonic(), None

    @property
    def is_dead(self) -> bool:
        """Whether it was started and has ended."""
        return self.process is not None and self.process.poll() is not None

    def start_again_when_due(self) -> str | None:
        """Restart it if it is dead: at once after a long life, otherwise after a pause. Return a message, if any."""
        if not self.is_dead or self.process is None:
            return None
        moment = time.monotonic()
        if self._due is None:
            _kill_session(self.process)  # its own children, if any are left
            lived = moment - self._started
            longer = min(max(2 * self._delay, _FIRST_DELAY_SECONDS), _LONGEST_DELAY_SECONDS)
            self._delay = 0.0 if lived >= _LONG_LIFE_SECONDS else longer
            self._due = moment + self._delay
            when = f"in {self._delay:.0f} s" if self._delay else "now"
            return f"{self.name} ended ({_how(self.process.returncode)}); starting it again {when}. Its log: {self.log}"
        if moment >= self._due:
            self.start()
        return None

    def put_log_aside(self, largest_bytes: int = _LARGEST_LOG_BYTES) -> None:
        """Keep the log from filling the disk: beyond a size it is moved to ``….log.1`` and begins anew.

        The process keeps the same file open, so what it writes during the copy may be lost.
        """
        if not self.log.exists() or self.log.stat().st_size <= largest_bytes:
            return
        with suppress(OSError):  # no space for a copy: the old log is lost, and its space is free again
            shutil.copyfile(self.log, self.log.with_name(f"{self.log.name}.1"))
        os.truncate(self.log, 0)


def private(path: str, flags: int) -> int:
    """An `opener` for `open`: a file that it creates is for this user alone."""
    return os.open(path, flags, 0o600)


def stop(parts: Sequence[Part]) -> None:
    """Send SIGTERM to all at once, and SIGKILL to whole sessions that have not ended in time."""
    running = [(part, part.process) for part in parts if part.process is not None]
    for _, process in running:
        process.terminate()
    asked = time.monotonic()
    for part, process in running:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(asked + part.grace_seconds - time.monotonic(), 0.0))
        _kill_session(process)
        process.wait()


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # nothing of it is left
        os.killpg(process.pid, signal.SIGKILL)


def _how(status: int) -> str:
    return f"exit status {status}" if status >= 0 else signal.Signals(-status).name


def _end_with_parent(parent: int) -> Callable[[], None] | None:
    """Ask the kernel (Linux) to end the child when this process dies, even by SIGKILL."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent died before the request
            os._exit(1)

    return ask

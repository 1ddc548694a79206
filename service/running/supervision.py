"""Supervising child processes: started in order, started again when they die, and ended together."""

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
_UMASK: Final = 0o077  # what parts make is for this user alone
_LONG_LIFE_SECONDS: Final = 10.0  # a part that lived as long is started again at once
_FIRST_DELAY_SECONDS: Final = 1.0  # otherwise after a pause, twice as long each time
_LONGEST_DELAY_SECONDS: Final = 30.0
_LARGEST_LOG_BYTES: Final = 50 * 2**20  # then it is put aside, in place of the one before


@dataclass
class Part:
    """A process that should be there. log: where its output goes. grace_seconds: after SIGTERM, before it is killed."""

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
        """Start it in a session of its own, so that a terminal's Ctrl-C reaches only us and we stop it in order."""
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
        """Start it again if it is dead: at once after a long life, else after a pause; gives what is to be said."""
        if not self.is_dead or self.process is None:
            return None
        moment = time.monotonic()
        if self._due is None:
            _kill_session(self.process)  # its own children, if it left any
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
        """Keep the log from filling the disk: beyond a size it begins anew, and what was there becomes ``….log.1``.

        The process goes on writing to the same file, so what it writes while the file is copied may be lost.
        """
        if not self.log.exists() or self.log.stat().st_size <= largest_bytes:
            return
        with suppress(OSError):  # no space for a copy: what was there is lost, and space is free again
            shutil.copyfile(self.log, self.log.with_name(f"{self.log.name}.1"))
        os.truncate(self.log, 0)


def private(path: str, flags: int) -> int:
    """Open a file for this user alone, where it is made by that (an `opener` of `open`)."""
    return os.open(path, flags, 0o600)


def stop(parts: Sequence[Part]) -> None:
    """SIGTERM to all at once; SIGKILL to whole sessions that have not ended in time."""
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
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask

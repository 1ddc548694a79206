"""A soak: random faults from a seed while jobs run, for as long as asked; then the account of all jobs.

python -m tests.faults.soak --seed 1 --faults 100 --jobs 150 --database postgresql --broker valkey
"""

import argparse
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import redis
from rich.console import Console
from rich.table import Table

from occluscope.client import ApiError, Job, UnreachableError
from service.queue import Queue
from service.settings import Settings
from service.store.states import ENDED_UNIT
from service.store.tables import Unit
from tests.faults.ledger import INSTANT, SECONDS_LONG, SUCCEEDS, Totals
from tests.faults.site import Site, running_site
from tests.parts import wait_until, worker_names

WORKERS = worker_names(2)
OUTSTANDING = 6  # jobs kept in the service
PROBE_SECONDS = 90  # in which a job must run after any fault
KINDS: tuple[tuple[dict[str, Any], tuple[int, ...]], ...] = (
    (INSTANT, (1,)),
    (INSTANT, (2,)),
    (INSTANT, (1, 2, 3)),
    (SECONDS_LONG, (4,)),
    (SECONDS_LONG, (4, 5)),
)

PATIENT = {"OCCLUSCOPE_MAX_ATTEMPTS": "20"}  # a unit that is hit three times in a row is not to blame here

_console = Console()


@dataclass
class Recovery:
    """How often a fault was tried, and how long it took at most until a job ran and what was held went on."""

    times: int = 0
    seconds: list[float] = field(default_factory=list)


class Soak:
    """One service, disturbed."""

    def __init__(self, site: Site, seed: int) -> None:
        self.site = site
        self.recoveries: dict[str, Recovery] = {}
        self._random = random.Random(seed)  # noqa: S311 - to be repeated
        self._open: list[Job] = []
        self._submitted = 0
        self._faults = self._known_faults()
        for params, seeds in KINDS:
            site.ledger.know(params, *seeds)

    @property
    def submitted(self) -> int:
        """Jobs accepted so far, probes included."""
        return self._submitted

    def step(self) -> None:
        """Fill the queue, disturb the service once, and wait until it works again."""
        self._fill()
        name = self._random.choice(sorted(self._faults))
        time.sleep(self._random.uniform(0, 0.5))  # at any moment of whatever runs
        held = self._held()
        self._faults[name]()
        over = time.monotonic()
        self.site.parts.revive()
        probe = self._submit(INSTANT, (1,), priority="interactive")
        wait_until(partial(self._ended, probe), PROBE_SECONDS)
        wait_until(lambda: self._went_on(held), PROBE_SECONDS)
        recovery = self.recoveries.setdefault(name, Recovery())
        recovery.times += 1
        recovery.seconds.append(time.monotonic() - over)
        _console.print(f"{self.faults_tried:4} {name}: again after {recovery.seconds[-1]:.1f} s", highlight=False)

    @property
    def faults_tried(self) -> int:
        """So far."""
        return sum(recovery.times for recovery in self.recoveries.values())

    def finish(self) -> Totals:
        """Wait for every job, and take account."""
        for job in self._open:
            wait_until(partial(self._ended, job), 2 * PROBE_SECONDS)
        return self.site.ledger.audit()

    def _known_faults(self) -> dict[str, Callable[[], None]]:
        site = self.site
        faults: dict[str, Callable[[], None]] = {
            "worker killed": lambda: self._kill(self._random.choice(WORKERS)),
            "both workers killed": lambda: self._kill(*WORKERS),
            "worker asked to end": lambda: self._kill(self._random.choice(WORKERS), number=signal.SIGTERM),
            "worker stopped past its lease": self._stop_a_worker,
            "broker killed, comes back empty": self._restart_broker,
            "broker emptied": self._empty_broker,
            "broker connections cut": self._cut_broker,
            "broker connections swallowed": site.broker.swallow,
            "broker silent": lambda: self._silence(site.broker),
            "API killed": lambda: self._kill("api"),
            "API asked to end": lambda: self._kill("api", number=signal.SIGTERM),
            "reconciler killed": lambda: self._kill("reconciler"),
            "two reconcilers": self._second_reconciler,
            "messages doubled": self._double_messages,
            "job cancelled": self._cancel_one,
        }
        if site.database:
            faults |= {
                "database restarted": site.restart_postgres,
                "database connections cut": site.database.cut,
                "database silent": lambda: self._silence(site.database),
            }
        else:
            faults["database held by another process"] = self._hold_sqlite
        return faults

    def _kill(self, *names: str, number: int = signal.SIGKILL) -> None:
        self.site.parts.revive()
        for name in names:
            self.site.parts.kill(name, number)
        for name in names:
            self.site.parts.start(name)

    def _cut_broker(self) -> None:
        for _ in range(5):
            self.site.broker.cut()
            time.sleep(0.2)

    def _stop_a_worker(self) -> None:
        name = self._random.choice(WORKERS)
        self.site.parts.send(name, signal.SIGSTOP)
        time.sleep(3)  # leases last 2
        self.site.parts.send(name, signal.SIGCONT)

    def _restart_broker(self) -> None:
        self.site.parts.kill("broker")
        time.sleep(self._random.uniform(0, 2))
        self.site.parts.start("broker")

    def _empty_broker(self) -> None:
        with redis.Redis(port=self.site.parts.broker_port) as broker:
            broker.flushall()

    def _silence(self, proxy: Any) -> None:
        proxy.fall_silent()
        time.sleep(self._random.uniform(1, 4))
        proxy.recover()

    def _second_reconciler(self) -> None:
        self.site.parts.start_reconciler("reconciler-2")
        time.sleep(3)
        self.site.parts.kill("reconciler-2")

    def _double_messages(self) -> None:
        Queue(Settings(broker_url=self.site.parts.environment["OCCLUSCOPE_BROKER_URL"])).announce(10)

    def _hold_sqlite(self) -> None:
        path = self.site.parts.environment["OCCLUSCOPE_DATABASE_URL"].removeprefix("sqlite:///")
        with sqlite3.connect(path, isolation_level=None, timeout=30) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(3)
            other.execute("ROLLBACK")

    def _cancel_one(self) -> None:
        if self._open:
            job = self._random.choice(self._open)
            self.site.ledger.expect(job.id, (*SUCCEEDS, "cancelled"))
            try:
                self.site.client.cancel(job.id)
            except (ApiError, UnreachableError) as error:
                _console.print(f"     not cancelled: {error}", highlight=False)

    def _fill(self) -> None:
        self._open = [job for job in self._open if not self._ended(job)]
        while len(self._open) < OUTSTANDING:
            self._open.append(self._submit(*self._random.choice(KINDS)))

    def _submit(self, params: dict[str, Any], seeds: tuple[int, ...], priority: str = "batch") -> Job:
        """As a patient client does: again, with the same key, until it is answered."""
        key = f"soak-{self._submitted}"
        self._submitted += 1
        return self.site.retried(
            partial(self.site.ledger.submit, params, *seeds, key=key, priority=priority), PROBE_SECONDS
        )

    def _ended(self, job: Job) -> bool:
        self.site.parts.revive()
        try:
            return self.site.client.job(job.id).ended
        except (ApiError, UnreachableError):
            return False

    def _held(self) -> dict[str, int]:
        """Fencing numbers of the units that run."""
        return {unit.id: unit.fence for unit in self.site.ledger.units() if unit.state == "running"}

    def _went_on(self, held: dict[str, int]) -> bool:
        """Whether each of them was claimed anew, has ended, or is renewed by the worker that had it."""
        self.site.parts.revive()
        now = {unit.id: unit for unit in self.site.ledger.units()}
        alive = self.site.ledger.workers_heard_of(2)
        return all(_goes_on(now[unit_id], fence, alive) for unit_id, fence in held.items() if unit_id in now)


def _goes_on(unit: Unit, fence: int, alive: set[str]) -> bool:
    return unit.state in ENDED_UNIT or unit.fence > fence or unit.worker_id in alive


def main() -> int:
    """Run a soak and print what came of it; 1 when a job was lost, doubled or wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=100, help="at least so many faults")
    parser.add_argument("--jobs", type=int, default=150, help="at least so many jobs")
    parser.add_argument("--minutes", type=float, default=0, help="at least so long")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--broker", choices=["valkey", "redis"], default="valkey")
    asked = parser.parse_args()
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as folder,
        running_site(Path(folder), asked.database, asked.broker, len(WORKERS), PATIENT) as site,
    ):
        soak = Soak(site, asked.seed)
        while (
            soak.faults_tried < asked.faults
            or soak.submitted < asked.jobs
            or time.monotonic() - began < 60 * asked.minutes
        ):
            soak.step()
        totals = soak.finish()
        for finding in site.ledger.findings:
            _console.print(finding, highlight=False)
    _tell(asked, soak, totals, time.monotonic() - began)
    return 0 if totals.all_well else 1


def _tell(asked: argparse.Namespace, soak: Soak, totals: Totals, seconds: float) -> None:
    table = Table(
        "fault", "times", "median s", "longest s", title=f"{asked.database} + {asked.broker}, seed {asked.seed}"
    )
    for name, recovery in sorted(soak.recoveries.items()):
        ordered = sorted(recovery.seconds)
        table.add_row(name, str(recovery.times), f"{ordered[len(ordered) // 2]:.1f}", f"{ordered[-1]:.1f}")
    _console.print(table)
    longest = max((max(recovery.seconds), name) for name, recovery in soak.recoveries.items())
    _console.print(
        f"faults {soak.faults_tried}, jobs {totals}; longest recovery {longest[0]:.1f} s ({longest[1]}); "
        f"{seconds / 60:.0f} minutes",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

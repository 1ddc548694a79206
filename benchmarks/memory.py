"""What worker and API keep of the machine's memory over a thousand mixed jobs, beside the bounds that are stated.

    python -m benchmarks.memory [--jobs 1000] [--restarts 8] [--minutes 60]

Exit status 1 where a bound did not hold, a job did not succeed, or anything was done twice.
"""

import argparse
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from benchmarks.mixture import Pictures, request
from benchmarks.writing import write
from occluscope.client import Client, Job
from tests.parts import COMMAND, consumers, free_port, wait_until

RESULTS: Final = Path(__file__).parent / "results" / "memory.json"
MIB: Final = 2**20
GIB: Final = 2**30
MODELS_BYTES: Final = 512 * MIB
WORKER_BYTES: Final = 5 * GIB // 2  # between units; tighter than the default, so that memory is given back at times
API_BYTES: Final = 400 * MIB  # when it has nothing to do, as docs/operations.md states
API_PEAK_BYTES: Final = 3 * GIB // 2  # ever
WAITING: Final = 6  # jobs kept in the service
EVERY: Final = 50  # jobs between two looks
SETTLE_SECONDS: Final = 10.0  # a job has ended a moment before its worker has given memory back
JOB_SECONDS: Final = 300.0


@dataclass(frozen=True)
class Look:
    """A look between units. worker_bytes, api_bytes: resident; restarts: of workers so far."""

    jobs: int
    worker_bytes: int
    api_bytes: int
    restarts: int
    seconds: float


@dataclass
class Service:
    """A service as `occluscope up` starts and supervises it."""

    process: "subprocess.Popen[bytes]"
    url: str
    said: Path

    def resident_bytes(self, program: str) -> int:
        """Of all processes of the program (celery: the worker, gunicorn: the API), now; what they share counts once."""
        running = self._running(program)
        return sum(map(_resident_bytes if len(running) == 1 else _share_bytes, running))

    def peak_bytes(self, program: str) -> int:
        """Of all processes of the program that run now: the sum of the most that each ever had."""
        return sum(_peak_bytes(process) for process in self._running(program))

    def restarts(self) -> int:
        """How often a worker was started again."""
        return len(re.findall(r"^worker-\d+ ended", self.said.read_text(), re.MULTILINE))

    def deaths(self) -> list[str]:
        """What the supervisor said of parts that ended in any other way than a worker in order."""
        lines = self.said.read_text().splitlines()
        return [line for line in lines if re.match(r"\S+ ended", line) and "(exit status 0)" not in line]

    def _running(self, program: str) -> list[psutil.Process]:
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if program in process.cmdline():
                    found.append(process)
        return found


def _resident_bytes(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess):
        return int(process.memory_info().rss)
    return 0


def _share_bytes(process: psutil.Process) -> int:
    """Resident, a page that several processes have divided among them."""
    with suppress(psutil.NoSuchProcess):
        return int(process.memory_full_info().pss)
    return 0


def _peak_bytes(process: psutil.Process) -> int:
    with suppress(OSError):
        kept = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        return 1024 * int(kept[1]) if kept else 0
    return 0


@contextmanager
def served(worker_bytes: int) -> Iterator[Service]:
    """A supervised service of its own with these bounds, started by the command that an operator would type."""
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        port, said = free_port(), Path(folder) / "up.log"
        bounds = {
            "OCCLUSCOPE_MODEL_CACHE_BYTES": str(MODELS_BYTES),
            "OCCLUSCOPE_WORKER_MEMORY_BYTES": str(worker_bytes),
            "OCCLUSCOPE_WORKER_THREADS": "1",  # jobs are small, and whoever submits needs a core too
        }
        command = [str(COMMAND), "up", "--port", str(port), "--state-dir", folder]
        with said.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **bounds, "COLUMNS": "200"})
        service = Service(process, f"http://127.0.0.1:{port}", said)
        try:
            wait_until(lambda: consumers(service.url) or process.poll() is not None, 120)
            assert process.poll() is None, said.read_text()
            yield service
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@dataclass
class Soak:
    """Jobs of all kinds, a few at a time, their results looked at as they end."""

    service: Service
    client: Client
    worker_bytes: int
    looks: list[Look] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    worker_peak_bytes: int = 0
    api_peak_bytes: int = 0
    keep: Callable[["Soak", int], object] = lambda _soak, _jobs: None  # what there is, after each look
    _open: deque[Job] = field(default_factory=deque)
    _began: float = field(default_factory=time.monotonic)

    def run(self, jobs: int, every: int = EVERY, minutes: float = math.inf) -> int:
        """Submit so many jobs, or as many as time allows; look at the memory after every so many. Gives how many."""
        pictures = Pictures(self.client)
        self.look(0)
        for number in range(1, jobs + 1):
            self._open.append(self.client.submit(**request(number, pictures)))
            if len(self._open) >= WAITING:
                self._end_one()
            if number % every == 0 or number == jobs:
                while self._open:
                    self._end_one()
                self.look(number)
                if time.monotonic() - self._began > 60 * minutes:
                    return number
        return jobs

    def look(self, jobs: int) -> None:
        """Wait until every unit's end is dealt with, then write down what there is and say it."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._over() and time.monotonic() < deadline:
            time.sleep(0.2)
        self.faults += [f"after {jobs} jobs: {what}" for what in self._over()]
        worker, api = self.service.resident_bytes("celery"), self.service.resident_bytes("gunicorn")
        look = Look(jobs, worker, api, self.service.restarts(), round(time.monotonic() - self._began, 1))
        self.looks.append(look)
        print(
            f"{jobs:5} jobs  worker {worker / MIB:6.0f} MiB  API {api / MIB:5.0f} MiB  "
            f"restarts {look.restarts:3}  {look.seconds:6.0f} s",
            flush=True,
        )
        self.keep(self, jobs)

    def states(self) -> Counter[str]:
        """Of all jobs that the service has."""
        return Counter(job.state for job in self.client.jobs())

    def leases_run_out(self) -> int:
        """Units that waited for the end of somebody's lease."""
        text = httpx.get(f"{self.client.url}/metrics", timeout=30).text
        found = re.search(r"^occluscope_recoveries_total (\S+)$", text, re.MULTILINE)
        assert found is not None
        return int(float(found[1]))

    def _over(self) -> list[str]:
        worker, api = self.service.resident_bytes("celery"), self.service.resident_bytes("gunicorn")
        bounds = {"worker": (worker, self.worker_bytes), "API": (api, API_BYTES)}
        return [f"{part}: {has:,} bytes, bound {most:,}" for part, (has, most) in bounds.items() if has > most]

    def _end_one(self) -> None:
        """Wait for the oldest job and read its results as a person would: every number, some pictures."""
        job = self._open.popleft()
        deadline = time.monotonic() + JOB_SECONDS
        while not (job := self.client.job(job.id)).ended:
            assert time.monotonic() < deadline, f"{job.analysis} {job.id} is {job.state} after {JOB_SECONDS:.0f} s"
            time.sleep(0.1)
        if job.state != "succeeded":
            self.faults.append(f"{job.analysis} of {job.models} with {job.params}: {job.state}, {job.error}")
            return
        results = self.client.results(job.id)
        found = Counter((one.name, one.model, str(one.variant), one.image) for one in results.artifacts)
        self.faults += [f"job {job.id}: {times} × {what}" for what, times in found.items() if times > 1]
        for artifact in results.artifacts[:1]:
            for form in artifact.formats:
                self.client.download(artifact, form)
        drawn = next((one for one in results.artifacts if one.on_picture), None)
        if drawn:
            self.client.download(drawn, "png", overlay=1)
        self._note_peaks()

    def _note_peaks(self) -> None:
        self.worker_peak_bytes = max(self.worker_peak_bytes, self.service.peak_bytes("celery"))
        self.api_peak_bytes = max(self.api_peak_bytes, self.service.peak_bytes("gunicorn"))


def soak(jobs: int, minutes: float) -> dict[str, Any]:
    """Mixed jobs under a tight bound."""
    with served(WORKER_BYTES) as service, Client(service.url, timeout_seconds=120) as client:
        soak = Soak(service, client, WORKER_BYTES)
        soak.keep = partial(_keep, "soak")
        reached = soak.run(jobs, minutes=minutes)
        return _account("soak", f"{reached:,} mixed jobs", soak, reached)


def restarts(jobs: int) -> dict[str, Any]:
    """Under a bound that no worker can keep: each ends after each unit, and the supervisor starts the next."""
    with served(1) as service, Client(service.url, timeout_seconds=120) as client:
        soak = Soak(service, client, sys.maxsize)
        soak.run(jobs, every=2)
        ended = [client.job(job.id) for job in client.jobs()]
        units = sum(len(job.models) * len(job.images) for job in ended)  # at least
        try:
            wait_until(lambda: service.restarts() >= units, 60)  # the last worker ends after its job
        except AssertionError:
            soak.faults.append(f"{service.restarts()} restarts for {units} units or more")
        return _account("restarts", f"{jobs} jobs, a new worker for each unit", soak, jobs)


def _account(measure: str, what: str, soak: Soak, jobs: int) -> dict[str, Any]:
    row = _keep(measure, soak, jobs, what)
    print(json.dumps({name: value for name, value in row.items() if name != "looks"}, indent=1), flush=True)
    return row


def _keep(measure: str, soak: Soak, jobs: int, what: str | None = None) -> dict[str, Any]:
    """Write what there is so far, so that a run that is cut short leaves what it reached."""
    states, run_out = soak.states(), soak.leases_run_out()
    faults = soak.faults + soak.service.deaths()
    if states != Counter(succeeded=jobs):
        faults.append(f"{jobs} jobs by state: {dict(states)}")
    if run_out:
        faults.append(f"{run_out} units waited for a lease to run out")
    if soak.api_peak_bytes > API_PEAK_BYTES:
        faults.append(f"API: {soak.api_peak_bytes:,} bytes at most, bound {API_PEAK_BYTES:,}")
    row = {
        "measure": measure,
        "what": what or f"{jobs:,} mixed jobs",
        "jobs": jobs,
        "states": dict(states),
        "restarts": soak.service.restarts(),
        "leases_run_out": run_out,
        "seconds": soak.looks[-1].seconds,
        "worker_bound_bytes": soak.worker_bytes if soak.worker_bytes < sys.maxsize else None,
        "worker_between_units_bytes": max(look.worker_bytes for look in soak.looks),
        "worker_peak_bytes": soak.worker_peak_bytes,
        "api_bound_bytes": API_BYTES,
        "api_idle_bytes": max(look.api_bytes for look in soak.looks),
        "api_peak_bound_bytes": API_PEAK_BYTES,
        "api_peak_bytes": soak.api_peak_bytes,
        "faults": faults,
        "looks": [asdict(look) for look in soak.looks],
    }
    kept = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    write(RESULTS, [*(other for other in kept if other["measure"] != measure), row])
    return row


def main() -> int:
    """Run what was asked for; the row of what was not stays as it was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000, help="mixed jobs; 0 for none")
    parser.add_argument("--restarts", type=int, default=8, help="jobs under a bound that no worker keeps; 0 for none")
    parser.add_argument("--minutes", type=float, default=math.inf, help="no new mixed jobs after so long")
    asked = parser.parse_args()
    made = [soak(asked.jobs, asked.minutes)] if asked.jobs else []
    made += [restarts(asked.restarts)] if asked.restarts else []
    return 1 if any(row["faults"] for row in made) else 0


if __name__ == "__main__":
    sys.exit(main())

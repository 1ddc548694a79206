"""What the service costs: until a job begins, beside the library's call, under load; and what a second worker gives.

python -m benchmarks.service [start] [cancel] [library] [load] [workers]
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from PIL import Image
from skimage import data as skimage_data

from benchmarks.writing import write
from occluscope import analyses
from occluscope.analyses.contract import ImageRef
from occluscope.analyses.gathering import Gathered
from occluscope.client import Client, Job
from occluscope.models import card
from occluscope.models.loading import LoadedModel, load
from occluscope.pictures import decode
from service.running.stack import running_stack
from tests.conftest import encode, random_picture
from tests.parts import consumers, wait_until

RESULTS: Final = Path(__file__).parent / "results" / "service.json"
MODEL: Final = "efficientnet_lite0"
PICTURE: Final = "coffee"
DEMO: Final[dict[str, Any]] = {"window": 32, "stride": 16}  # 169 windows
ONE_WINDOW: Final[dict[str, Any]] = {"window": 224, "stride": 224, "insertion_deletion": False}
ROUNDS: Final = 15


@contextmanager
def served(workers: int = 1, **settings: Any) -> Iterator[Client]:
    """A service of its own, as `occluscope up` starts it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_stack(Path(folder), workers=workers, **settings) as stack,
        Client(stack.url) as client,
    ):
        wait_until(lambda: consumers(stack.url) == workers, 60)
        yield client


def coffee() -> bytes:
    """The demo's picture."""
    return encode(Image.fromarray(getattr(skimage_data, PICTURE)()))


def start() -> dict[str, Any]:
    """From POST to the worker's start, on an idle service."""
    with served() as client:
        image = client.upload(coffee()).id
        client.wait(client.submit("occlusion", MODEL, [image], ONE_WINDOW).id)
        seconds = []
        for _ in range(60):
            began = time.time()
            job = client.wait(client.submit("occlusion", MODEL, [image], ONE_WINDOW).id)
            assert job.started_at is not None
            seconds.append(job.started_at.timestamp() - began)
            time.sleep(0.05)
    p50, p95 = np.percentile(seconds, [50, 95])
    return {"what": "POST to start, idle", "jobs": len(seconds), "p50_ms": _ms(p50), "p95_ms": _ms(p95)}


def cancel() -> dict[str, Any]:
    """From the cancel of a job under way until its only worker has begun another's; promised within two seconds."""
    with served() as client:
        image = client.upload(coffee()).id
        client.wait(client.submit("occlusion", MODEL, [image], ONE_WINDOW).id)
        seconds = []
        for method in ("exact", "naive", "adaptive") * 7:
            long = client.submit("occlusion", MODEL, [image], {"window": 16, "stride": 2, "method": method})
            _under_way(client, long)
            began = time.time()
            client.cancel(long.id)
            job = client.wait(client.submit("occlusion", MODEL, [image], ONE_WINDOW, priority="interactive").id)
            assert job.started_at is not None
            seconds.append(job.started_at.timestamp() - began)
    p50, p95 = np.percentile(seconds, [50, 95])
    return {
        "what": "cancel of a job under way to the next job's start",
        "jobs": len(seconds), "p50_ms": _ms(p50), "p95_ms": _ms(p95), "most_ms": _ms(max(seconds)),
    }  # fmt: skip


def _under_way(client: Client, job: Job) -> None:
    while not client.job(job.id).progress.done:
        time.sleep(0.02)


def library() -> dict[str, Any]:
    """A demo job through the service, from POST to its end, beside the same call of the library; in turn."""
    picture, model = coffee(), load(card(MODEL))
    with served() as client:
        image = client.upload(picture).id
        for _ in range(2):
            _call(model, picture)
            _whole_job(client, image)
        pairs = [(_call(model, picture), _whole_job(client, image)) for _ in range(ROUNDS)]
    ratio = median(through / alone for alone, through in pairs)
    alone, through = (median(times) for times in zip(*pairs, strict=True))
    return {
        "what": "demo job, 169 windows, × the library's call",
        "library_ms": _ms(alone), "service_ms": _ms(through), "ratio": round(ratio, 3),
    }  # fmt: skip


def _call(model: LoadedModel, picture: bytes) -> float:
    """Seconds of the library's call: from the file's bytes to maps and numbers."""
    began = time.perf_counter()
    params = analyses.spec("occlusion").parse(DEMO)
    prepared = model.card.preparation.prepare(decode(picture))
    (unit,) = analyses.spec("occlusion").plan(params, model.card, [ImageRef("a", 1, 1)], {})
    analyses.compute("occlusion")(model, [prepared], params, unit, Gathered())
    return time.perf_counter() - began


def _whole_job(client: Client, image: str) -> float:
    """Seconds from POST to the job's end."""
    began = time.time()
    job = _ended(client, client.submit("occlusion", MODEL, [image], DEMO))
    assert job.finished_at is not None
    return job.finished_at.timestamp() - began


def _ended(client: Client, job: Job) -> Job:
    """Ask seldom: who asks takes from a worker on the same two cores."""
    while not job.ended:
        time.sleep(0.25)
        job = client.job(job.id)
    assert job.state == "succeeded", job.error
    return job


def under_load() -> dict[str, Any]:
    """200 polls and 50 submissions a second for a minute, from another process."""
    with served() as client:
        image = client.upload(coffee()).id
        client.wait(client.submit("occlusion", MODEL, [image], ONE_WINDOW).id)
        command = [sys.executable, "-m", "benchmarks.load", client.url, image]
        answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {"what": "200 polls and 50 submissions a second, a minute", **answer}


def two_workers() -> list[dict[str, Any]]:
    """Throughput of two workers with one thread each, against one."""
    rows = []
    for what, params, pictures in (
        ("16 pictures of 169 windows", {"window": 32, "stride": 16, "insertion_deletion": False}, 16),
        ("1 picture of 9,409 windows", {"window": 32, "stride": 2, "insertion_deletion": False}, 1),
    ):
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for workers in (1, 2, 1, 2, 1, 2):
            with served(workers, worker_threads=1) as client:
                images = [client.upload(encode(random_picture(number))).id for number in range(pictures)]
                warm = [client.submit("occlusion", MODEL, [images[0]], DEMO).id for _ in range(2 * workers)]
                for job_id in warm:
                    client.wait(job_id)
                began = time.time()
                job = _ended(client, client.submit("occlusion", MODEL, images, params))
                assert job.finished_at is not None
                seconds[workers].append(job.finished_at.timestamp() - began)
        one, two = median(seconds[1]), median(seconds[2])
        rows.append(
            {
                "what": f"two workers, {what}",
                "one_s": round(one, 2),
                "two_s": round(two, 2),
                "times": round(one / two, 2),
            }
        )
    return rows


def _ms(seconds: float) -> float:
    return round(1000 * float(seconds), 1)


MEASURES: Final[dict[str, Callable[[], Any]]] = {
    "start": start,
    "cancel": cancel,
    "library": library,
    "load": under_load,
    "workers": two_workers,
}


def main() -> None:
    """Run what was asked for, all by default; rows of the rest stay as they were."""
    asked = sys.argv[1:] or list(MEASURES)
    rows = {row["measure"]: row for row in json.loads(RESULTS.read_text())["rows"]} if RESULTS.exists() else {}
    for name in asked:
        measured = MEASURES[name]()
        for number, row in enumerate(measured if isinstance(measured, list) else [measured]):
            measure = f"{name}-{number}" if isinstance(measured, list) else name
            rows[measure] = {"measure": measure, **row}
            print(json.dumps(rows[measure]))
        write(RESULTS, list(rows.values()))


if __name__ == "__main__":
    main()

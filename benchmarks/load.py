"""A real HTTP load from a process of its own: so many requests a second, at fixed moments, whatever the answers take.

    python -m benchmarks.load URL IMAGE --polls 200 --submits 50 --seconds 60

Prints JSON: latencies from the moment each request was due to the last byte of its answer, and errors.
"""

import argparse
import http.client
import json
import random
import sys
import threading
import time
from queue import SimpleQueue
from urllib.parse import urlsplit

import numpy as np

_THREADS = 48  # connections
_JOB = {
    "analysis": "occlusion",
    "model": "efficientnet_lite0",
    "params": {"window": 224, "stride": 224, "insertion_deletion": False},
}

Request = tuple[float, str]  # when it is due, and its kind


def main() -> None:
    """Make the load and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("image")
    parser.add_argument("--polls", type=float, default=200.0)
    parser.add_argument("--submits", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    asked = parser.parse_args()
    due: list[Request] = [(n / asked.polls, "poll") for n in range(int(asked.polls * asked.seconds))]
    due += [(n / asked.submits, "submit") for n in range(int(asked.submits * asked.seconds))]
    load = Load(asked.url, asked.image)
    load.run(sorted(due))
    json.dump({kind: load.summary(kind) for kind in ("poll", "submit")} | {"errors": load.errors[:5]}, sys.stdout)


class Load:
    """Threads that take requests when they are due; each keeps its connection."""

    def __init__(self, url: str, image: str) -> None:
        self._host = urlsplit(url).netloc
        self._body = json.dumps({**_JOB, "images": [image]})
        self._jobs: list[str] = []
        self._seconds: dict[str, list[float]] = {"poll": [], "submit": []}
        self.errors: list[str] = []

    def run(self, due: list[Request]) -> None:
        """Make these requests."""
        self._submit(http.client.HTTPConnection(self._host, timeout=30))  # something to poll
        waiting: SimpleQueue[tuple[float, str] | None] = SimpleQueue()
        threads = [threading.Thread(target=self._serve, args=(waiting,)) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        began = time.perf_counter()
        for moment, kind in due:
            time.sleep(max(began + moment - time.perf_counter(), 0.0))
            waiting.put((began + moment, kind))
        for _ in threads:
            waiting.put(None)
        for thread in threads:
            thread.join()

    def summary(self, kind: str) -> dict[str, float]:
        """Milliseconds."""
        p50, p99 = np.percentile(self._seconds[kind], [50, 99])
        return {"requests": len(self._seconds[kind]), "p50_ms": round(1000 * p50, 1), "p99_ms": round(1000 * p99, 1)}

    def _serve(self, waiting: "SimpleQueue[tuple[float, str] | None]") -> None:
        connection = http.client.HTTPConnection(self._host, timeout=30)
        while request := waiting.get():
            moment, kind = request
            try:
                (self._submit if kind == "submit" else self._poll)(connection)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.errors.append(f"{kind}: {error!r}")
                connection.close()
            self._seconds[kind].append(time.perf_counter() - moment)

    def _submit(self, connection: http.client.HTTPConnection) -> None:
        connection.request("POST", "/v1/jobs", self._body, {"Content-Type": "application/json"})
        self._jobs.append(self._answer(connection, 202)["id"])

    def _poll(self, connection: http.client.HTTPConnection) -> None:
        connection.request("GET", f"/v1/jobs/{random.choice(self._jobs)}")  # noqa: S311
        self._answer(connection, 200)

    def _answer(self, connection: http.client.HTTPConnection, status: int) -> dict[str, str]:
        response = connection.getresponse()
        content = response.read()
        if response.status != status:
            raise ValueError(f"{response.status}: {content[:200]!r}")
        answer: dict[str, str] = json.loads(content)
        return answer


if __name__ == "__main__":
    main()

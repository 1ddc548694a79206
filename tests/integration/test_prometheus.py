"""A real Prometheus scrapes the service: every question of the dashboard and every alerting rule is answered."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest

from occluscope.client import Client
from service.running.stack import Stack
from tests.conftest import encode, random_picture
from tests.parts import free_port, wait_until

PROMETHEUS = shutil.which("prometheus")
MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana-dashboard.json").read_text())
QUESTIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
MAY_BE_EMPTY = {"occluscope_worker_gpu_memory_bytes", "60 * sum(rate(occluscope_unit_failures_total[5m]))"}

pytestmark = pytest.mark.skipif(not PROMETHEUS, reason="there is no prometheus (Debian: apt-get install prometheus)")


@pytest.fixture(scope="module")
def prometheus(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Asks the API every half second."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    target = stack.url.removeprefix("http://")
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"},
        "rule_files": [str(MONITORING / "alerts.yml")],
        "scrape_configs": [{"job_name": "occluscope", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    files = (f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}")
    command = [str(PROMETHEUS), *files, f"--web.listen-address=127.0.0.1:{port}"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1") as client:
            wait_until(lambda: values(client, 'up{job="occluscope"} == 1'))
            yield client
    finally:
        process.terminate()
        process.wait(30)


def values(prometheus: httpx.Client, question: str) -> list[Any]:
    """What Prometheus answers, none while it is not up."""
    try:
        response = prometheus.get("/query", params={"query": question})
    except httpx.HTTPError:
        return []
    if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:  # it reads its storage first
        return []
    answer = response.json()
    assert answer["status"] == "success", answer
    return list(answer["data"]["result"])


def units_done(prometheus: httpx.Client) -> float:
    """Units that succeeded, as far as Prometheus knows."""
    return sum(float(value["value"][1]) for value in values(prometheus, "sum(occluscope_unit_seconds_count)"))


def run_job(prometheus: httpx.Client, client: Client, seed: int) -> None:
    """A short job, until Prometheus knows of it."""
    before = units_done(prometheus)
    image = client.upload(encode(random_picture(seed))).id
    client.wait(client.submit("occlusion", "efficientnet_lite0", [image], {"window": 112, "stride": 56}).id)
    wait_until(lambda: units_done(prometheus) > before)


def test_the_dashboard_shows_what_happens(prometheus: httpx.Client, client: Client) -> None:
    """Two jobs, one after the other: the first makes the series, which the second lets grow."""
    for seed in (80, 81):
        run_job(prometheus, client, seed)
    for question in QUESTIONS:
        if question not in MAY_BE_EMPTY:
            wait_until(partial(values, prometheus, question))
    speeds = values(prometheus, next(question for question in QUESTIONS if "occluscope_steps_total" in question))
    (speed,) = (float(one["value"][1]) for one in speeds if one["metric"] == {"model": "efficientnet_lite0"})
    assert speed > 0


def test_every_alert_is_understood_and_none_fires(prometheus: httpx.Client) -> None:
    def rules() -> list[Any]:
        groups = prometheus.get("/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    wait_until(lambda: rules() and {rule["health"] for rule in rules()} == {"ok"})
    assert len(rules()) == (MONITORING / "alerts.yml").read_text().count("- alert:")
    assert {rule["name"] for rule in rules() if rule["state"] == "firing"} <= {"OccluscopeUnitsFail"}

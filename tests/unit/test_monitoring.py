"""The dashboard, the alerts and the manual name what there is."""

import json
import logging
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from sqlalchemy import select

from service.app import create_app
from service.settings import Settings
from service.store.database import Database
from service.store.leases import claim_unit
from service.store.migrate import migrate
from service.store.tables import Unit
from service.store.units import commit_unit, fail_unit
from service.store.workers import Pulse, note_worker
from tests.unit.store.conftest import SubmitUnits, outcome, submit

__all__ = ["submit"]  # the fixture

DOCS = Path(__file__).parents[2] / "docs"
MONITORING = DOCS / "monitoring"
ALERTS = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
ALERT_TRIALS = yaml.safe_load((MONITORING / "alerts_test.yml").read_text())["tests"]
DASHBOARD = json.loads((MONITORING / "grafana-dashboard.json").read_text())
MANUAL = (DOCS / "operations.md").read_text()


@pytest.fixture
def metrics(database: Database, submit: SubmitUnits) -> str:
    """What Prometheus is given by a service that has seen something of everything."""
    _, units = submit(4)
    for unit_id, number in zip(units, range(3), strict=False):
        with database.writing() as session:
            claim = claim_unit(session, unit_id, "w", 30)
            assert claim is not None
        with database.writing() as session:
            if number == 0:
                commit_unit(session, claim, outcome())
            elif number == 1:
                fail_unit(session, claim, "reason")
    submit(1)
    job_id, (last,) = submit(1, later=True)
    with database.writing() as session:
        claim = claim_unit(session, last, "w", 30)
        assert claim is not None
        commit_unit(session, claim, outcome())
        of_later_stage = select(Unit.id).where(Unit.job_id == job_id, Unit.state == "queued")
        claim = claim_unit(session, session.scalars(of_later_stage).one(), "w", 30)
        assert claim is not None
        commit_unit(session, claim, outcome(1))
        note_worker(session, Pulse("w", "NVIDIA H200", memory_bytes=5, gpu_memory_bytes=7))
        note_worker(session, Pulse("v", "CPU", consuming=False, memory_bytes=3))
    url = database.engine.url.render_as_string(hide_password=False)
    migrate(database)
    handlers = logging.getLogger().handlers
    client = create_app(Settings(database_url=url, broker_url="redis://127.0.0.1:9/0")).test_client()
    logging.getLogger().handlers = handlers  # pytest's own
    client.get("/v1/jobs")
    return client.get("/metrics").get_data(as_text=True)


def named(text: str) -> set[str]:
    return set(re.findall(r"occluscope_\w+", text))


def test_what_dashboard_and_alerts_ask_for_is_there(metrics: str) -> None:
    asked = named(json.dumps([target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]))
    asked |= named(json.dumps([rule["expr"] for rule in ALERTS]))
    there = {line.split("{")[0].split(" ")[0] for line in metrics.splitlines() if not line.startswith("#")}
    assert len(asked) > 12
    assert asked <= there


@pytest.mark.parametrize(
    "line",
    [
        'occluscope_units{state="queued"} 2.0',
        'occluscope_units{state="running"} 1.0',
        'occluscope_jobs{state="succeeded"} 1.0',
        'occluscope_queue_units{priority="batch"} 2.0',
        'occluscope_queue_units{priority="interactive"} 0.0',
        "occluscope_workers 1.0",
        'occluscope_worker_gpu_memory_bytes{device="NVIDIA H200",worker="w"} 7.0',
        'occluscope_unit_attempts_total{analysis="occlusion",model="efficientnet_lite0"} 3.0',
        'occluscope_unit_failures_total{analysis="occlusion",model="efficientnet_lite0"} 1.0',
        'occluscope_steps_total{analysis="invariance",model="efficientnet_lite0"} 101.0',
        'occluscope_unit_seconds_count{analysis="occlusion",model="efficientnet_lite0"} 1.0',
        'occluscope_job_seconds_count{analysis="invariance",state="succeeded"} 1.0',
        "occluscope_recoveries_total 0.0",
    ],
)
def test_what_is_counted_is_right(metrics: str, line: str) -> None:
    assert line in metrics.splitlines()


def test_each_alert_is_tried() -> None:
    """That it fires."""
    expected = [expected for trial in ALERT_TRIALS for expected in trial["alert_rule_test"] if expected["exp_alerts"]]
    assert {each["alertname"] for each in expected} == {rule["alert"] for rule in ALERTS}


@pytest.mark.skipif(not shutil.which("promtool"), reason="there is no promtool (Debian: apt-get install prometheus)")
def test_alerts_fire_when_they_should() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", "alerts_test.yml"], cwd=MONITORING, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_manual_says_what_to_do_for_each_alert() -> None:
    chapters = set(re.findall(r"^### (Occluscope\w+)$", MANUAL, re.MULTILINE))
    assert {rule["alert"] for rule in ALERTS} == chapters


def test_the_manual_names_tests_and_settings_that_exist() -> None:
    tests = Path(__file__).parents[1]
    for name in re.findall(r"::(test_\w+)", MANUAL):
        assert any(f"def {name}(" in path.read_text() for path in tests.rglob("test_*.py")), name
    for setting in re.findall(r"^\| `([A-Z_]+)`", MANUAL, re.MULTILINE):
        assert setting.lower() in Settings.model_fields

"""Clocks that jump: an hour ahead, an hour back, while jobs run and workers die."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.ledger import INSTANT, SECONDS_LONG
from tests.faults.site import Site, running_site
from tests.parts import wait_until

HOUR = 3600


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that says how far the parts' clocks are off, seconds."""
    path = tmp_path_factory.mktemp("clock") / "offset"
    path.write_text("0")
    return path


@pytest.fixture(scope="module")
def site(clock: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """On SQLite: there the clock is the parts' own. (Debian's libfaketime makes Python's sleep fail.)"""
    library, source = clock.with_name("clock.so"), Path(__file__).with_name("clock.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(clock)}
    with running_site(tmp_path_factory.mktemp("clock-site"), workers=2, environment=environment) as running:
        running.ledger.know(SECONDS_LONG, 0)
        running.ledger.know(INSTANT, 1)
        yield running


@pytest.mark.parametrize("seconds", [+HOUR, -HOUR])
def test_a_clock_that_jumps_while_a_job_runs_disturbs_it_not(site: Site, clock: Path, seconds: int) -> None:
    clock.write_text("0")
    job = site.ledger.submit(SECONDS_LONG, 0)
    site.wait_until_under_way(job)
    clock.write_text(str(seconds))
    assert site.wait(job).state == "succeeded"
    assert site.unit(job).fence == 1  # its worker was given time to renew its lease
    assert site.wait(site.ledger.submit(INSTANT, 1)).state == "succeeded"
    totals = site.ledger.audit()
    assert totals.all_well, str(totals)


def test_a_worker_that_dies_when_the_clock_is_set_back_is_replaced_all_the_same(site: Site, clock: Path) -> None:
    """Its lease seems to last for another hour."""
    clock.write_text(str(HOUR))
    job = site.ledger.submit(SECONDS_LONG, 0)
    site.wait_until_under_way(job)
    for name in ("worker", "worker-2"):
        site.parts.kill(name)
    clock.write_text("0")
    for name in ("worker", "worker-2"):
        site.parts.start(name)
    wait_until(lambda: site.unit(job).fence == 2, 30)
    assert site.wait(job).state == "succeeded"
    totals = site.ledger.audit()
    assert totals.all_well, str(totals)

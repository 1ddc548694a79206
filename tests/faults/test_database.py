"""A database that restarts, cannot be reached, is held by another process, or has no space left."""

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.conftest import encode, random_picture
from tests.faults.ledger import INSTANT, SECONDS_LONG
from tests.faults.site import Site, running_site
from tests.parts import wait_until

on_postgresql = pytest.mark.parametrize("running", ["postgresql-valkey"], indirect=True, scope="session")
on_sqlite = pytest.mark.parametrize("running", ["sqlite-valkey"], indirect=True, scope="session")


@on_postgresql
def test_a_database_that_restarts_loses_nothing(site: Site) -> None:
    jobs = [site.ledger.submit(SECONDS_LONG, 0), *(site.ledger.submit(INSTANT, 1) for _ in range(3))]
    site.wait_until_under_way(jobs[0])
    site.restart_postgres()
    assert {site.retried(partial(site.wait, job)).state for job in jobs} == {"succeeded"}


@on_postgresql
@pytest.mark.parametrize("delay_seconds", [0.0, 0.01, 0.02, 0.03, 0.05, 0.1])
def test_a_database_that_goes_at_any_moment_of_a_job_fails_none(site: Site, delay_seconds: float) -> None:
    """While it is claimed, its picture read, its results written: nobody may take that for the job's own error."""
    assert site.database is not None
    jobs = [site.ledger.submit(INSTANT, 1) for _ in range(3)]
    time.sleep(delay_seconds)  # the moment itself is what is tried
    site.database.refuse()
    time.sleep(0.5)
    site.database.recover()
    assert {site.retried(partial(site.wait, job)).state for job in jobs} == {"succeeded"}


@on_postgresql
def test_a_database_that_cannot_be_reached_for_a_minute_is_waited_out(site: Site) -> None:
    """Thirty leases long: whoever was at work is given time to say so, and commits what it has."""
    assert site.database is not None
    job = site.ledger.submit(SECONDS_LONG, 0)
    site.wait_until_under_way(job)
    site.database.refuse()
    gone = time.monotonic()
    answer = httpx.get(f"{site.parts.url}/v1/jobs/{job.id}", timeout=60)
    assert answer.status_code == 503
    assert answer.json()["detail"] == "The database is out of reach; try again."
    assert answer.headers["Retry-After"]
    assert time.monotonic() - gone < 30  # it does not wait for the database's return
    assert httpx.get(f"{site.parts.url}/healthz").is_success
    time.sleep(max(60 - (time.monotonic() - gone), 0))  # how long it is gone is what is tried
    site.database.recover()
    job = site.retried(lambda: site.wait(job, 120))
    assert job.state == "succeeded"


@on_sqlite
def test_a_database_that_another_process_holds_is_waited_for(site: Site) -> None:
    """As a backup might: nobody can write for longer than a lease."""
    job = site.ledger.submit(SECONDS_LONG, 0)
    site.wait_until_under_way(job)
    path = site.parts.environment["OCCLUSCOPE_DATABASE_URL"].removeprefix("sqlite:///")
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        time.sleep(6)  # three leases
        other.execute("ROLLBACK")
    assert site.wait(job).state == "succeeded"
    assert site.unit(job).fence <= 2


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own, which can be filled."""
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    folder.mkdir()
    mount = [*root, "mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=777", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run([*root, "umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_said_and_nothing_is_torn(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 24) as disk, running_site(disk, workers=1) as site:
        site.ledger.know(SECONDS_LONG, 0)
        job = site.ledger.submit(SECONDS_LONG, 0)
        site.wait_until_under_way(job)
        filler = disk / "filler"
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(bytes(65536))
                    file.flush()
            except OSError:
                assert shutil.disk_usage(disk).free < 65536
        picture = encode(random_picture(77, (900, 700)))
        answer = httpx.post(f"{site.parts.url}/v1/images", files={"file": picture}, timeout=60)
        assert answer.status_code == 507
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"].startswith("No space is left to store this; nothing was stored.")
        assert httpx.get(f"{site.parts.url}/v1/jobs").is_success  # what is there can be read
        time.sleep(3)  # longer than a lease, in which nothing can be written
        assert not site.client.job(job.id).ended
        filler.unlink()
        wait_until(lambda: site.client.job(job.id).ended, 60)
        assert httpx.post(f"{site.parts.url}/v1/images", files={"file": picture}, timeout=60).status_code == 201
        with sqlite3.connect(disk / "store.db") as store:
            assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert store.execute("PRAGMA foreign_key_check").fetchall() == []
        totals = site.ledger.audit()
        assert totals.all_well, str(totals)

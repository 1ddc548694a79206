"""`occluscope up` and `make demo`'s stack: everything starts, and everything ends."""

import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import psutil
import pytest

from occluscope.client import Client
from service.running.stack import Stack, StackError, running_stack
from tests.conftest import encode, random_picture
from tests.parts import COMMAND, is_ready, wait_until

LEASE_SECONDS = 200  # far longer than anything here takes on a machine that is busy with something else


def processes_of(state_dir: Path) -> list[psutil.Process]:
    """Every process that the service on this state folder started, found by its working folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == state_dir.resolve():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def hear_ctrl_c() -> None:
    """In a new process: whoever starts the tests in the background has their children ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def started(state_dir: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`occluscope up`, once it says where it is; gives its process and its address, and leaves nothing running."""
    command = [str(COMMAND), "up", "--port", "0", "--state-dir", str(state_dir)]
    environment = {**os.environ, "OCCLUSCOPE_LEASE_SECONDS": str(LEASE_SECONDS)}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,  # noqa: PLW1509
        env=environment,
    )
    try:
        assert process.stdout is not None
        line = ""
        while "http://" not in line:
            line = process.stdout.readline()
            assert line, "ended before it was up"
        match = re.search(r"http://[\d.:]+", line)
        assert match is not None
        yield process, match[0].rstrip(".")
    finally:
        process.terminate()
        process.wait(30)


def test_ctrl_c_ends_everything_and_a_later_start_finds_the_jobs(tmp_path: Path) -> None:
    with started(tmp_path) as (process, url):
        assert is_ready(url)
        assert url.startswith("http://127.0.0.1:")
        assert len(processes_of(tmp_path)) >= 5  # broker, gunicorn's two, reconciler, worker
        with Client(url) as client:
            image = client.upload(encode(random_picture(1)))
            done = client.wait(client.submit("occlusion", "efficientnet_lite0", [image.id], {"window": 224}).id)
            waiting = client.submit("occlusion", "efficientnet_lite0", [image.id], {"window": 32, "stride": 6})
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert processes_of(tmp_path) == []

    with started(tmp_path) as (process, url):
        with Client(url) as client:
            assert client.job(done.id).state == "succeeded"
            assert client.wait(waiting.id).state == "succeeded"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert processes_of(tmp_path) == []


def test_killed_it_leaves_no_process_behind(tmp_path: Path) -> None:
    with started(tmp_path) as (process, _):
        process.kill()
        process.wait()
        wait_until(lambda: not processes_of(tmp_path))


@pytest.mark.parametrize("moment_seconds", [0.3, 1.5, 2.5, 4.0])
def test_ctrl_c_while_starting_leaves_no_process_behind(tmp_path: Path, moment_seconds: float) -> None:
    """The moments fall before, between and after the parts' starts."""
    process = subprocess.Popen(
        [COMMAND, "up", "--port", "0", "--state-dir", str(tmp_path)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=hear_ctrl_c,  # noqa: PLW1509
    )  # fmt: skip
    time.sleep(moment_seconds)  # the moment itself is what is tried
    process.send_signal(signal.SIGINT)
    process.wait(30)
    wait_until(lambda: not processes_of(tmp_path))


def test_two_services_do_not_share_a_state_folder(tmp_path: Path) -> None:
    with running_stack(tmp_path), pytest.raises(StackError, match="another service runs on"), running_stack(tmp_path):
        pass


def test_a_port_in_use_is_said_in_one_line(tmp_path: Path, stack: Stack) -> None:
    port = stack.url.rpartition(":")[2]
    done = subprocess.run(
        [COMMAND, "up", "--port", port, "--state-dir", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"port {port} is in use" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("part", ["broker", "api", "reconciler", "worker-1"])
def test_a_part_that_dies_is_started_again_and_up_says_so(tmp_path: Path, part: str) -> None:
    """And a job that was submitted before goes on, without waiting for its lease to run out."""
    with started(tmp_path) as (process, url), Client(url) as client:
        image = client.upload(encode(random_picture(1)))
        params = {"window": 32, "stride": 12, "method": "naive", "insertion_deletion": False}
        job = client.submit("occlusion", "efficientnet_lite0", [image.id], params)
        wait_until(lambda: client.job(job.id).state == "running")
        victim = next(process for process in processes_of(tmp_path) if plays(process, part))
        victim.kill()
        killed = time.monotonic()
        assert process.stdout is not None
        said = rf"{part} ended \(SIGKILL\); starting it again (now|in \d+ s)"
        assert next(line for line in process.stdout if re.search(said, line))
        wait_until(lambda: is_ready(url), 60)
        assert client.wait(job.id).state == "succeeded"
        assert time.monotonic() - killed < LEASE_SECONDS / 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert processes_of(tmp_path) == []


def test_a_machine_that_loses_power_goes_on_without_waiting_for_leases(tmp_path: Path) -> None:
    """Everything dies at once, so nobody gives anything back; the next start knows that nobody holds anything."""
    params = {"window": 32, "stride": 12, "method": "naive", "insertion_deletion": False}
    with started(tmp_path) as (process, url):
        with Client(url) as client:
            image = client.upload(encode(random_picture(1)))
            job = client.submit("occlusion", "efficientnet_lite0", [image.id], params)
            wait_until(lambda: client.job(job.id).progress.done > 0)
        process.send_signal(signal.SIGSTOP)  # it must not start anything again
        for part in processes_of(tmp_path):
            part.kill()
        killed = time.monotonic()
        process.kill()
        process.wait()
        wait_until(lambda: not processes_of(tmp_path))
    with started(tmp_path) as (_, url), Client(url) as client:
        assert client.wait(job.id).state == "succeeded"
        assert time.monotonic() - killed < LEASE_SECONDS / 2


def plays(process: psutil.Process, part: str) -> bool:
    """Whether this process is the part's first (gunicorn and Celery have children)."""
    words = {"broker": "unixsocket", "api": "gunicorn", "reconciler": "reconcile", "worker-1": "celery"}
    line = " ".join(process.cmdline())
    parent = process.parent()
    return words[part] in line and (parent is None or words[part] not in " ".join(parent.cmdline()))


def test_beyond_this_machine_only_when_asked() -> None:
    done = subprocess.run([COMMAND, "serve", "--host", "0.0.0.0"], capture_output=True, text=True, check=False)  # noqa: S104
    assert done.returncode == 2
    assert "can be reached from other machines" in " ".join(done.stderr.split())


def test_the_demo_tells_every_analysis_on_one_page(tmp_path: Path) -> None:
    demo = Path(__file__).parents[2] / "examples" / "demo.py"
    done = subprocess.run(
        [sys.executable, demo, "--output", tmp_path / "out", "--state-dir", tmp_path / "state"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    printed = " ".join(done.stdout.split())
    for label in ("espresso 0.957", "tripod 0.944", "tiger cat 0.379", "p 0.0005", "RandomRotation"):
        assert label in printed
    for name in ("coffee", "camera", "chelsea"):
        for ending in ("pixel_map-overlay.png", "pixel_map.npy", "pixel_map.png", "drop_map.csv"):
            assert (tmp_path / "out" / "1-occlusion" / f"{name}-{ending}").stat().st_size > 500
    page = (tmp_path / "out" / "index.html").read_text()
    linked = re.findall(r'(?:src|href)="([^#"]+)"', page)
    assert len(linked) > 200
    assert not [link for link in linked if not (tmp_path / "out" / unquote(link)).is_file()]
    for title in ("Occlusion sensitivity", "Correspondence", "Invariance"):
        assert f"<h2>{title}</h2>" in page
    assert processes_of(tmp_path / "state") == []


def test_other_users_can_read_nothing_of_the_state(tmp_path: Path) -> None:
    """Not what an earlier version left open either."""
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o755)
    state_dir.chmod(0o755)
    with running_stack(state_dir) as stack:
        Client(stack.url).upload(encode(random_picture(1, (9, 9))))
        assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700
        inside = {path.relative_to(state_dir): path.stat().st_mode for path in state_dir.rglob("*")}
    assert {path.name for path in inside} >= {"occluscope.db", "occluscope.db-wal", "logs", "api.log"}
    assert {path: mode for path, mode in inside.items() if stat.S_IMODE(mode) & 0o077} == {}

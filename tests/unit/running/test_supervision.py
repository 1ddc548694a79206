"""What the supervisor of one machine does for its parts."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.running.supervision import Part, stop
from tests.parts import wait_until

LARGEST_BYTES = 100_000
COUNTS = "import itertools\nfor number in itertools.count(): print(f'line {number}', flush=True)"


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Part]:
    """A process that writes a numbered line after the other."""
    part = Part("counter", [sys.executable, "-c", COUNTS], tmp_path, tmp_path / "counter.log", os.environ)
    part.start()
    yield part
    stop([part])


def test_a_log_that_grows_is_put_aside_and_goes_on(part: Part) -> None:
    aside = part.log.with_name("counter.log.1")
    for _ in range(3):
        wait_until(lambda: part.log.stat().st_size > LARGEST_BYTES)
        assert not part.is_dead
        part.put_log_aside(LARGEST_BYTES)
        assert aside.stat().st_size > LARGEST_BYTES
        wait_until(lambda: part.log.stat().st_size > 0)
    stop([part])
    first = part.log.read_text().splitlines()[1]  # the line before it may have been cut in two
    last = aside.read_text().splitlines()[-2]
    assert int(first.removeprefix("line ")) > int(last.removeprefix("line "))
    assert b"\0" not in part.log.read_bytes()  # the process writes at the end, wherever that is now


def test_without_space_for_a_copy_the_log_begins_anew_all_the_same(part: Part) -> None:
    """Whoever supervises must not end because a disk is full, or because somebody took the log away."""
    part.log.with_name("counter.log.1").mkdir()  # nothing can be copied there
    wait_until(lambda: part.log.stat().st_size > LARGEST_BYTES)
    stop([part])
    part.put_log_aside(LARGEST_BYTES)
    assert part.log.stat().st_size == 0
    part.log.unlink()
    part.put_log_aside(LARGEST_BYTES)


def test_a_log_of_usual_size_stays(part: Part) -> None:
    wait_until(lambda: part.log.stat().st_size > 0)
    part.put_log_aside()
    assert part.log.stat().st_size > 0
    assert not part.log.with_name("counter.log.1").exists()

"""What large pictures take of the API's memory, whoever sends how many at once."""

import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from PIL import Image

from occluscope.client import Client
from service.running.stack import Stack, running_stack
from tests.conftest import encode
from tests.parts import wait_until

AT_ONCE = 8
MIB = 2**20
PEAK_BYTES = 1536 * MIB  # as docs/operations.md states
IDLE_BYTES = 400 * MIB
COARSE = {"window": 112, "stride": 112}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service whose API has done nothing before."""
    with running_stack(tmp_path_factory.mktemp("large")) as running:
        yield running


@pytest.fixture(scope="module")
def large() -> bytes:
    """A PNG of 8,000 × 8,000 pixels with transparency."""
    picture = Image.new("RGBA", (8000, 8000), (200, 30, 60, 128))
    picture.paste((10, 200, 90, 255), (1000, 2000, 5000, 6000))
    return encode(picture)


def api_processes(stack: Stack) -> list[psutil.Process]:
    process = stack.parts["api"].process
    assert process is not None
    first = psutil.Process(process.pid)
    return [first, *first.children(recursive=True)]


def peak_bytes(stack: Stack) -> int:
    """The most that any process of the API ever had resident."""
    found = []
    for process in api_processes(stack):
        kept = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        assert kept is not None
        found.append(1024 * int(kept[1]))
    return max(found)


def resident_bytes(stack: Stack) -> int:
    return max(process.memory_info().rss for process in api_processes(stack))


def test_eight_large_pictures_at_once_keep_to_the_stated_memory(own: Stack, large: bytes) -> None:
    with Client(own.url, timeout_seconds=120) as client, ThreadPoolExecutor(AT_ONCE) as threads:
        # What follows a PNG's end is not read: each is another file with the same pixels.
        uploaded = list(threads.map(lambda number: client.upload(large + bytes([number])), range(AT_ONCE)))
        assert {(image.width, image.height) for image in uploaded} == {(8000, 8000)}
        assert peak_bytes(own) < PEAK_BYTES

        job = client.wait(client.submit("occlusion", "efficientnet_lite0", [uploaded[0].id], COARSE).id)
        artifact = next(one for one in client.results(job.id).artifacts if one.name == "drop_map")

        def overlay(number: int) -> bytes:
            return client.download(artifact, "png", overlay=1, size=4096, alpha=number / 10)

        drawn = list(threads.map(overlay, range(AT_ONCE)))
        assert len(set(drawn)) == AT_ONCE
        small = Image.open(io.BytesIO(client.download(artifact, "png", overlay=1, size=512)))
        assert small.height == 512  # the picture is square, the colour bar stands beside it
    print(f"peak {peak_bytes(own) / MIB:.0f} MiB, then {resident_bytes(own) / MIB:.0f} MiB")
    assert peak_bytes(own) < PEAK_BYTES
    wait_until(lambda: resident_bytes(own) < IDLE_BYTES)

"""What the API's process frees goes back to the system."""

import subprocess
import sys

import pytest

MIB = 2**20
THREADS = 8
# Each thread fills and frees 30 MiB, as if it had drawn a picture; all of them live on, as the API's do.
DRAWS = f"""
import sys, threading
import numpy as np, psutil
from service.server.freeing import free_for_good

if sys.argv[1] == "freeing":
    free_for_good()
turn, over, done = threading.Lock(), threading.Event(), threading.Barrier({THREADS} + 1)

def draw():
    with turn:
        for _ in range(3):
            blocks = [np.ones(3 * {MIB}, np.uint8) for _ in range(10)]
            small = np.ones(1000, np.uint8)  # above them, so that the heap's end is in use
            del blocks
    done.wait()
    over.wait()

np.ones(32 * {MIB} - 4096, np.uint8)  # from now on glibc keeps blocks of up to this size
before = psutil.Process().memory_info().rss
for _ in range({THREADS}):
    threading.Thread(target=draw).start()
done.wait()
print(psutil.Process().memory_info().rss - before)
over.set()
"""


def kept_bytes(how: str) -> int:
    """What eight threads leave resident."""
    answer = subprocess.run([sys.executable, "-c", DRAWS, how], capture_output=True, check=True, text=True)
    return int(answer.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_what_threads_freed_is_not_kept_for_each_of_them() -> None:
    left = kept_bytes("as it is")
    assert left > 100 * MIB, "the test shows nothing: the C library keeps no blocks by itself"
    assert kept_bytes("freeing") < 20 * MIB

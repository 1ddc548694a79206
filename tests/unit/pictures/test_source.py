"""Pictures from a source: those that a list of prepared ones has, with only a few in memory."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from occluscope import pictures
from occluscope.errors import InvalidPictureError, UnitAbortedError
from occluscope.models import card
from occluscope.pictures.preparation import Preparation
from occluscope.pictures.source import PictureSource
from tests.conftest import encode, random_picture

PREPARATION = card("efficientnet_lite0").preparation
IDS = [f"p{number}" for number in range(60)]  # more than are held


class Store:
    """Encoded pictures by id, which notes what is read. large: these are read only once `opened` is set."""

    def __init__(self, ids: list[str], large: tuple[str, ...] = ()) -> None:
        self.content = {image_id: encode(random_picture(place, (40, 30))) for place, image_id in enumerate(ids)}
        self.large, self.opened, self.read_ids = large, threading.Event(), list[str]()

    def read(self, image_id: str) -> Image.Image:
        self.read_ids.append(image_id)
        if image_id in self.large:
            self.opened.wait(60)
        return pictures.decode(self.content[image_id])

    def prepared(self, image_id: str) -> np.ndarray:
        return PREPARATION.prepare(pictures.decode(self.content[image_id])).rgb


@pytest.fixture
def store() -> Store:
    return Store(IDS)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("pictures")]


def small(size: int) -> Preparation:
    return PREPARATION.model_copy(update={"crop": (size, size), "resize": size})


def test_a_source_has_the_pictures_of_a_list(store: Store) -> None:
    with PictureSource(IDS, store.read, PREPARATION) as source:
        assert len(source) == len(IDS)
        for image_id, picture in zip(IDS, source, strict=True):
            assert np.array_equal(picture.rgb, store.prepared(image_id))
            assert picture.frame == PREPARATION.frame(40, 30)
        assert np.array_equal(source[3].rgb, store.prepared("p3"))
        assert np.array_equal(source[-1].rgb, store.prepared(IDS[-1]))
        assert [picture.rgb.tobytes() for picture in source[4:9:2]] == [
            store.prepared(image_id).tobytes() for image_id in ("p4", "p6", "p8")
        ]
        with pytest.raises(IndexError):
            source[len(IDS)]


def test_nothing_is_read_that_is_not_asked_for(store: Store) -> None:
    with PictureSource(IDS, store.read, PREPARATION) as source:
        assert store.read_ids == []
        assert source[7].rgb is source[7].rgb
        assert store.read_ids == ["p7"]


def test_pictures_ahead_are_read_while_the_caller_works_and_no_more_than_fit(store: Store) -> None:
    preparation = small(1000)  # 3 MB each: two are held
    with PictureSource(IDS, store.read, preparation) as source:
        walk = iter(source)
        next(walk)
        store.content.clear()  # whatever is read from now on is an error
        while store.read_ids != ["p0", "p1"]:
            threading.Event().wait(0.01)
        with pytest.raises(KeyError) as raised:
            list(walk)
        assert raised.value.__notes__ in (["while picture p1 was read"], ["while picture p2 was read"])
        assert set(store.read_ids) <= {"p0", "p1", "p2", "p3"}


def test_the_original_is_read_when_it_is_asked_for(store: Store) -> None:
    with PictureSource(IDS, store.read, PREPARATION) as source:
        picture = source[2]
        assert store.read_ids == ["p2"]
        assert np.array_equal(np.asarray(picture.original), np.asarray(pictures.decode(store.content["p2"])))
        assert store.read_ids == ["p2", "p2"]


def test_an_original_waits_for_no_picture_that_is_only_read_ahead() -> None:
    store = Store(IDS, large=("p1",))
    arrived: list[int] = []

    def waiting() -> None:
        store.opened.set()  # once the original is waited for

    with PictureSource(IDS, store.read, PREPARATION, waiting, lambda: arrived.append(1)) as source:
        walk = iter(source)
        first = next(walk)
        while store.read_ids != ["p0", "p1"]:
            threading.Event().wait(0.01)
        assert np.array_equal(np.asarray(first.original), np.asarray(pictures.decode(store.content["p0"])))
        assert store.read_ids[:3] == ["p0", "p1", "p0"]
        assert len(arrived) == 2
        assert [picture.rgb.tobytes() for picture in walk] == [store.prepared(one).tobytes() for one in IDS[1:]]


def test_a_picture_that_cannot_be_read_is_named_where_it_is_asked_for(store: Store) -> None:
    store.content["p2"] = store.content["p2"][:200]
    with PictureSource(IDS, store.read, PREPARATION) as source:
        walk = iter(source)
        assert [next(walk).rgb.shape, next(walk).rgb.shape] == [(224, 224, 3)] * 2
        with pytest.raises(InvalidPictureError, match="picture p2: the picture is damaged or truncated"):
            next(walk)
        store.content["p2"] = store.content["p3"]
        assert np.array_equal(source[2].rgb, store.prepared("p3"))


def test_errors_of_reading_arrive_as_they_are() -> None:
    def read(_image_id: str) -> Image.Image:
        raise TimeoutError("nobody answers")

    with PictureSource(["a"], read, PREPARATION) as source, pytest.raises(TimeoutError, match="nobody answers"):
        source[0]


def test_while_a_picture_is_decoded_the_caller_is_asked_and_may_stop() -> None:
    store, calls = Store(["a", "b"], large=("a",)), list[str]()

    def waiting() -> None:
        calls.append("waiting")
        if len(calls) == 3:
            store.opened.set()  # the thread ends what it is at, and no more
            raise UnitAbortedError("the claim is gone")

    with pytest.raises(UnitAbortedError), PictureSource(["a", "b"], store.read, PREPARATION, waiting) as source:
        list(source)
    assert len(calls) == 3
    assert store.read_ids in (["a"], ["a", "b"])


def test_a_block_that_is_left_early_leaves_no_thread(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), PictureSource(IDS, store.read, PREPARATION) as source:
        next(iter(source))
        raise ZeroDivisionError
    assert len(store.read_ids) < len(IDS)


MEMORY = """
import sys
from collections import deque
from pathlib import Path
from occluscope import pictures
from occluscope.models import card
from occluscope.pictures.source import PictureSource

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024

def take(count):
    ids = [sys.argv[1 + (number % 8 == 1)] for number in range(count)]
    with PictureSource(ids, lambda path: pictures.decode(Path(path).read_bytes()), preparation) as source:
        assert len(deque(source, maxlen=4)) == 4
    return peak()

preparation = card("efficientnet_lite0").preparation
print(take(4), take(64))
"""


@pytest.mark.slow
def test_sixty_four_pictures_of_twelve_megapixels_take_the_memory_of_four(tmp_path: Path) -> None:
    large = random_picture(1, (40, 30)).resize((4000, 3000), Image.Resampling.BILINEAR)
    large.save(tmp_path / "a.jpg", quality=85)
    large.save(tmp_path / "b.png", compress_level=1)
    files = [str(tmp_path / name) for name in ("a.jpg", "b.png")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", MEMORY, *files]  # `make test` has glibc keep what is freed
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    of_four, of_all = map(int, done.stdout.split())  # MiB
    assert of_all - of_four < 48  # one of them, decoded

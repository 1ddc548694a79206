"""The source of a unit's pictures: a thread reads and prepares each when it is needed, while the model runs."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar, overload

from PIL import Image

from occluscope.errors import InvalidPictureError
from occluscope.pictures.preparation import Picture, Preparation

T = TypeVar("T")
_HELD_BYTES: Final = 4 * 2**20  # of prepared pictures in memory: those used last and those prepared ahead
_MOST_AHEAD: Final = 8  # pictures prepared ahead: enough that the model need not wait
_WAIT_SECONDS: Final = 0.1  # between two calls of `waiting`


class PictureSource(Sequence[Picture]):
    """Prepared pictures in the order of their ids, of which only a few are in memory.

    Iteration prepares the next pictures while the caller works on one. Indexing prepares the requested pictures only.
    One picture is decoded at a time. `Picture.original` reads and decodes the picture again, before any that is only
    prepared ahead.

    ids: of the pictures. read: returns an upright RGB picture by its id; it is called in the source's thread. An error
    of `read` is raised where the caller requests the picture, and names the picture.
    waiting: called every tenth of a second while the caller waits for a picture. An error that it raises ends the wait.
    arrived: called when a picture for which the caller waited is there.

    Use the source in a ``with`` block and in one thread. Its own thread has ended at the end of the block.
    """

    def __init__(
        self,
        ids: Sequence[str],
        read: Callable[[str], Image.Image],
        preparation: Preparation,
        waiting: Callable[[], None] = lambda: None,
        arrived: Callable[[], None] = lambda: None,
    ) -> None:
        self._ids, self._read, self._preparation = ids, read, preparation
        self._waiting, self._arrived = waiting, arrived
        height, width = preparation.crop
        self._most_held = max(_HELD_BYTES // (height * width * 3), 2)
        self._held: OrderedDict[int, Future[Picture]] = OrderedDict()  # by position, the one used last at the end
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pictures")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._held.clear()

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, place: int) -> Picture: ...
    @overload
    def __getitem__(self, place: slice) -> list[Picture]: ...
    def __getitem__(self, place: int | slice) -> Picture | list[Picture]:
        places = range(len(self))[place]
        return self._picture(places) if isinstance(places, int) else [self._picture(one) for one in places]

    def __iter__(self) -> Iterator[Picture]:
        for place in range(len(self)):
            for ahead in range(place, min(place + min(self._most_held, _MOST_AHEAD), len(self))):
                self._future(ahead)
            yield self._picture(place)

    def _picture(self, place: int) -> Picture:
        try:
            return self._awaited(self._future(place))
        except BaseException:
            self._held.pop(place, None)  # so that another request reads it again
            raise

    def _future(self, place: int) -> Future[Picture]:
        """The picture when it is ready. It replaces the picture that was not used for the longest time."""
        if place not in self._held:
            self._held[place] = self._thread.submit(self._prepared, self._ids[place])
        self._held.move_to_end(place)
        while len(self._held) > self._most_held:
            _, oldest = self._held.popitem(last=False)
            oldest.cancel()
        return self._held[place]

    def _awaited(self, future: Future[T]) -> T:
        while not wait([future], timeout=_WAIT_SECONDS).done:
            self._waiting()
        result = future.result()
        self._arrived()
        return result

    def _prepared(self, image_id: str) -> Picture:
        prepared = self._preparation.prepare(self._decoded(image_id))
        return Picture(prepared.rgb, prepared.frame, partial(self._original, image_id))

    def _original(self, image_id: str) -> Image.Image:
        for place, future in list(self._held.items()):
            if future.cancel():  # not begun; it is requested again when it is needed
                del self._held[place]
        return self._awaited(self._thread.submit(self._decoded, image_id))

    def _decoded(self, image_id: str) -> Image.Image:
        try:
            return self._read(image_id)
        except InvalidPictureError as error:
            raise InvalidPictureError(f"picture {image_id}: {error}") from error
        except Exception as error:
            error.add_note(f"while picture {image_id} was read")
            raise

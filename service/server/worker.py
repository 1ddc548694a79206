"""The process that gunicorn supervises: uvicorn's event loop with our protocol, and the application behind it."""

import asyncio
import logging
import resource
from typing import Any, ClassVar, Final

from uvicorn_worker import UvicornWorker

from service.app import create_app
from service.server import limits
from service.server.freeing import free_for_good
from service.server.front import Front
from service.server.protocol import GuardedProtocol
from service.settings import settings

_SIGN_OF_LIFE_SECONDS: Final = 1.0  # between two


class ApiWorker(UvicornWorker):  # type: ignore[misc]
    """One for each machine: what it keeps in memory (keys, counts for Prometheus) is not shared."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "asyncio",
        "http": GuardedProtocol,
        "h11_max_incomplete_event_size": limits.HEADER_BYTES,
        "ws": "none",
        "lifespan": "on",
        "server_header": False,
        "access_log": False,
        "timeout_keep_alive": limits.IDLE_SECONDS,
        # uvicorn's own timer uses the wall clock: if that is set back, gunicorn misses a heartbeat and kills this
        # process.
        "callback_notify": None,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        lines = logging.getLogger("uvicorn.error")
        lines.handlers, lines.propagate = [], True  # to the root logger, in the form of all other lines
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = limits.CONNECTIONS + 500  # connections, and the process's own files and sockets
        if soft != resource.RLIM_INFINITY and soft < wanted:
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))

    async def _serve(self) -> None:
        signs = asyncio.create_task(self._give_signs_of_life())
        try:
            await super()._serve()
        finally:
            signs.cancel()

    async def _give_signs_of_life(self) -> None:
        while True:
            self.notify()
            await asyncio.sleep(_SIGN_OF_LIFE_SECONDS)


def create() -> Front:
    """Make the application; gunicorn calls this once in each of its processes."""
    free_for_good()
    return Front(create_app(), settings())

"""The ASGI application in front of the WSGI one: receives whole bodies, within limits, before a thread gets a request.

Threads are few, and a thread that waits for a slow client serves nobody else. So the event loop does the waiting: a
thread gets a request once it has come whole, and returns its whole answer. Requests that decode or draw pictures may
take seconds each, so only half of the threads serve them, and they wait for those here too.
"""

import asyncio
import re
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import IO, Any, Final, cast
from urllib.parse import unquote_to_bytes

import structlog

from service.api.problems import MEDIA_TYPE
from service.server import limits
from service.server.protocol import ABORT, GONE, problem_body
from service.server.wsgi import Answer, Application, ask, environment
from service.settings import Settings

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_ALIVE: Final = Answer(200, [(b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff")], [
    b'{"status":"alive"}\n',
])  # fmt: skip
_log = structlog.get_logger(__name__)


class RefusedError(Exception):
    """A request that is refused here, without asking the application.

    rest: whether to keep reading its body for a while, so that the client gets the answer. again: seconds before a
    retry.
    """

    def __init__(self, status: HTTPStatus, detail: str, *, rest: bool = False, again: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.rest, self.again = status, detail, rest, again


@dataclass
class _Body:
    """A body that has come whole. counted: its bytes that count towards the limit of all bodies together."""

    file: IO[bytes]
    length: int = 0
    counted: int = 0


class Front:
    """One for each process. application: called from as many threads as the settings say."""

    def __init__(self, application: Application, config: Settings) -> None:
        self._application = application
        self._config = config
        self._threads = ThreadPoolExecutor(config.api_threads, thread_name_prefix="api")
        self._of_pictures = asyncio.Semaphore(max(config.api_threads // 2, 1))
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["raw_path"] == b"/healthz" and scope["method"] in ("GET", "HEAD"):
            await _send(scope, send, _ALIVE)  # a busy service is alive, too
            return
        body = _Body(tempfile.SpooledTemporaryFile(limits.IN_MEMORY_BYTES))  # noqa: SIM115 - closed below
        try:
            async with asyncio.timeout(limits.BODY_SECONDS):
                stranger = await self._take_in(scope, receive, body)
            answer = stranger or await self._ask_in_turn(scope, body)
            await _send(scope, send, answer, last=stranger is not None)
        except TimeoutError:
            detail = f"The request's body did not come within {limits.BODY_SECONDS:g} seconds."
            await _send(scope, send, _refusal(RefusedError(HTTPStatus.REQUEST_TIMEOUT, detail)), last=True)
        except RefusedError as refused:
            if refused.rest:
                await _read_on(receive)
            await _send(scope, send, _refusal(refused), last=True)
        except _GoneError:
            return
        except OSError as error:  # of the temporary file
            _log.error("body not kept", error=str(error))
            detail = "No space is left to take this in; nothing was stored."
            await _send(scope, send, _refusal(RefusedError(HTTPStatus.INSUFFICIENT_STORAGE, detail)), last=True)
        except Exception:  # noqa: BLE001 - no answer would be worse than one that says so
            _log.exception("request not answered", path=str(scope["raw_path"]))
            detail = "Something went wrong here; it has been logged."
            await _send(scope, send, _refusal(RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, detail)), last=True)
        finally:
            self._held_bytes -= body.counted
            body.file.close()

    async def _take_in(self, scope: Scope, receive: Receive, body: _Body) -> Answer | None:
        """Read the whole body; return an answer instead if the client has no key and sends more than it may without.

        Raises
        ------
        RefusedError
            The body is too large or comes too slowly, or all bodies together are too large.
        """
        most = self._limit(scope)
        announced = _announced(scope)
        if announced is not None and announced > most:
            raise _too_large(most, rest=announced <= most + self._config.max_body_bytes)
        known = most <= limits.STRANGERS_BYTES
        while True:
            message = await _received(receive)
            piece = message.get("body", b"")
            body.length += len(piece)
            if body.length > most:
                raise _too_large(most, rest=True)
            if not known and max(body.length, announced or 0) > limits.STRANGERS_BYTES:
                if (refusal := await self._refused_stranger(scope)) is not None:
                    return refusal
                known = True
            if self._held_bytes + len(piece) > limits.HELD_BYTES:
                raise _busy("Too much is being uploaded just now; try again.", rest=True)
            self._held_bytes += len(piece)
            body.counted += len(piece)
            body.file.write(piece)
            if not message.get("more_body", False):
                body.file.seek(0)
                return None

    def _limit(self, scope: Scope) -> int:
        """The most bytes that this request's body may have, by the path as the application reads it."""
        path = re.sub(rb"/+", b"/", unquote_to_bytes(scope["raw_path"])).rstrip(b"/")
        if path == b"/v1/images":
            return self._config.max_body_bytes
        return self._config.max_json_bytes if path.startswith(b"/v1/jobs") else limits.SESSION_BYTES

    async def _refused_stranger(self, scope: Scope) -> Answer | None:
        """The application's answer to a client without a valid key; None if the application would accept the client."""
        question = {**scope, "method": "GET", "raw_path": b"/v1/session", "query_string": b"", "headers": [
            (name, value) for name, value in scope["headers"] if name in (b"authorization", b"cookie", b"host")
        ]}  # fmt: skip
        with tempfile.SpooledTemporaryFile() as nothing:
            answer = await self._ask(question, cast("IO[bytes]", nothing), 0)
        return answer if answer.status >= HTTPStatus.BAD_REQUEST else None

    async def _ask_in_turn(self, scope: Scope, body: _Body) -> Answer:
        """Call the application; a request that decodes or draws a picture first waits for a thread for those.

        Raises
        ------
        RefusedError
            No thread became free in time.
        _GoneError
            The client has closed the connection.
        """
        if not _has_picture(scope):
            return await self._ask(scope, body.file, body.length)
        try:
            async with asyncio.timeout(limits.PICTURES_SECONDS):
                await self._of_pictures.acquire()
        except TimeoutError:
            raise _busy("Too many pictures are worked on just now; try again.") from None
        try:
            if scope["state"][GONE]():
                raise _GoneError
            return await self._ask(scope, body.file, body.length)
        finally:
            self._of_pictures.release()

    async def _ask(self, scope: Scope, body: IO[bytes], length: int) -> Answer:
        environ = environment(scope, body, length)
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, partial(ask, self._application, environ)
            )
        except Exception:  # noqa: BLE001 - no answer would be worse than one that says so
            _log.exception("request not answered", path=environ["PATH_INFO"])
            detail = "Something went wrong here; the log of the API says what."
            return _refusal(RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, detail))


class _GoneError(Exception):
    """The client has closed the connection."""


async def _received(receive: Receive) -> dict[str, Any]:
    try:
        message = await asyncio.wait_for(receive(), limits.BODY_IDLE_SECONDS)
    except TimeoutError:
        detail = f"Nothing came of the request's body for {limits.BODY_IDLE_SECONDS:g} seconds."
        raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, detail) from None
    if message["type"] == "http.disconnect":
        raise _GoneError
    return message


async def _read_on(receive: Receive) -> None:
    """Read and discard the rest of a body: were the connection closed at once, the client might not get the answer."""
    with suppress(TimeoutError, RefusedError, _GoneError):
        async with asyncio.timeout(limits.DRAIN_SECONDS):
            while (await _received(receive)).get("more_body", False):
                pass


async def _send(scope: Scope, send: Send, answer: Answer, *, last: bool = False) -> None:
    """Send an answer; close the connection if the client does not read it in time. last: close it in any case."""
    headers = answer.headers + ([(b"connection", b"close")] if last else [])
    if not any(name == b"content-length" for name, _ in headers) and answer.status not in (204, 304):
        headers.append((b"content-length", str(sum(map(len, answer.body))).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    try:
        for piece in answer.body if scope["method"] != "HEAD" else []:
            for start in range(0, len(piece), limits.CHUNK_BYTES):
                part = piece[start : start + limits.CHUNK_BYTES]
                message = {"type": "http.response.body", "body": part, "more_body": True}
                await asyncio.wait_for(send(message), limits.SEND_IDLE_SECONDS)
        await asyncio.wait_for(send({"type": "http.response.body", "body": b""}), limits.SEND_IDLE_SECONDS)
    except TimeoutError:
        scope["state"][ABORT]()


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _has_picture(scope: Scope) -> bool:
    """Whether a request may decode or draw a picture."""
    path = unquote_to_bytes(scope["raw_path"])
    return path.startswith(b"/v1/artifacts/") or (scope["method"] == "POST" and path.startswith(b"/v1/images"))


def _announced(scope: Scope) -> int | None:
    """The length of the body by its header."""
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else None


def _too_large(most: int, *, rest: bool) -> RefusedError:
    message = f"The request's body is over its limit ({most:,} bytes)."
    return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message, rest=rest)


def _busy(message: str, *, rest: bool = False) -> RefusedError:
    return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, message, rest=rest, again=limits.AGAIN_SECONDS)


def _refusal(refused: RefusedError) -> Answer:
    headers = [(b"content-type", MEDIA_TYPE.encode())]
    if refused.again is not None:
        headers.append((b"retry-after", str(refused.again).encode()))
    return Answer(refused.status.value, headers, [problem_body(refused.status, refused.detail)])

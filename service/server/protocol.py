"""HTTP on one connection: uvicorn's protocol, with limits on the time and the size of a request's header.

It uses h11, the stricter of uvicorn's two parsers: it keeps trailers apart from headers, limits both, reads a body
whatever upgrade is proposed, and starts a request only after the one before has been answered.
"""

import asyncio
import json
import socket
import struct
import sys
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from occluscope.wire import Problem
from service.api.problems import MEDIA_TYPE
from service.server import limits

ABORT = "abort"  # key in a request's state: closes the connection at once, whatever is still to be sent
GONE = "gone"  # key in a request's state: whether the connection is closed


class GuardedProtocol(H11Protocol):
    """A silent or slow connection occupies no thread, and is closed after a time."""

    _deadline: asyncio.TimerHandle | None = None  # of a header
    _watch: asyncio.TimerHandle | None = None
    _unsent = 0  # bytes that the client had still to read at the last check
    _refused = False  # answered here: everything that still comes is ignored

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse the connection at once if there are too many."""
        self.app_state = {**self.app_state, ABORT: self._abort, GONE: transport.is_closing}
        super().connection_made(transport)
        if len(self.connections) > limits.CONNECTIONS:
            transport.abort()
            return
        self._watch = self.loop.call_later(limits.SEND_IDLE_SECONDS / 2, self._look)
        self._await_header(limits.HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        for timer in (self._deadline, self._watch):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless the connection has been refused."""
        if not self._refused:
            super().data_received(data)

    def handle_events(self) -> None:
        """Handle what has come so far; from a whole header on, the application measures the time."""
        super().handle_events()
        if self.conn.their_state is not h11.IDLE and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def on_response_complete(self) -> None:
        """Wait for a further request for a while, unless one has already come."""
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._await_header(limits.IDLE_SECONDS + limits.HEADER_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """Answer with a problem document, like all errors; uvicorn calls this while it handles an error of h11."""
        status = HTTPStatus(getattr(sys.exc_info()[1], "error_status_hint", HTTPStatus.BAD_REQUEST))
        if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            msg = f"The request's header is over its limit ({limits.HEADER_BYTES:,} bytes)."
        self._refuse(status, msg)

    def _await_header(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        message = f"The request's header did not come within {limits.HEADER_SECONDS:g} seconds."
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, message)

    def _look(self) -> None:
        """Abandon a complete answer that the client does not read."""
        unsent = self.transport.get_write_buffer_size()
        answering = self.cycle is not None and not self.cycle.response_complete  # then the sender measures the time
        if unsent and unsent == self._unsent and (self.transport.is_closing() or not answering):
            self._abort()
            return
        self._unsent = unsent
        self._watch = self.loop.call_later(limits.SEND_IDLE_SECONDS / 2, self._look)

    def _abort(self) -> None:
        """Close at once, and make the kernel discard the unread rest of the answer, which may be megabytes."""
        connection = self.transport.get_extra_info("socket")
        if connection is not None and connection.fileno() >= 0:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answer without calling the application, and close; if an answer has begun, only close."""
        self._refused = True
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = problem_body(status, detail)
            head = (
                f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {MEDIA_TYPE}\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        if self.transport.can_write_eof():  # if it were closed at once, the client might not get the answer
            self.transport.write_eof()
        else:
            self.transport.close()
        self.loop.call_later(limits.DRAIN_SECONDS, self._abort)


def problem_body(status: HTTPStatus, detail: str) -> bytes:
    """A problem document, for errors that do not reach the application."""
    content: dict[str, Any] = Problem(title=status.phrase, status=status.value, detail=detail).model_dump()
    return json.dumps(content).encode()

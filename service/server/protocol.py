"""HTTP on one connection: uvicorn's, with limits on how long and how large a request's header may be."""

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.problems import MEDIA_TYPE, Problem
from service.server import limits

ABORT = "abort"  # of a request's state: closes its connection at once, whatever is still to be sent
GONE = "gone"  # of a request's state: tells whether its connection is closed


class GuardedProtocol(HttpToolsProtocol):
    """A silent or slow connection takes no thread, and is closed in time."""

    _deadline: asyncio.TimerHandle | None = None
    _refused = False  # answered here: what still comes is forgotten
    _head_bytes = 0  # received since the last request's end, while no header is complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refused at once where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > limits.CONNECTIONS:
            transport.abort()
            return
        self._await_header(limits.HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """No deadline any more."""
        self._header_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parsed; a header without end is not taken."""
        if self._refused:
            return
        super().data_received(data)
        if self._deadline is not None:
            self._head_bytes += len(data)
            if self._head_bytes > limits.HEADER_BYTES:
                message = f"The request's header is over its limit ({limits.HEADER_BYTES:,} bytes)."
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        self.scope["state"][ABORT] = self.transport.abort
        self.scope["state"][GONE] = self.transport.is_closing

    def on_headers_complete(self) -> None:
        """From here on the application looks at the clock."""
        self._header_came()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """A further request may come, for a while."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._await_header(limits.IDLE_SECONDS + limits.HEADER_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """As a problem document, as all errors are."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _await_header(self, seconds: float) -> None:
        self._header_came()
        self._deadline = self.loop.call_later(seconds, self._too_slow)

    def _header_came(self) -> None:
        self._head_bytes = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        message = f"The request's header did not come within {limits.HEADER_SECONDS:g} seconds."
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, message)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answer without asking the application, and close."""
        self._header_came()
        if self.transport.is_closing():
            return
        body = problem_body(status, detail)
        headers = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self._refused = True
        self.transport.write(headers.encode() + body)
        if self.transport.can_write_eof():  # closed in its face, a sender might never read why
            self.transport.write_eof()
        else:
            self.transport.close()
        self.loop.call_later(limits.DRAIN_SECONDS, self.transport.abort)


def problem_body(status: HTTPStatus, detail: str) -> bytes:
    """A problem document where no application makes one."""
    content: dict[str, Any] = Problem(title=status.phrase, status=status.value, detail=detail).model_dump()
    return json.dumps(content).encode()

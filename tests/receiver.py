"""A receiver of webhooks: a real HTTP server that answers as it is told and keeps what it was told."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self


class Told(NamedTuple):
    """One request. path: also of other methods."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """answers: status of each request in turn; the last one of all that follow. seconds: until each answer."""

    def __init__(self, *answers: int, seconds: float = 0.0, location: str | None = None) -> None:
        self.told: list[Told] = []
        self._answers = list(answers) or [204]
        told, answers_left, lock = self.told, self._answers, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    told.append(Told(self.path, dict(self.headers), body))
                    status = answers_left.pop(0) if len(answers_left) > 1 else answers_left[0]
                time.sleep(seconds)
                self.send_response(status)
                if location:
                    self.send_header("Location", location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST  # noqa: N815 - what a redirection would lead to

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/told"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

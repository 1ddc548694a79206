"""Every request: a log line with its job, and a count for Prometheus."""

import time
from http import HTTPStatus
from secrets import token_hex
from typing import Final

import structlog
from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Histogram

_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)  # seconds
_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}
)  # methods; others are arbitrary text of a client
_QUIET: Final = frozenset(
    {"health.healthz", "health.readyz", "metrics.metrics"}
)  # paths that monitoring asks every few seconds

registry: Final = CollectorRegistry()  # of this process
seconds: Final = Histogram(
    "occluscope_http_request_seconds",
    "Time until a request was answered, by what was asked and the answer's status",
    ["endpoint", "method", "status"],
    buckets=_BUCKETS,
    registry=registry,
)
_log = structlog.get_logger(__name__)


def register(app: Flask) -> None:
    """Measure and log every request of the app."""
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    g.began = time.perf_counter()
    structlog.contextvars.clear_contextvars()
    arguments = request.view_args or {}
    ids = {"job": arguments["id"]} if request.blueprint == "jobs" and "id" in arguments else {}
    structlog.contextvars.bind_contextvars(request=token_hex(4), **ids)


def _end(response: Response) -> Response:
    took = time.perf_counter() - g.get("began", time.perf_counter())
    endpoint = request.endpoint or "unknown"
    method = request.method if request.method in _METHODS else "other"
    seconds.labels(endpoint, method, str(response.status_code)).observe(took)
    if endpoint in _QUIET and response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return response
    _log.info(
        "request",
        method=request.method,
        path=request.path,
        status=response.status_code,
        milliseconds=round(1000 * took),
    )
    return response

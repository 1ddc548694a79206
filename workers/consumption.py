"""Consuming from the broker: whether this process does, and how soon it reconnects after an outage."""

import threading
from typing import Any, Final

import structlog
from celery import bootsteps
from celery.worker.consumer import Consumer
from celery.worker.consumer.tasks import Tasks
from celery.worker.state import maybe_shutdown

_FIRST_RETRY_SECONDS: Final = 0.2
_LONGEST_RETRY_SECONDS: Final = (
    2.0  # the longest pause; Celery's own grows to 30 seconds, for which every job would wait
)

consuming: Final = threading.Event()  # set while this process takes units from the broker
_log = structlog.get_logger(__name__)


class Consumption(bootsteps.StartStopStep):  # type: ignore[misc]
    """Started once tasks are consumed, stopped when the connection is lost or the worker ends."""

    requires = (Tasks,)

    def start(self, parent: Any) -> None:  # noqa: ARG002
        """Note that the process consumes."""
        consuming.set()

    def stop(self, parent: Any) -> None:  # noqa: ARG002
        """Note that it no longer does."""
        consuming.clear()


class PromptConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer, which reconnects sooner."""

    def ensure_connected(self, conn: Any) -> Any:
        """Retry until it is connected or the worker is asked to end."""

        def tell(error: Exception, interval: float) -> None:
            _log.warning("broker out of reach", error=str(error), again_in_seconds=interval)

        self.first_connection_attempt = False
        return conn.ensure_connection(
            tell,
            interval_start=_FIRST_RETRY_SECONDS,
            interval_step=_FIRST_RETRY_SECONDS,
            interval_max=_LONGEST_RETRY_SECONDS,
            callback=maybe_shutdown,
        )

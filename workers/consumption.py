"""Consuming from the broker: whether it goes on, and how soon it does again after the broker was gone."""

import threading
from typing import Any, Final

import structlog
from celery import bootsteps
from celery.worker.consumer import Consumer
from celery.worker.consumer.tasks import Tasks
from celery.worker.state import maybe_shutdown

_FIRST_RETRY_SECONDS: Final = 0.2
_LONGEST_RETRY_SECONDS: Final = 2.0  # Celery's own grows to 30 seconds, in which every job would wait

consuming: Final = threading.Event()  # set while this process takes units from the broker
_log = structlog.get_logger(__name__)


class Consumption(bootsteps.StartStopStep):  # type: ignore[misc]
    """Started once tasks are consumed, stopped when the connection is lost or the worker ends."""

    requires = (Tasks,)

    def start(self, parent: Any) -> None:  # noqa: ARG002
        """The consumer is there."""
        consuming.set()

    def stop(self, parent: Any) -> None:  # noqa: ARG002
        """It is gone."""
        consuming.clear()


class PromptConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer, but that it tries again soon."""

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, for as long as it takes, unless the worker is asked to end."""

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

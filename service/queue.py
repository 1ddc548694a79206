"""The Celery app, and the one function that publishes a unit."""

from typing import Final

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from service.settings import Settings, settings

RUN_UNIT: Final = "occluscope.run_unit"
_VISIBILITY_SECONDS: Final = 24 * 3600  # redelivery is the reconciler's business, by leases in the database

_log = structlog.get_logger(__name__)


def celery_app(config: Settings) -> Celery:
    """A Celery app for these settings: late acknowledgement, no prefetching, no result backend."""
    app = Celery("occluscope", broker=config.broker_url, set_as_current=False)
    app.conf.update(
        task_default_queue=config.queue_name,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,  # workers are seen by their heartbeat in the database
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "visibility_timeout": _VISIBILITY_SECONDS,
            "socket_connect_timeout": config.broker_timeout_seconds,
            "socket_timeout": max(config.broker_timeout_seconds, 5.0),
        },
    )
    return app


class Queue:
    """Where units are published, by id only; the database stays the truth."""

    def __init__(self, config: Settings | None = None) -> None:
        self._config = config or settings()
        self._app = celery_app(self._config)

    def publish_unit(self, unit_id: str) -> bool:
        """Tell the workers of a unit; false when the broker is out of reach (the reconciler will tell them)."""
        try:
            self._app.send_task(RUN_UNIT, args=[unit_id], queue=self._config.queue_name, retry=False)
        except (OperationalError, OSError) as error:
            _log.warning("broker out of reach", unit=unit_id, error=str(error))
            return False
        return True

    def waiting(self) -> int | None:
        """Messages that no worker has taken yet; none when the broker is out of reach."""
        try:
            with self._app.connection_for_read() as connection:
                connection.ensure_connection(max_retries=1, timeout=self._config.broker_timeout_seconds)
                channel = connection.default_channel
                return int(channel.client.llen(self._config.queue_name))
        except (OperationalError, OSError):
            return None

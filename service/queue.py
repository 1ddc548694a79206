"""The Celery app, and how workers are notified of waiting units.

A message says only that some unit waits. The worker that receives it takes the unit that is due then, from the
database. So a message that is lost, late or delivered twice changes only when a unit runs, and any message serves for
any unit.
"""

import socket
import threading
from typing import Any, Final

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from service.settings import Settings, settings

RUN_UNIT: Final = "occluscope.run_unit"
MOST_MESSAGES: Final = 1000  # announced at once; the reconciler announces the rest as these are taken
_VISIBILITY_SECONDS: Final = (
    24 * 3600
)  # Celery's redelivery is not used; the reconciler does it, by leases in the database
_KEEPALIVE: Final = {  # a dead connection is noticed within 20 seconds
    socket.TCP_KEEPIDLE: 10,
    socket.TCP_KEEPINTVL: 3,
    socket.TCP_KEEPCNT: 3,
}

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
        worker_enable_remote_control=False,  # the heartbeat in the database shows which workers live
        worker_send_task_events=False,
        worker_enable_prefetch_count_reduction=False,  # there is none
        worker_cancel_long_running_tasks_on_connection_loss=False,  # a running unit needs no broker
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # retry without end
        broker_transport_options={
            "visibility_timeout": _VISIBILITY_SECONDS,
            "socket_connect_timeout": config.broker_timeout_seconds,
            "socket_timeout": max(config.broker_timeout_seconds, 5.0),
            "socket_keepalive": True,
            "socket_keepalive_options": _KEEPALIVE,
        },
    )
    return app


class Queue:
    """The queue of messages to workers. The database, not the queue, decides what is done."""

    def __init__(self, config: Settings | None = None) -> None:
        self._config = config or settings()
        self._app = celery_app(self._config)

    def announce(self, units: int) -> int:
        """Send one message for each waiting unit; return how many messages the broker accepted.

        Fewer are accepted while the broker is unreachable; the reconciler sends the rest later.
        """
        for told in range(min(units, MOST_MESSAGES)):
            try:
                self._app.send_task(RUN_UNIT, queue=self._config.queue_name, retry=False)
            except (OperationalError, RedisError, OSError) as error:
                _log.warning("broker out of reach, or it answers with an error", error=str(error))
                return told
        return min(units, MOST_MESSAGES)

    def waiting(self) -> int | None:
        """Messages that no worker has taken yet; None if the broker is unreachable or answers with an error."""
        try:
            with self._app.connection_for_read() as connection:
                connection.ensure_connection(max_retries=1, timeout=self._config.broker_timeout_seconds)
                channel = connection.default_channel
                client: Any = channel.client
                return int(client.llen(self._config.queue_name))
        except (OperationalError, RedisError, OSError) as error:
            _log.warning("broker does not say what waits", error=str(error))
            return None


class Announcer:
    """Announces from a thread of its own, so that no request waits for the broker.

    If the process ends before a unit is announced, the reconciler announces it.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._units = 0
        self._told = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
        self._thread.start()

    def tell(self, units: int) -> None:
        """Announce this many more waiting units soon; returns at once."""
        with self._told:
            self._units = min(self._units + units, MOST_MESSAGES)
            self._told.notify()

    def _run(self) -> None:
        while True:
            with self._told:
                self._told.wait_for(lambda: self._units)
                units, self._units = self._units, 0
            try:
                self._queue.announce(units)
            except Exception:  # noqa: BLE001 - whatever the broker's driver raises, the next units are told of
                _log.exception("not announced")

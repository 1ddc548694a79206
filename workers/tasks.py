"""The Celery app of a worker process: ``celery -A workers.tasks worker --pool=solo``."""

import os
import secrets
import threading
from typing import Any

import structlog
import torch
from celery import signals

from occluscope.models.loading import best_device
from service.queue import RUN_UNIT, Queue, celery_app
from service.running.logs import configure_logs
from service.settings import settings
from service.store.database import Database
from service.store.workers import worker_prefix
from workers.activity import Activity
from workers.consumption import Consumption, PromptConsumer
from workers.device import describe_device
from workers.execution import Executor
from workers.heartbeat import Heartbeat
from workers.watchdog import Watchdog

configure_logs()  # before Celery's first log line
config = settings()
if config.worker_threads:
    torch.set_num_threads(config.worker_threads)
app = celery_app(config)
app.conf.worker_consumer = f"{PromptConsumer.__module__}:{PromptConsumer.__name__}"
app.steps["consumer"].add(Consumption)

_worker_id = worker_prefix(os.getpid()) + secrets.token_hex(3)
_database = Database(config.database_url)
_queue = Queue(config)
_activity = Activity()
_heartbeat = Heartbeat(_database, config, _worker_id, describe_device(best_device()))
_executor = Executor(config, _database, _queue, _worker_id, _heartbeat, _activity)
_watchdog = Watchdog(_database, _queue, config, _activity)
_log = structlog.get_logger(__name__)


@app.task(name=RUN_UNIT)
def run_unit() -> None:
    """Do the unit of a job that is due."""
    _executor.run()


@signals.setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    configure_logs()


@signals.worker_init.connect
def _init(**_: Any) -> None:
    structlog.contextvars.bind_contextvars(worker=_worker_id)
    _watchdog.start()


@signals.worker_ready.connect
def _ready(**_: Any) -> None:
    _heartbeat.start()
    _log.info("worker ready", device=describe_device(best_device()))


@signals.worker_shutting_down.connect
def _shutting_down(**_: Any) -> None:
    _executor.stopping.set()
    _watchdog.stop()
    in_time = threading.Timer(config.drain_seconds, _end_now)
    in_time.daemon = True
    in_time.start()


@signals.worker_shutdown.connect
def _shutdown(**_: Any) -> None:
    _heartbeat.stop()
    _database.close()


def _end_now() -> None:
    """Give the unit back and end the process, since the computation or the connection does not end in time."""
    try:
        _heartbeat.give_back()
        _heartbeat.stop()
    except Exception as error:  # noqa: BLE001 - whatever it is, this process ends; its lease runs out
        _log.warning("unit not given back", error=str(error))
    _log.warning("worker ends without waiting any longer", drain_seconds=config.drain_seconds)
    os._exit(0)

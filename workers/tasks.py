"""The Celery app of a worker process: ``celery -A workers.tasks worker --pool=solo``."""

import os
import secrets
import socket
from typing import Any

import structlog
from celery import signals

from occluscope.models.loading import best_device
from service.logs import configure_logs
from service.queue import RUN_UNIT, Queue, celery_app
from service.settings import settings
from service.store.database import Database
from workers.execution import Executor, describe_device
from workers.heartbeat import Heartbeat

config = settings()
app = celery_app(config)

_worker_id = f"{socket.gethostname()[:60]}-{os.getpid()}-{secrets.token_hex(3)}"
_database = Database(config.database_url)
_heartbeat = Heartbeat(_database, config, _worker_id, describe_device(best_device()))
_executor = Executor(config, _database, Queue(config), _worker_id, _heartbeat)
_log = structlog.get_logger(__name__)


@app.task(name=RUN_UNIT)
def run_unit(unit_id: str) -> None:
    """Do one unit of a job."""
    _executor.run(unit_id)


@signals.setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    configure_logs()


@signals.worker_ready.connect
def _ready(**_: Any) -> None:
    structlog.contextvars.bind_contextvars(worker=_worker_id)
    _heartbeat.start()
    _log.info("worker ready", device=describe_device(best_device()))


@signals.worker_shutting_down.connect
def _shutting_down(**_: Any) -> None:
    _executor.stopping.set()


@signals.worker_shutdown.connect
def _shutdown(**_: Any) -> None:
    _heartbeat.stop()
    _database.close()

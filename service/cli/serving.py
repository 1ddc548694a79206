"""Commands that serve: the whole stack of one machine, or each part on its own."""

import ipaddress
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError

from service.cli.consoles import console, errors
from service.queue import Queue
from service.running.logs import configure_logs
from service.running.stack import (
    StackError,
    api_command,
    migrate_once,
    running_stack,
    worker_command,
    worker_environment,
)
from service.settings import settings
from service.store.database import Database
from service.store.keys import owners_by_key
from service.upkeep.reconcile import Reconciler
from service.webhooks.deliver import Deliverer

KeepDays = Annotated[
    float | None, typer.Option(min=0, help="Delete jobs with their results so many days after they ended.")
]
MaxBytes = Annotated[
    int | None, typer.Option(min=0, help="Most that results and pictures may take; the first to end is deleted first.")
]


def up(
    port: Annotated[int, typer.Option(help="Port on the loopback address; 0 for a free one.")] = 8000,
    state_dir: Annotated[Path, typer.Option(help="Database and logs.")] = Path(".occluscope"),
    workers: Annotated[int, typer.Option(min=1, help="Worker processes, which share the cores.")] = 1,
    keep_days: KeepDays = None,
    max_bytes: MaxBytes = None,
) -> None:
    """Start broker, database, API and workers on this machine; Ctrl-C stops them all. A part that dies is restarted."""
    kept = {"keep_days": keep_days, "max_bytes": max_bytes}
    overrides = {name: value for name, value in kept.items() if value is not None}
    try:
        with console.status("Starting …") as status, running_stack(state_dir, port, workers, **overrides) as stack:
            status.stop()
            console.print(f"Occluscope is at {stack.url}. Ctrl-C stops it.")
            console.print(f"Database and logs are in {stack.state_dir}.", style="dim", soft_wrap=True)
            stack.supervise(lambda said: console.print(said, style="yellow", soft_wrap=True))
    except StackError as error:
        errors.print(str(error), style="red", soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("Stopped.")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    unprotected: Annotated[
        bool, typer.Option("--unprotected", help="Listen beyond this machine although there are no keys.")
    ] = False,
) -> None:
    """Run the API alone, with the database and broker of the settings. Beyond this machine only once there are keys."""
    if not unprotected and not _is_loopback(host) and not _has_keys():
        errors.print(
            f"{host} can be reached from other machines, and anybody there could use it: no key was made yet. "
            "Make one with 'occluscope keys add NAME', listen on 127.0.0.1, or say --unprotected.",
            style="red",
        )
        raise typer.Exit(2)
    command = api_command(settings(), f"{host}:{port}")
    os.execv(command[0], command)  # noqa: S606 - becomes the server, as a supervisor expects


def worker() -> None:
    """Run one worker, with the database and broker of the settings; start as many as there are GPUs."""
    threads, environment = settings().worker_threads, dict(os.environ)
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    command = worker_command()
    os.execve(command[0], command, worker_environment(environment))  # noqa: S606 - becomes the worker


def reconcile(keep_days: KeepDays = None, max_bytes: MaxBytes = None) -> None:
    """Run the reconciler: frees the units of dead workers, and announces units that wait unannounced.

    It deletes old jobs if the settings say so, and notifies webhooks. Any number of reconcilers may run at once.
    """
    configure_logs()
    kept = {"keep_days": keep_days, "max_bytes": max_bytes}
    config = settings().model_copy(update={name: value for name, value in kept.items() if value is not None})
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    database = Database(config.database_url)
    deliverer = threading.Thread(target=Deliverer(database, config).run, args=[stop], name="deliverer", daemon=True)
    deliverer.start()
    Reconciler(database, Queue(config), config).run(stop)
    deliverer.join(config.drain_seconds)
    sys.exit(0)


def migrate() -> None:
    """Bring the database of the settings to the newest schema."""
    migrate_once(settings())


def _has_keys() -> bool:
    """Whether the API requires keys. A database that is unreachable, or not migrated yet, has none."""
    database = Database(settings().database_url)
    try:
        with database.reading() as session:
            return bool(owners_by_key(session))
    except SQLAlchemyError:
        return False
    finally:
        database.close()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""Commands that serve: the whole stack of one machine, or each part on its own."""

import ipaddress
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from service.logs import configure_logs
from service.queue import Queue
from service.reconcile import reconcile_forever
from service.settings import settings
from service.stack import (
    StackError,
    api_command,
    migrate_once,
    running_stack,
    worker_command,
    worker_environment,
)
from service.store.database import Database

_errors = Console(stderr=True)


def up(
    port: Annotated[int, typer.Option(help="Port on the loopback address; 0 for a free one.")] = 8000,
    state_dir: Annotated[Path, typer.Option(help="Database and logs.")] = Path(".occluscope"),
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
) -> None:
    """Start broker, database, API and workers on this machine; Ctrl-C stops them all."""
    console = Console()
    try:
        with console.status("Starting …") as status, running_stack(state_dir, port, workers) as stack:
            status.stop()
            console.print(f"Occluscope is at [link={stack.url}]{stack.url}[/link]. Ctrl-C stops it.")
            console.print(f"Database and logs are in {stack.state_dir}.", style="dim")
            stack.wait()
    except StackError as error:
        _errors.print(f"[red]{error}[/red]")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("Stopped.")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    unprotected: Annotated[
        bool, typer.Option("--unprotected", help="Listen beyond this machine although no keys are needed.")
    ] = False,
) -> None:
    """Run the API alone, with the database and broker of the settings."""
    if not unprotected and not _is_loopback(host):
        _errors.print(
            f"[red]{host} can be reached from other machines, and the API asks for no keys. "
            "Listen on 127.0.0.1 behind a proxy that does, or say --unprotected.[/red]"
        )
        raise typer.Exit(2)
    command = api_command(settings(), f"{host}:{port}")
    os.execv(command[0], command)  # noqa: S606 - becomes the server, as a supervisor expects


def worker() -> None:
    """Run one worker, with the database and broker of the settings; start as many as there are GPUs."""
    command = worker_command()
    os.execve(command[0], command, worker_environment())  # noqa: S606 - becomes the worker


def reconcile() -> None:
    """Run the reconciler: units that nobody was told of, or whose worker died, are published again."""
    configure_logs()
    config, stop = settings(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    reconcile_forever(Database(config.database_url), Queue(config), config, stop)
    sys.exit(0)


def migrate() -> None:
    """Bring the database of the settings to the newest schema."""
    migrate_once(settings())


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

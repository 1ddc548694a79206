"""Commands that make and revoke keys, in the database of the settings."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

import typer
from rich.table import Table
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from service.cli.consoles import console, errors
from service.settings import settings
from service.store import keys as store
from service.store.database import Database, sqlite_file

_OWNER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")

app = typer.Typer(
    help="Make, list and revoke keys. Once there has been one, the API asks for one.", no_args_is_help=True
)


def _checked_owner(name: str) -> str:
    if not _OWNER.fullmatch(name):
        raise typer.BadParameter("up to 100 letters, digits and . _ @ -, the first a letter or digit")
    return name


@app.command()
def add(
    owner: Annotated[str, typer.Argument(callback=_checked_owner, help="Whose it is; one owner may have several.")],
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Give this owner what was submitted while there were no keys.")
    ] = False,
) -> None:
    """Make a key and print it; it is shown this once."""
    with _database() as database, database.writing() as session:
        key = store.add_key(session, owner)
        adopted = store.adopt(session, owner) if adopt else 0
    console.print(key, highlight=False, soft_wrap=True)
    errors.print(f"The key of {owner}. Keep it: it is not shown again, and only its hash is stored.", style="dim")
    if adopted:
        errors.print(f"{adopted} jobs are {owner}'s now.", style="dim")


@app.command("list")
def list_all() -> None:
    """List the keys by their ids; the keys themselves are not stored."""
    table = Table("id", "owner", "made", "revoked")
    with _database() as database, database.reading() as session:
        for key in store.list_keys(session):
            revoked = f"{key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else ""
            table.add_row(key.id, key.owner, f"{key.created_at:%Y-%m-%d %H:%M}", revoked)
    console.print(table)


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="A key's id, from `keys list`.")]) -> None:
    """End a key, within two seconds. Its owner's jobs stay and go on."""
    with _database() as database, database.writing() as session:
        revoked = store.revoke_key(session, key_id) is not None
    if not revoked:
        errors.print(f"there is no key {key_id}; see 'occluscope keys list'", style="red")
        raise typer.Exit(1)


@contextmanager
def _database() -> Iterator[Database]:
    url = settings().database_url
    file = sqlite_file(url)
    if file and not file.exists():
        errors.print(
            f"there is no database {file}: go to the folder in which the service was started, or set "
            "OCCLUSCOPE_DATABASE_URL. `occluscope up`, or `occluscope migrate`, makes it.",
            style="red",
            soft_wrap=True,
        )  # fmt: skip
        raise typer.Exit(1)
    database = Database(url)
    try:
        yield database
    except SQLAlchemyError as error:
        errors.print(
            f"the database {make_url(url).render_as_string()} cannot be used: {error.__cause__ or error}. "
            "Is it the service's own? OCCLUSCOPE_DATABASE_URL says which; `occluscope migrate` brings it up to date.",
            style="red",
            soft_wrap=True,
        )  # fmt: skip
        raise typer.Exit(1) from None
    finally:
        database.close()

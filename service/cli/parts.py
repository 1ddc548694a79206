"""Commands that make the `parts` of the correspondence analysis."""

import json
from pathlib import Path
from typing import Annotated

import typer

from occluscope.analyses.correspondence.coco import parts_from_coco

app = typer.Typer(help="Make the parts of the correspondence analysis.", no_args_is_help=True)


@app.callback()
def parts() -> None:
    """Make the parts of the correspondence analysis."""


@app.command("from-coco")
def from_coco(
    annotations: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A JSON file in COCO's format.")],
    image: Annotated[list[str], typer.Option(help="A picture's file name; repeat, in the job's order.")],
    share: Annotated[
        float, typer.Option(min=0.01, max=2, help="Side of a keypoint's square, as a share of the object's box.")
    ] = 0.2,
) -> None:
    """Print the parts of pictures, for `submit correspondence --param parts=@FILE`."""
    try:
        found = parts_from_coco(json.loads(annotations.read_text(encoding="utf-8")), image, share)
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    typer.echo(json.dumps(found, indent=1))

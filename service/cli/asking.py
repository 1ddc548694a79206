"""Commands that ask a running service, at ``OCCLUSCOPE_URL`` or port 8000 on this machine.

Where the service needs a key, it is taken from ``OCCLUSCOPE_API_KEY``.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table

from occluscope.client import Client, Job, Results
from occluscope.errors import OccluscopeError
from occluscope.file_names import unique_names
from occluscope.report import Chapter, write_report
from service.cli.consoles import console, errors

_DEFAULT_MODEL: Final = "efficientnet_lite0"
_OVERWRITE: Final = "Write into the folder though there are files in it already."


def submit(
    analysis: Annotated[str, typer.Argument(help="Name of an analysis (see `analyses`).")],
    image: Annotated[list[Path], typer.Option(exists=True, dir_okay=False, help="A picture; repeat for more.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Name of a model (see `models`), {_DEFAULT_MODEL} if none is named; repeat to compare several."
        ),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option(help="name=value; the value as JSON, plain text, or @FILE with JSON.")
    ] = None,
    priority: Annotated[
        str | None, typer.Option(help="interactive or batch; interactive, which has three turns of four, if you wait.")
    ] = None,
    webhook: Annotated[
        str | None, typer.Option(help="URL to notify when the job has ended (see `webhook-secret`).")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until it has ended, then its numbers.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Wait as with --wait, and write the results into this folder.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=_OVERWRITE)] = False,
) -> None:
    """Submit a job."""
    _check_folder(output, overwrite=overwrite)
    with _client() as client:
        ids = [client.upload(path).id for path in image]
        models = model or [_DEFAULT_MODEL]
        asked = models[0] if len(models) == 1 else models
        urgency = priority or ("interactive" if wait or output else "batch")
        params = dict(_param(text) for text in param or [])
        job = client.submit(analysis, asked, ids, params, priority=urgency, webhook=webhook)
        console.print(job.id, highlight=False)
        if not (wait or output):
            return
        job = wait_with_progress(client, job.id)
        names = dict(zip(ids, unique_names(path.stem for path in image), strict=True))
        _print_results(client.results(job.id), names)
        if output:
            written = write_report(client, output, None, [Chapter(job.id, names=names)])
            console.print(f"{len(written)} files; open {output / 'index.html'}", soft_wrap=True)
    if job.state != "succeeded":
        errors.print(f"{job.state}: {job.error}", style="red", soft_wrap=True)
        raise typer.Exit(1)


def jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    analysis: Annotated[str | None, typer.Option(help="Only jobs of this analysis.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="The jobs as one JSON document.")] = False,
) -> None:
    """List jobs, newest first."""
    with _client() as client:
        found = list(islice(client.jobs(state, analysis), limit))
    if as_json:
        console.print_json(json.dumps([job.model_dump(mode="json") for job in found]))
        return
    whole = [Column(name, no_wrap=True, min_width=width) for name, width in (("id", 32), ("state", 9), ("progress", 9))]
    table = Table(*whole, "analysis", "model", "created", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0))
    for job in found:
        done = f"{job.progress.done}/{job.progress.total}"
        models_of_job = ", ".join(job.models)
        table.add_row(job.id, job.state, done, job.analysis, models_of_job, _moment(job.created_at))
    console.print(table)


def show(
    job_id: Annotated[str, typer.Argument(help="A job's id.")],
    as_json: Annotated[bool, typer.Option("--json", help="The job and its numbers as one JSON document.")] = False,
) -> None:
    """Show a job and the numbers it gave."""
    with _client() as client:
        job = client.job(job_id)
        if as_json:
            metrics = client.results(job_id).model_dump(mode="json")["metrics"]
            console.print_json(json.dumps({**job.model_dump(mode="json"), "metrics": metrics}))
            return
        facts = Table("field", "value")
        for name, value in job.model_dump(mode="json").items():
            facts.add_row(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        console.print(facts)
        names = {image: f"image-{number}" for number, image in enumerate(job.images, start=1)}
        _print_results(client.results(job_id), names)


def download(
    job_id: Annotated[str, typer.Argument(help="A job's id.")],
    output: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("occluscope-results"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help=_OVERWRITE)] = False,
) -> None:
    """Write a job's results into a folder: pictures, overlays, arrays, tables, metrics.json, and index.html."""
    _check_folder(output, overwrite=overwrite)
    with _client() as client:
        for path in client.save_results(job_id, output):
            console.print(path, highlight=False, soft_wrap=True)


def cancel(
    job_id: Annotated[str, typer.Argument(help="A job's id.")],
) -> None:
    """End a job that has not ended; what is finished stays."""
    with _client() as client:
        console.print(client.cancel(job_id).state)


def delete(job_id: Annotated[str, typer.Argument(help="A job's id.")]) -> None:
    """Delete a job with its results."""
    with _client() as client:
        client.delete(job_id)


def webhook_secret() -> None:
    """Print what deliveries to your webhooks are signed with (https://www.standardwebhooks.com)."""
    with _client() as client:
        console.print(client.webhook_secret(), highlight=False)


def models(
    name: Annotated[str | None, typer.Argument(help="A model's name, for its labels and layers.")] = None,
) -> None:
    """List the models, or show one."""
    with _client() as client:
        if name:
            console.print_json(json.dumps(client.model(name)))
            return
        table = Table("name", "source", "input", "classes")
        for model in client.models():
            height, width = model["input_size"]
            table.add_row(model["name"], model["source"], f"{height} × {width}", str(model["classes"]))
    console.print(table)


def analyses(
    as_json: Annotated[bool, typer.Option("--json", help="The analyses as one JSON document.")] = False,
) -> None:
    """List the analyses with their parameters and results."""
    with _client() as client:
        if as_json:
            console.print_json(json.dumps(client.analyses()))
            return
        for analysis in client.analyses():
            console.print(f"{analysis['name']}: {analysis['summary']}")
            table = Table("parameter", "default", "meaning")
            for name, schema in analysis["parameters"]["properties"].items():
                table.add_row(name, json.dumps(schema.get("default")), schema.get("description", ""))
            console.print(table)
            table = Table("result", "kind", "meaning")
            for result in analysis["results"]:
                table.add_row(result["name"], result["kind"], result["description"])
            console.print(table)


def wait_with_progress(client: Client, job_id: str) -> Job:
    """Draw a progress bar with the service's own estimate of the time left, until the job has ended."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("queued", total=None, left="")

        def draw(job: Job) -> None:
            eta = job.progress.eta_seconds
            left = f"{eta:.0f} s left" if eta and not job.ended else ""
            bar.update(
                task,
                description=job.state,
                total=job.progress.total,
                completed=job.progress.done,
                left=left,
                refresh=True,
            )

        return client.wait(job_id, draw)


@contextmanager
def _client() -> Iterator[Client]:
    """A client whose errors are printed in one line each, not as a traceback."""
    try:
        with Client() as client:
            yield client
    except OccluscopeError as error:
        errors.print(str(error), style="red", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


def _check_folder(folder: Path | None, *, overwrite: bool) -> None:
    """Refuse a folder that is not empty: the results of two jobs would be mixed."""
    if folder is None or overwrite:
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise typer.BadParameter(
            f"{folder} is not an empty folder; name another, or add --overwrite", param_hint="--output"
        )


def _param(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"'{text}' is not name=value", param_hint="--param")
    if value.startswith("@"):
        try:
            return name, json.loads(Path(value[1:]).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise typer.BadParameter(f"{value[1:]}: {error}", param_hint="--param") from None
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _print_results(results: Results, names: dict[str, str]) -> None:
    with_variants = any(metric.variant for metric in results.metrics)
    with_models = len({metric.model for metric in results.metrics}) > 1
    table = Table(
        "image", *(["model"] if with_models else []), "metric", *(["of"] if with_variants else []), "value", "unit"
    )
    for metric in results.metrics:
        variant = [str(metric.variant)] if with_variants else []
        model = [metric.model] if with_models else []
        name = names.get(metric.image or "", "")
        table.add_row(name, *model, metric.name, *variant, f"{metric.value:.6g}", metric.unit or "")
    if table.rows:
        console.print(table)


def _moment(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")

"""Writes jobs' results into one folder, with an ``index.html`` that shows them and needs no server."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, select_autoescape

from occluscope.client import Artifact, Client, Job, Metric, Results
from occluscope.file_names import METRICS, PAGE, file_names, file_stems

_FETCHED_AT_ONCE: Final = 4  # files that are downloaded at a time, so that the service stays free for other requests


@dataclass(frozen=True)
class Chapter:
    """One job of a report.

    paragraphs: text above its pictures. names: of its pictures, by id. shown: names of the results that are shown
    unfolded; None shows all.
    """

    job_id: str
    paragraphs: Sequence[str] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    shown: Sequence[str] | None = None


def write_report(client: Client, folder: Path, title: str | None, chapters: Sequence[Chapter]) -> list[Path]:
    """Save each job's results and write ``index.html``. Several jobs are saved in a folder each.

    title: of the page; by default the first job's analysis. Returns the files written, the page last.
    """
    analyses = {analysis["name"]: analysis for analysis in client.analyses()}
    written: list[Path] = []
    contents = []
    for number, chapter in enumerate(chapters, start=1):
        job = client.job(chapter.job_id)
        title = title or f"{job.analysis.capitalize()} of {', '.join(job.models)}"
        numbered = {image: f"image-{place}" for place, image in enumerate(job.images, start=1)}
        names = {**numbered, **chapter.names}
        below = f"{number}-{job.analysis}/" if len(chapters) > 1 else ""
        found = client.results(job.id)  # read once, since a running job has more each time
        results = Results(metrics=found.metrics, artifacts=[one for one in found.artifacts if not one.preview])
        stems = file_stems(results.artifacts, job, names)
        written += _save(client, results, folder / below, names, stems)
        stems = {which: below + stem for which, stem in stems.items()}
        contents.append(_content(job, results, analyses[job.analysis], chapter, names, stems))
    environment = Environment(
        loader=PackageLoader("occluscope", "templates"), autoescape=select_autoescape(), trim_blocks=True
    )
    environment.filters["seconds"] = _seconds
    page = folder / PAGE
    page.write_text(environment.get_template("report.html").render(title=title, chapters=contents), encoding="utf-8")
    return [*written, page]


def _save(
    client: Client, results: Results, folder: Path, names: Mapping[str, str], stems: Mapping[str, str]
) -> list[Path]:
    """Write every result in every format, its overlay, and the numbers; several files are downloaded at a time."""
    folder.mkdir(parents=True, exist_ok=True)

    def fetch(file: tuple[str, Artifact, str, dict[str, int]]) -> Path:
        name, artifact, form, options = file
        path = folder / name
        path.write_bytes(client.download(artifact, form, **options))
        return path

    files = [
        (name, artifact, form, options)
        for artifact in results.artifacts
        for name, (form, options) in file_names(artifact, stems[artifact.id]).items()
    ]
    with ThreadPoolExecutor(_FETCHED_AT_ONCE) as pool:
        written = list(pool.map(fetch, files))  # on the first error, downloads that have not begun are cancelled
    metrics = [{**metric.model_dump(), "image": names.get(metric.image or "")} for metric in results.metrics]
    (folder / METRICS).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    return [*written, folder / METRICS]


def _content(
    job: Job,
    results: Results,
    analysis: dict[str, Any],
    chapter: Chapter,
    names: Mapping[str, str],
    stems: Mapping[str, str],
) -> dict[str, Any]:
    """A chapter in the form that the template needs."""
    titles = {spec["name"]: spec for spec in [*analysis["results"], *analysis["metrics"]]}
    order = {name: place for place, name in enumerate(titles)}
    groups: dict[str, list[dict[str, Any]]] = {}
    places = {image: place for place, image in enumerate(job.images)}
    shown = sorted(
        results.artifacts, key=lambda one: (order.get(one.name, len(order)), places.get(one.image or "", -1))
    )
    for artifact in shown:
        groups.setdefault(artifact.name, []).append(_picture(artifact, job, names, stems[artifact.id]))
    return {
        "title": analysis["title"],
        "summary": analysis["summary"],
        "paragraphs": chapter.paragraphs,
        "job": job,
        "groups": [
            {
                "title": titles[name]["title"] if name in titles else name.replace("_", " "),
                "description": titles[name]["description"] if name in titles else "",
                "open": chapter.shown is None or name in chapter.shown,
                "pictures": pictures,
            }
            for name, pictures in groups.items()
        ],
        "metrics": [_number(metric, titles, names) for metric in results.metrics],
        "with_models": len(job.models) > 1,
    }


def _picture(artifact: Artifact, job: Job, names: Mapping[str, str], stem: str) -> dict[str, Any]:
    model = artifact.model if len(job.models) > 1 else None
    caption = " · ".join(text for text in (names.get(artifact.image or ""), model, str(artifact.variant)) if text)
    return {
        "caption": caption,
        "kind": artifact.kind,
        "src": f"{stem}-overlay.png" if artifact.on_picture else f"{stem}.png",
        "files": {form.upper(): f"{stem}.{form}" for form in artifact.formats},
    }


def _number(metric: Metric, titles: Mapping[str, dict[str, Any]], names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "title": titles[metric.name]["title"] if metric.name in titles else metric.name,
        "picture": names.get(metric.image or "", ""),
        "model": metric.model,
        "variant": str(metric.variant),
        "value": f"{metric.value:.4g}",
        "unit": metric.unit or "",
    }


def _seconds(job: Job) -> str:
    """The time that the job ran, in seconds."""
    start, end = job.started_at, job.finished_at
    return f"{(end - start).total_seconds():.1f} s" if isinstance(start, datetime) and isinstance(end, datetime) else ""

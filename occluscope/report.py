"""Jobs' results in one folder, with an ``index.html`` that tells them and opens without a server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from occluscope.client import Artifact, Client, Job, Metric, Results, file_stem


@dataclass(frozen=True)
class Chapter:
    """One job of a report.

    told: paragraphs above its pictures. names: what to call its pictures, by id. shown: results that are opened at
    once, by name; none: all.
    """

    job_id: str
    told: Sequence[str] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    shown: Sequence[str] | None = None


def write_report(client: Client, folder: Path, title: str, chapters: Sequence[Chapter]) -> list[Path]:
    """Save each job's results and write ``index.html`` over them; several jobs each in a folder of its own.

    Returns the files written.
    """
    analyses = {analysis["name"]: analysis for analysis in client.analyses()}
    written: list[Path] = []
    told = []
    for number, chapter in enumerate(chapters, start=1):
        job = client.job(chapter.job_id)
        names = dict(chapter.names) or {image: f"image-{place}" for place, image in enumerate(job.images, start=1)}
        below = f"{number}-{job.analysis}/" if len(chapters) > 1 else ""
        written += client.save_results(job.id, folder / below, names)
        told.append(_told(job, client.results(job.id), analyses[job.analysis], chapter, names, below))
    environment = Environment(
        loader=PackageLoader("occluscope", "templates"), autoescape=select_autoescape(), trim_blocks=True
    )
    environment.filters["seconds"] = _seconds
    page = folder / "index.html"
    page.write_text(environment.get_template("report.html").render(title=title, chapters=told), encoding="utf-8")
    return [*written, page]


def _told(
    job: Job, results: Results, analysis: dict[str, Any], chapter: Chapter, names: Mapping[str, str], below: str
) -> dict[str, Any]:
    """A chapter as the template wants it."""
    titles = {spec["name"]: spec for spec in [*analysis["results"], *analysis["metrics"]]}
    order = {name: place for place, name in enumerate(titles)}
    groups: dict[str, list[dict[str, Any]]] = {}
    artifacts = [artifact for artifact in results.artifacts if not artifact.preview]
    places = {image: place for place, image in enumerate(job.images)}
    artifacts.sort(key=lambda one: (order.get(one.name, len(order)), places.get(one.image or "", -1)))
    for artifact in artifacts:
        groups.setdefault(artifact.name, []).append(_picture(artifact, job, names, below))
    return {
        "title": analysis["title"],
        "summary": analysis["summary"],
        "told": chapter.told,
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


def _picture(artifact: Artifact, job: Job, names: Mapping[str, str], below: str) -> dict[str, Any]:
    stem = below + file_stem(artifact, job, names)
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
    """How long the job ran."""
    start, end = job.started_at, job.finished_at
    return f"{(end - start).total_seconds():.1f} s" if isinstance(start, datetime) and isinstance(end, datetime) else ""

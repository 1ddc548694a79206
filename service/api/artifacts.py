"""``/v1/artifacts``: one result, as picture, array, JSON or CSV."""

import hashlib
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, NamedTuple

from flask import Response, request
from flask_openapi3 import APIBlueprint, Tag
from pydantic import AfterValidator, Field
from sqlalchemy.orm import Session

from occluscope import __version__, analyses, pictures
from occluscope.errors import FieldError
from occluscope.rendering import COLORMAPS, DrawingOptions, render_png
from occluscope.results import KINDS, Result
from service import large_pictures
from service.api.auth import PROTECTED, owner
from service.api.context import IdPath, Strict, context
from service.api.problems import documented, invalid, not_found, problem
from service.store.database import Database
from service.store.images import image_content
from service.store.jobs import find_job
from service.store.results import find_artifact
from service.store.tables import Artifact, Image, Job
from service.store.units import stored_result

blueprint = APIBlueprint(
    "artifacts", __name__, url_prefix="/v1/artifacts", abp_tags=[Tag(name="artifacts")], **PROTECTED
)

MEDIA_TYPES: Final = {
    "png": "image/png",
    "npy": "application/x-npy",
    "json": "application/json",
    "csv": "text/csv",
}


def _known_colormap(name: str) -> str:
    if name not in COLORMAPS:
        raise ValueError("not one of matplotlib's colour maps, such as viridis, inferno or RdBu_r")
    return name


class ArtifactQuery(Strict):
    """How to give the result; all but `format` speak of its picture."""

    format: Literal["png", "npy", "json", "csv"] | None = Field(default=None, description="Wins over the Accept header")
    overlay: bool = Field(default=False, description="Lay it over the original picture")
    alpha: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        default=DrawingOptions.alpha, description="Opacity of an overlay's map"
    )
    colormap: Annotated[str, AfterValidator(_known_colormap)] | None = Field(
        default=None, description="A matplotlib colour map; without it the values decide"
    )
    size: Annotated[int, Field(ge=64, le=4096)] | None = Field(
        default=None, description="Longer side of an overlay's picture, or width of a figure; pixels"
    )


@blueprint.get(
    "/<id>",
    summary="Download a result",
    responses={
        200: {
            "description": "The result in the wanted format",
            "content": {
                media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in MEDIA_TYPES.values()
            },
        },
        304: {"description": "As `If-None-Match` has it"},
        **documented(404, 406, 422),
    },
)
def show(path: IdPath, query: ArtifactQuery) -> Response:
    """PNG by default; results never change, so they may be kept for good."""
    with context().database.reading() as session:
        artifact = find_artifact(session, path.id)
        if artifact is None or find_job(session, artifact.job_id, owner()) is None:
            return not_found("artifact")
        offered = KINDS[artifact.kind].formats
        wanted = query.format or _negotiated(offered)
        if wanted not in offered:
            detail = f"A {artifact.kind} is given as {', '.join(offered)}."
            return problem(HTTPStatus.NOT_ACCEPTABLE, detail)
        response = Response(mimetype=MEDIA_TYPES[wanted])
        response.set_etag(_etag(artifact, wanted, query))
        response.vary.update(
            ("Accept", "Authorization", "Cookie")
        )  # cached for this client, not for the next who signs in
        response.cache_control.private = True
        response.cache_control.immutable = True
        response.cache_control.max_age = 365 * 24 * 3600
        if request.if_none_match.contains(response.get_etag()[0] or ""):
            response.status_code = HTTPStatus.NOT_MODIFIED
            return response
        if wanted == "png" and query.overlay and (refusal := _why_no_overlay(artifact)):
            return invalid([FieldError("overlay", refusal)])
        content = _content(session, artifact, wanted, query)
        filename = f"{artifact.name}-{artifact.id[:8]}.{wanted}"
    response.set_data(content())  # after the transaction, since large pictures wait for each other
    response.headers["Content-Disposition"] = f'inline; filename="{filename}"'
    return response


def _negotiated(offered: tuple[str, ...]) -> str | None:
    """The client's first choice among what the kind offers; on a tie the kind's own order."""
    media_types = {MEDIA_TYPES[name]: name for name in offered}
    best = request.accept_mimetypes.best_match(list(media_types)) if request.accept_mimetypes else None
    if best is None:
        return None if request.accept_mimetypes else offered[0]
    return media_types[best]


def _etag(artifact: Artifact, wanted: str, query: ArtifactQuery) -> str:
    drawn = query.model_dump(exclude={"format"}) if wanted == "png" else {}
    facts = [artifact.sha256, wanted, drawn, __version__]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _content(session: Session, artifact: Artifact, wanted: str, query: ArtifactQuery) -> Callable[[], bytes | str]:
    """Read what the answer is made from; return the function that makes it, which at most reads the picture."""
    if wanted == "npy":
        array = artifact.array
        assert array is not None  # noqa: S101 - every kind that is given as NPY has one
        return lambda: array  # it is stored as NPY
    result = stored_result(artifact)
    if wanted == "csv":
        return result.to_csv
    if wanted == "json":
        return lambda: json.dumps(result.to_json())
    title = _title(session, artifact)
    original = _original(session, artifact.image_id) if query.overlay and artifact.image_id else None
    database = context().database
    return lambda: _picture(database, result, title, original, query)


def _why_no_overlay(artifact: Artifact) -> str | None:
    """Why the result cannot be laid over a picture; None if it can."""
    if not KINDS[artifact.kind].on_picture:
        return f"a {artifact.kind} cannot be laid over a picture"
    return None if artifact.image_id else "this result belongs to no single picture"


class _Original(NamedTuple):
    """The picture that an overlay is laid on. size: width and height, upright."""

    id: str
    size: tuple[int, int]


def _original(session: Session, image_id: str) -> _Original | None:
    image = session.get(Image, image_id)
    return _Original(image.id, (image.width, image.height)) if image else None


def _picture(database: Database, result: Result, title: str, original: _Original | None, query: ArtifactQuery) -> bytes:
    """Draw the result; the original is decoded as small as the drawing allows."""
    options = DrawingOptions(**query.model_dump(exclude={"format"}))
    drawn = (query.size or 0) ** 2
    content = image_content(database, original.id) if original else None
    if original is None or content is None:
        with large_pictures.turn(drawn):
            return render_png(result, options, title)
    with large_pictures.turn(max(drawn, pictures.pixels_of(content, query.size))):
        return render_png(result, options, title, pictures.decode(content, query.size), original.size)


def _title(session: Session, artifact: Artifact) -> str:
    """What the result's analysis calls it."""
    job: Any = session.get_one(Job, artifact.job_id)
    titles = {result.name: result.title for result in analyses.spec(job.analysis).results}
    title = titles.get(artifact.name, artifact.name)
    return f"{title} · {artifact.variant}" if artifact.variant else title

"""Answers: made from rows, sent as JSON, and with 304 if the client has them already."""

import json
from http import HTTPStatus
from typing import Any, Final, TypeVar

from flask import Response, request
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

Shown = TypeVar("Shown", bound=BaseModel)
UNCHANGED: Final[dict[int | str, Any]] = {304: {"description": "As `If-None-Match` has it"}}  # for the OpenAPI document


def view(shown: type[Shown], row: object, **given: Any) -> Shown:
    """Make an object of `occluscope.wire` from a row: each field from the row's attribute of the same name.

    given: fields that the row does not have, or has in another form.
    """
    found = {name: getattr(row, name) for name in shown.model_fields if name not in given}
    return shown(**found, **given)


def answer(content: BaseModel, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """A response with this content as JSON."""
    try:
        text = content.model_dump_json()  # a page of results in a sixth of json.dumps' time
    except (
        PydanticSerializationError
    ):  # half of a surrogate pair in a job's parameters, which JSON can only have escaped
        text = json.dumps(content.model_dump(mode="json"), separators=(",", ":"))
    return Response(text, status, mimetype="application/json")


def is_known(etag: str) -> bool:
    """Whether the client already has the answer with this ETag."""
    return request.if_none_match.contains_weak(etag)


def unchanged(etag: str, *, weak: bool = False) -> Response:
    """A 304: the client's answer is still right."""
    return revalidated(Response(status=HTTPStatus.NOT_MODIFIED), etag, weak=weak)


def revalidated(response: Response, etag: str, *, weak: bool = False) -> Response:
    """Let the client cache this answer and revalidate it. weak: answers with this ETag may differ in bytes."""
    response.set_etag(etag, weak=weak)
    response.vary.update(("Authorization", "Cookie"))
    response.cache_control.private = True
    response.cache_control.no_cache = True
    return response

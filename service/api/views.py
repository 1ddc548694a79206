"""Answers: made from rows, sent as JSON, and sent again only when they have changed."""

import json
from http import HTTPStatus
from typing import Any, Final, TypeVar

from flask import Response, request
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

Shown = TypeVar("Shown", bound=BaseModel)
UNCHANGED: Final[dict[int | str, Any]] = {304: {"description": "As `If-None-Match` has it"}}  # for the OpenAPI document


def view(shown: type[Shown], row: object, **given: Any) -> Shown:
    """A row as `occluscope.wire` has it, each field from the attribute of its name.

    given: fields that the row does not have, or has otherwise.
    """
    found = {name: getattr(row, name) for name in shown.model_fields if name not in given}
    return shown(**found, **given)


def answer(content: BaseModel, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """The response that has it as JSON."""
    try:
        text = content.model_dump_json()  # a page of results in a sixth of json.dumps' time
    except PydanticSerializationError:  # half of a surrogate pair in a job's parameters: JSON has it only escaped
        text = json.dumps(content.model_dump(mode="json"), separators=(",", ":"))
    return Response(text, status, mimetype="application/json")


def is_known(etag: str) -> bool:
    """Whether whoever asks has the answer of this ETag."""
    return request.if_none_match.contains_weak(etag)


def unchanged(etag: str, *, weak: bool = False) -> Response:
    """Says that the answer which is known still holds."""
    return revalidated(Response(status=HTTPStatus.NOT_MODIFIED), etag, weak=weak)


def revalidated(response: Response, etag: str, *, weak: bool = False) -> Response:
    """The response of an owner, to be kept and asked for again. weak: equal ETags stand for what means the same."""
    response.set_etag(etag, weak=weak)
    response.vary.update(("Authorization", "Cookie"))
    response.cache_control.private = True
    response.cache_control.no_cache = True
    return response

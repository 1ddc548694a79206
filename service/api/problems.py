"""Every error as ``application/problem+json`` (RFC 9457); nothing internal leaks."""

import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

import structlog
from flask import Flask, Response, make_response, request
from pydantic import ValidationError
from sqlalchemy.exc import InterfaceError, OperationalError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.routing import RequestRedirect

from occluscope.analyses.contract import field_errors
from occluscope.errors import FieldError, InvalidInputError
from occluscope.wire import FieldProblem, Problem
from service.api.bodies import broken_limit
from service.large_pictures import TooManyLargePicturesError
from service.store.database import is_disk_full

MEDIA_TYPE: Final = "application/problem+json"
MAX_ERRORS: Final = 100  # fields that an answer lists; beyond that it says how many there are
_MAX_LETTERS: Final = 500  # of a field's path and of its message: clients choose the names of their fields
_log = structlog.get_logger(__name__)


def problem(status: int, detail: str, errors: Iterable[FieldError] = ()) -> Response:
    """A problem response; of very many errors it lists the first and says how many there are."""
    found = list(errors)
    if len(found) > MAX_ERRORS:
        detail = f"{detail} There are {len(found):,} of them; the first {MAX_ERRORS} are listed."
    content = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        errors=[FieldProblem(path=_cut(one.path), message=_cut(one.message)) for one in found[:MAX_ERRORS]],
    )
    response = make_response(json.dumps(content.model_dump()), status)  # a lone surrogate in a message is escaped
    response.content_type = MEDIA_TYPE
    return response


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_LETTERS else f"{text[:_MAX_LETTERS]}…"


def invalid(errors: Iterable[FieldError]) -> Response:
    """422 with the fields that break a rule."""
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "Fields of the request break a rule.", errors)


def not_found(what: str) -> Response:
    """404."""
    return problem(HTTPStatus.NOT_FOUND, f"There is no such {what}.")


def invalid_request(error: ValidationError) -> Response:
    """422 from pydantic's findings on path, query or body."""
    return invalid(field_errors(error))


def documented(*statuses: int) -> dict[int | str, Any]:
    """The problem responses of an operation, for the OpenAPI document."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        str(int(status)): {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }


def register(app: Flask) -> None:
    """Answer every error of the app with a problem document."""
    app.before_request(_no_redirection)
    app.register_error_handler(TooManyLargePicturesError, _too_many_large_pictures)

    @app.errorhandler(InvalidInputError)
    def _invalid_input(error: InvalidInputError) -> Response:
        return invalid(error.errors)

    @app.errorhandler(RequestEntityTooLarge)
    def _too_large(_error: RequestEntityTooLarge) -> Response:
        return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, broken_limit(request))

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        if error.response is not None and error.code is None:
            return make_response(error.response)
        answer = problem(error.code or HTTPStatus.INTERNAL_SERVER_ERROR, error.description or "")
        for name, value in error.get_headers():
            if name.lower() in ("allow", "retry-after"):
                answer.headers[name] = value
        return answer

    @app.errorhandler(OperationalError)
    @app.errorhandler(InterfaceError)
    def _database(error: OperationalError | InterfaceError) -> Response:
        if is_disk_full(error):
            _log.error("no space left", error=str(error.orig))
            return problem(
                HTTPStatus.INSUFFICIENT_STORAGE,
                "No space is left to store this; nothing was stored. Delete jobs, or have old ones deleted.",
            )
        _log.error("database out of reach", error=str(error.orig))
        answer = problem(HTTPStatus.SERVICE_UNAVAILABLE, "The database is out of reach; try again.")
        answer.headers["Retry-After"] = "2"
        return answer

    @app.errorhandler(Exception)
    def _unexpected(error: Exception) -> Response:
        _log.exception("unexpected error", error=type(error).__name__)
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong here; it has been logged.")


def _no_redirection() -> Response | None:
    """Answer 404 for another spelling of an address, such as one with a further slash."""
    return not_found("address") if isinstance(request.routing_exception, RequestRedirect) else None


def _too_many_large_pictures(_error: TooManyLargePicturesError) -> Response:
    answer = problem(HTTPStatus.SERVICE_UNAVAILABLE, "Too many large pictures are worked on just now; try again.")
    answer.headers["Retry-After"] = "5"
    return answer

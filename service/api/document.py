"""The OpenAPI document: beside what each operation says of itself, the problems that any request may meet."""

from http import HTTPStatus
from typing import Any, Final

from service.api.problems import documented

_ANY: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE)
_CHANGING: Final = (
    HTTPStatus.FORBIDDEN,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.INSUFFICIENT_STORAGE,
)
_UNPROCESSABLE: Final = str(HTTPStatus.UNPROCESSABLE_ENTITY.value)


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with these, and without the 422 of operations that have nothing which could be wrong."""
    for operations in document["paths"].values():
        for method, operation in operations.items():
            responses = operation["responses"]
            parts = {one["in"] for one in operation.get("parameters", [])} - {"path"}  # any text is an id, of nothing
            del responses[_UNPROCESSABLE]
            found = [*_ANY, *(_CHANGING if method != "get" else ())]
            if parts or "requestBody" in operation:
                found.append(HTTPStatus.UNPROCESSABLE_ENTITY)
            operation["responses"] = dict(sorted((documented(*found) | responses).items()))
    return document

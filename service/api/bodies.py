"""Bodies of requests: JSON within a limit of size; invalid JSON is refused with the place of the error."""

import json
from typing import Any

from flask import Request
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from service.api.context import context


class ApiRequest(Request):
    """A request whose operations take JSON or a form."""

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:  # noqa: ARG002
        """The body as JSON. It raises also if asked to be silent, since nothing else would report the error."""
        if not self.is_json:
            raise UnsupportedMediaType("Send the request's body as application/json.")
        self.max_content_length = context().settings.max_json_bytes
        try:
            return json.loads(self.get_data())
        except RecursionError:
            raise BadRequest("The request's JSON is nested too deeply.") from None
        except ValueError as error:
            raise BadRequest(f"The request's body is no JSON: {error}.") from None


def broken_limit(request: Request) -> str:
    """The limit that a body refused for its size is over."""
    most, length = request.max_content_length, request.content_length
    if most is None or (length is not None and length <= most):
        return (
            f"The form is over its limits ({request.max_form_memory_size or 0:,} bytes of text, "
            f"{request.max_form_parts or 0:,} parts)."
        )
    return f"The request's body is over its limit ({most:,} bytes)."

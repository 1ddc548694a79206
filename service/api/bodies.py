"""Requests' bodies: JSON is read within its limit, and one that is none is refused with where it breaks."""

import json
from typing import Any

from flask import Request
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from service.api.context import context


class ApiRequest(Request):
    """A request whose operations take JSON or a form, and nothing half read."""

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:  # noqa: ARG002
        """The body as JSON; whoever asks silently is told as well, since nothing else would say what is wrong."""
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
    """Which limit a body is over, that was refused for its size."""
    most, length = request.max_content_length, request.content_length
    if most is None or (length is not None and length <= most):
        return (
            f"The form is over its limits ({request.max_form_memory_size or 0:,} bytes of text, "
            f"{request.max_form_parts or 0:,} parts)."
        )
    return f"The request's body is over its limit ({most:,} bytes)."

"""Authentication: the owner whose key a request carries, in a header or, from a browser, as a cookie.

As long as no key was ever made, none is needed, and everything belongs to the owner without a name.
"""

from http import HTTPStatus
from typing import Any, Final

import structlog
from flask import Flask, Response, g, request
from flask_openapi3 import APIBlueprint, Tag
from pydantic import Field

from occluscope import wire
from occluscope.errors import FieldError
from service.api.context import Strict, context
from service.api.problems import documented, invalid, problem
from service.api.views import answer
from service.store.keys import NOBODY
from service.store.sign_ins import SIGNED_IN_FOR

SECURITY_SCHEMES: Final[dict[str, Any]] = {"key": {"type": "http", "scheme": "bearer"}}
PROTECTED: Final[dict[str, Any]] = {"abp_security": [{"key": []}], "abp_responses": documented(401)}  # of a blueprint

_COOKIE: Final = "occluscope_sign_in"
_SCHEME: Final = "bearer "

blueprint = APIBlueprint("session", __name__, url_prefix="/v1/session", abp_tags=[Tag(name="session")])


class KeyForm(Strict):
    """What signs a browser in."""

    key: str = Field(
        description="A key, as `occluscope keys add` gave it", min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$"
    )


def register(app: Flask) -> None:
    """Require every request below ``/v1`` to say whose it is."""
    app.before_request(_identify)


@blueprint.get("", summary="Who is signed in?", responses={200: wire.Session, **documented(401)})
def show() -> Response:
    """The owner of the key, or of the browser's cookie, that came with the request."""
    owner = _owner()
    return _refused() if owner is None else answer(wire.Session(owner=owner))


@blueprint.post("", summary="Sign a browser in", responses={200: wire.Session, **documented(400, 403, 413, 415, 422)})
def sign_in(body: KeyForm) -> Response:
    """Gives a cookie that scripts cannot read and other sites' pages cannot send; not the key itself."""
    keyring = context().keyring
    owner = keyring.owner_of(body.key)
    token = keyring.sign_in(body.key) if owner else None
    if owner is None or (owner != NOBODY and token is None):
        return invalid([FieldError("key", "not a key of this service, or one that was revoked")])
    response = answer(wire.Session(owner=owner))
    if token is not None:
        lasts = int(SIGNED_IN_FOR.total_seconds())
        response.set_cookie(_COOKIE, token, max_age=lasts, httponly=True, samesite="Strict", secure=request.is_secure)
    return response


@blueprint.delete("", summary="Sign a browser out", responses={204: None, **documented(403)})
def sign_out() -> Response:
    """The cookie is deleted, and no copy of it is valid any more; the key stays valid."""
    token = request.cookies.get(_COOKIE)
    if token is not None:
        context().keyring.sign_out(token)
    response = Response(status=HTTPStatus.NO_CONTENT)
    response.delete_cookie(_COOKIE, httponly=True, samesite="Strict", secure=request.is_secure)
    return response


def owner() -> str:
    """The owner of this request."""
    return str(g.owner)


def _identify() -> Response | None:
    if not request.path.startswith("/v1/") or request.blueprint == blueprint.name:
        return None
    found = _owner()
    if found is None:
        return _refused()
    g.owner = found
    if found != NOBODY:
        structlog.contextvars.bind_contextvars(owner=found)
    return None


def by_cookie() -> bool:
    """Whether only a cookie says whose request it is; browsers send cookies by themselves."""
    return _key() is None and _COOKIE in request.cookies


def _owner() -> str | None:
    return context().keyring.owner_of(_key(), request.cookies.get(_COOKIE))


def _key() -> str | None:
    header = request.headers.get("Authorization", "")
    return header[len(_SCHEME) :].strip() if header.lower().startswith(_SCHEME) else None


def _refused() -> Response:
    given = "A key is needed."
    if _key():
        given = "This key is not one of this service, or was revoked."
    elif by_cookie():
        given = "This browser is not signed in any more."
    refusal = problem(HTTPStatus.UNAUTHORIZED, f"{given} Send yours as 'Authorization: Bearer …'.")
    refusal.headers["WWW-Authenticate"] = "Bearer"
    return refusal

"""The Flask app: the API of version 1, the pages, and what guards them."""

import re
from collections.abc import Iterable
from http import HTTPStatus

from flask import Response, jsonify, request
from flask_openapi3 import Info, OpenAPI

from occluscope import __version__
from occluscope.errors import FieldError
from occluscope.wire import Problem
from service.api import analyses, artifacts, auth, health, images, jobs, metrics, models, requests, webhooks
from service.api.bodies import ApiRequest
from service.api.context import KEY, Context, context
from service.api.document import completed
from service.api.problems import invalid, invalid_request, not_found, problem, register
from service.keyring import Keyring
from service.queue import Announcer, Queue
from service.running.logs import configure_logs
from service.settings import Settings, settings
from service.store.database import Database
from service.web import pages

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def create_app(config: Settings | None = None) -> OpenAPI:
    """Make the app; called once in each process of gunicorn."""
    config = config or settings()
    configure_logs()
    app = OpenAPI(
        "service",
        info=Info(
            title="Occluscope",
            version=__version__,
            description="Measures what a vision model looks at and what it does not care about.",
        ),
        doc_ui=False,
        security_schemes=auth.SECURITY_SCHEMES,
        validation_error_status=HTTPStatus.UNPROCESSABLE_ENTITY,
        validation_error_model=Problem,
        validation_error_callback=invalid_request,
        static_folder=None,
    )
    app.request_class = ApiRequest
    app.config.update(MAX_CONTENT_LENGTH=config.max_body_bytes)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    database, queue = Database(config.database_url), Queue(config)
    app.extensions[KEY] = Context(config, database, queue, Announcer(queue), Keyring(database))
    register(app)
    requests.register(app)  # before anything that may refuse one
    app.before_request(refuse_other_hosts)
    app.before_request(refuse_other_sites)
    app.before_request(refuse_nul)
    auth.register(app)
    app.after_request(harden)
    for module in (images, models, analyses, jobs, artifacts, webhooks, auth, health, metrics):
        app.register_api(module.blueprint)
    app.register_blueprint(pages.blueprint)
    document = completed(app.api_doc)
    app.add_url_rule("/openapi.json", "openapi", lambda: jsonify(document))
    return app


def refuse_other_hosts() -> Response | None:
    """Refuse other host names: one that resolves here may be another site's, whose pages would share our origin."""
    trusted = context().settings.trusted_hosts
    if trusted is None or is_trusted(request.host, trusted):
        return None
    return problem(HTTPStatus.BAD_REQUEST, f"Host {request.host or 'of this form'} is not trusted.")


def is_trusted(host: str, trusted: Iterable[str]) -> bool:
    """Whether a request's ``host:port`` is trusted. An entry that begins with a dot stands for every name below it."""
    match = re.fullmatch(r"(\[[^]]+\]|[^:\[\]]+)(:\d+)?", host.lower())
    if match is None:
        return False
    name = match[1]
    return any(name == one.lower() or (one.startswith(".") and name.endswith(one.lower())) for one in trusted)


def refuse_nul() -> Response | None:
    """Refuse NUL in a path or query: no name has one, and PostgreSQL takes no text with one."""
    if "\0" in request.path:
        return not_found("page")
    fields = [name for name, values in request.args.lists() if "\0" in name or any("\0" in one for one in values)]
    return (
        invalid([FieldError(name.replace("\0", "\\0"), "has a NUL character") for name in fields]) if fields else None
    )


def refuse_other_sites() -> Response | None:
    """Refuse changes that a page of another site sends from the browser of somebody who can reach this service."""
    if request.method in _SAFE_METHODS:
        return None
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    told = site is not None or origin is not None
    ours = site in (None, "same-origin", "none") and (origin is None or _is_of_host(origin, request.host))
    if ours and (told or not auth.by_cookie()):
        return None
    detail = "Requests that change something are not taken from other sites' pages."
    return problem(HTTPStatus.FORBIDDEN, detail if told else f"{detail} With a cookie, send Origin, or use a key.")


def _is_of_host(origin: str, host: str) -> bool:
    """Whether an Origin is this service's, by either scheme: a proxy in front may end TLS."""
    return origin.lower() in {f"{scheme}://{host.lower()}" for scheme in ("http", "https")}


def harden(response: Response) -> Response:
    """Set headers that keep browsers from guessing types, framing the pages or running foreign scripts."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    response.headers.setdefault(
        "Content-Security-Policy",
        "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'",
    )
    return response

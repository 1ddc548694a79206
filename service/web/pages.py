"""The pages: an overview with a form, and a page for each job."""

from flask import Blueprint, Response, make_response, render_template

from occluscope import __version__

blueprint = Blueprint("web", __name__, template_folder="templates", static_folder="static", static_url_path="/static")


@blueprint.get("/")
def overview() -> Response:
    """Submit a job; see the latest ones."""
    return make_response(render_template("overview.html", version=__version__))


@blueprint.get("/jobs/<id>")
def job(id: str) -> Response:  # noqa: A002 - the name in the URL
    """Watch a job and look at what it gave."""
    return make_response(render_template("job.html", version=__version__, job_id=id))

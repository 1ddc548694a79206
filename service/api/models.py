"""``/v1/models``: the models that jobs can name."""

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, Field

from occluscope import wire
from occluscope.models import card, cards
from service.api.auth import PROTECTED, owner
from service.api.problems import documented, not_found
from service.api.views import answer, view

blueprint = APIBlueprint("models", __name__, url_prefix="/v1/models", abp_tags=[Tag(name="models")], **PROTECTED)


class ModelPath(BaseModel):
    """A model's name in a URL."""

    name: str = Field(description="The model's name")


@blueprint.get("", summary="List the models", responses={200: wire.ModelList})
def list_all() -> Response:
    """The bundled model first."""
    models = [view(wire.ModelSummary, model, classes=len(model.labels)) for model in cards(owner()).values()]
    return answer(wire.ModelList(models=models))


@blueprint.get("/<name>", summary="Show a model", responses={200: wire.ModelDetail, **documented(404)})
def show(path: ModelPath) -> Response:
    """With its labels by index, and its layers in the order they run."""
    try:
        model = card(path.name, owner())
    except LookupError:
        return not_found("model")
    return answer(view(wire.ModelDetail, model, classes=len(model.labels)))

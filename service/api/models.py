"""``/v1/models``: the models that jobs can name."""

from flask import Response, jsonify
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, Field

from occluscope.models import Layer, ModelCard, card, cards
from service.api.auth import PROTECTED, owner
from service.api.problems import documented, not_found

blueprint = APIBlueprint("models", __name__, url_prefix="/v1/models", abp_tags=[Tag(name="models")], **PROTECTED)


class ModelPath(BaseModel):
    """A model's name in a URL."""

    name: str = Field(description="The model's name")


class ModelSummary(BaseModel):
    """A model in the list. input_size: height and width, pixels."""

    name: str
    source: str
    architecture: str
    weights: str
    input_size: tuple[int, int]
    classes: int


class ModelList(BaseModel):
    """Every model."""

    models: list[ModelSummary]


class ModelView(ModelSummary):
    """A model with the labels and layers that requests are checked against."""

    labels: list[str]
    layers: list[Layer]


@blueprint.get("", summary="List the models", responses={200: ModelList})
def list_all() -> Response:
    """The bundled model first."""
    models = [_summary(model).model_dump() for model in cards(owner()).values()]
    return jsonify(models=models)


@blueprint.get("/<name>", summary="Show a model", responses={200: ModelView, **documented(404)})
def show(path: ModelPath) -> Response:
    """With its labels by index, and its layers in the order they run."""
    try:
        model = card(path.name, owner())
    except LookupError:
        return not_found("model")
    view = ModelView(**_summary(model).model_dump(), labels=list(model.labels), layers=list(model.layers))
    return jsonify(view.model_dump())


def _summary(model: ModelCard) -> ModelSummary:
    return ModelSummary(
        name=model.name,
        source=model.source,
        architecture=model.architecture,
        weights=model.weights,
        input_size=model.input_size,
        classes=len(model.labels),
    )

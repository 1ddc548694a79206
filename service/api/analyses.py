"""``/v1/analyses``: what can be asked, with each analysis's parameters and results."""

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, Field

from occluscope import analyses, wire
from occluscope.analyses.contract import AnalysisSpec
from service.api.auth import PROTECTED
from service.api.problems import documented, not_found
from service.api.views import answer, view

blueprint = APIBlueprint("analyses", __name__, url_prefix="/v1/analyses", abp_tags=[Tag(name="analyses")], **PROTECTED)


class AnalysisPath(BaseModel):
    """An analysis's name in a URL."""

    name: str = Field(description="The analysis's name")


@blueprint.get("", summary="List the analyses", responses={200: wire.AnalysisList})
def list_all() -> Response:
    """Each with the JSON Schema of its parameters, in the order in which they are offered."""
    specs = [analyses.spec(name) for name in analyses.names()]
    shown = [_shown(spec) for spec in sorted(specs, key=lambda spec: (spec.order, spec.name))]
    return answer(wire.AnalysisList(analyses=shown))


@blueprint.get("/<name>", summary="Show an analysis", responses={200: wire.Analysis, **documented(404)})
def show(path: AnalysisPath) -> Response:
    """With the JSON Schema of its parameters."""
    try:
        return answer(_shown(analyses.spec(path.name)))
    except KeyError:
        return not_found("analysis")


def _shown(spec: AnalysisSpec) -> wire.Analysis:
    return view(wire.Analysis, spec, parameters=spec.parameters.model_json_schema())

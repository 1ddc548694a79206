"""``/v1/analyses``: what can be asked, with each analysis's parameters and results."""

from dataclasses import asdict
from typing import Any

from flask import Response, jsonify
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, Field

from occluscope import analyses
from occluscope.analyses.contract import AnalysisSpec
from service.api.auth import PROTECTED
from service.api.problems import documented, not_found

blueprint = APIBlueprint("analyses", __name__, url_prefix="/v1/analyses", abp_tags=[Tag(name="analyses")], **PROTECTED)


class AnalysisPath(BaseModel):
    """An analysis's name in a URL."""

    name: str = Field(description="The analysis's name")


class ResultSpecView(BaseModel):
    """A result that the analysis gives."""

    name: str
    kind: str
    title: str
    description: str


class MetricSpecView(BaseModel):
    """A number that the analysis gives."""

    name: str
    title: str
    description: str
    unit: str | None


class AnalysisView(BaseModel):
    """An analysis. parameters: JSON Schema of a job's `params`. headline: the result to look at first."""

    name: str
    title: str
    summary: str
    parameters: dict[str, Any]
    results: list[ResultSpecView]
    metrics: list[MetricSpecView]
    headline: str


class AnalysisList(BaseModel):
    """Every analysis."""

    analyses: list[AnalysisView]


def view(spec: AnalysisSpec) -> dict[str, Any]:
    """An analysis as the API shows it."""
    return {
        "name": spec.name,
        "title": spec.title,
        "summary": spec.summary,
        "parameters": spec.parameters.model_json_schema(),
        "results": [asdict(result) for result in spec.results],
        "metrics": [asdict(metric) for metric in spec.metrics],
        "headline": spec.headline,
    }


@blueprint.get("", summary="List the analyses", responses={200: AnalysisList})
def list_all() -> Response:
    """Each with the JSON Schema of its parameters, in the order in which they are offered."""
    specs = [analyses.spec(name) for name in analyses.names()]
    return jsonify(analyses=[view(spec) for spec in sorted(specs, key=lambda spec: (spec.order, spec.name))])


@blueprint.get("/<name>", summary="Show an analysis", responses={200: AnalysisView, **documented(404)})
def show(path: AnalysisPath) -> Response:
    """With the JSON Schema of its parameters."""
    try:
        return jsonify(view(analyses.spec(path.name)))
    except KeyError:
        return not_found("analysis")

"""What crosses HTTP: the objects that the service sends and the client returns, each defined once.

A new field is one line here. The API takes it from the row's attribute of the same name (`service.api.views`), the
OpenAPI document publishes it, the client's object has it, and `service.store.tables` may store it.

A client ignores fields that a newer service adds. A field that older services do not send has a default.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from occluscope.analyses.contract import MetricSpec, ResultSpec
from occluscope.models.card import Layer
from occluscope.results.variant import ONLY, Variant


def _variant(given: Any) -> Any:
    return given if isinstance(given, Variant) else Variant.from_json(dict(given))


WireVariant = Annotated[
    Variant, BeforeValidator(_variant), PlainSerializer(Variant.to_json, return_type=dict[str, str])
]


class Answer(BaseModel):
    """Base of the objects here: it can be made from a row, and all its fields are sent."""

    model_config = ConfigDict(
        from_attributes=True, use_enum_values=True, json_schema_serialization_defaults_required=True
    )


class JobState(StrEnum):
    """``queued → running → succeeded | failed | cancelled``."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class DeliveryState(StrEnum):
    """``waiting → delivered | given_up``."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


class Image(Answer):
    """A stored picture. width, height: pixels, upright."""

    id: str
    sha256: str
    format: str
    width: int
    height: int


class Progress(Answer):
    """Steps done and to do. eta_seconds: estimated time left, null while nothing is known."""

    done: int
    total: int
    eta_seconds: float | None


class Webhook(Answer):
    """A job's webhook and the state of its delivery. state: null before the job's end.

    status, error: of the last attempt. next_at: of the next attempt, null if there is none.
    """

    url: str
    state: DeliveryState | None = None
    attempts: int = 0
    status: int | None = None
    error: str | None = None
    next_at: datetime | None = None
    delivered_at: datetime | None = None


class JobSummary(Answer):
    """A job in a list. models: all that it runs; model: the first of them."""

    id: str
    analysis: str
    model: str
    models: list[str]
    params: dict[str, Any]
    priority: str = "batch"
    state: JobState
    progress: Progress
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None
    version: int = Field(default=0, description="Grows with every change but that of `progress.done` and `eta_seconds`")
    results_version: int = Field(default=0, description="Grows with every change of the results")


class Job(JobSummary):
    """A job at the time of the request, with its pictures and its webhook, if it has one.

    models: all that it runs; model: the first of them.
    """

    images: list[str] = []
    webhook: Webhook | None = None

    @property
    def ended(self) -> bool:
        """Whether its state will not change any more."""
        return self.state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class JobList(Answer):
    """A page of jobs, newest first. next_cursor: null on the last page."""

    jobs: list[JobSummary]
    next_cursor: str | None


class Metric(Answer):
    """A number. variant: which of several of this name. image: the picture that it belongs to, if it belongs to one.

    model: that gave it.
    """

    name: str
    model: str
    variant: WireVariant = ONLY
    value: float
    unit: str | None
    image: str | None


class Artifact(Answer):
    """A result to be downloaded.

    model: that gave it, null for a comparison of models. variant: which of several of this name.
    preview: whether its unit still runs and will replace it.
    shape: of its array, if it has one. formats: in which it is given. on_picture: whether it can be an overlay.
    """

    id: str
    name: str
    model: str | None
    variant: WireVariant = ONLY
    preview: bool = False
    kind: str
    image: str | None
    shape: list[int] | None
    formats: list[str]
    on_picture: bool
    href: str


class Results(Answer):
    """What a job's finished units gave so far.

    results_version: the value of `after` for the next request. previews: ids of all current previews; others are gone.
    """

    metrics: list[Metric]
    artifacts: list[Artifact]
    results_version: int = 0
    previews: list[str] = []


class ResultsPage(Results):
    """A page of what the job's finished units gave so far: some pictures' results, and on the last page all others.

    names: of all artifacts, whatever page they are on. next_cursor: null on the last page.
    """

    names: list[str]
    next_cursor: str | None


class ModelSummary(Answer):
    """A model in the list. input_size: height and width, pixels."""

    name: str
    source: str
    architecture: str
    weights: str
    input_size: tuple[int, int]
    classes: int


class ModelList(Answer):
    """Every model."""

    models: list[ModelSummary]


class ModelDetail(ModelSummary):
    """A model with the labels and layers that requests are checked against."""

    labels: list[str]
    layers: list[Layer]


class Analysis(Answer):
    """An analysis. parameters: JSON Schema of a job's `params`. headline: the result to look at first."""

    name: str
    title: str
    summary: str
    parameters: dict[str, Any]
    results: list[ResultSpec]
    metrics: list[MetricSpec]
    headline: str


class AnalysisList(Answer):
    """Every analysis."""

    analyses: list[Analysis]


class WebhookSecret(Answer):
    """An owner's secret."""

    secret: str = Field(description="For a library of Standard Webhooks, which checks a delivery's headers and body")


class Session(Answer):
    """Who is signed in. owner: empty if no key is needed."""

    owner: str


class Liveness(Answer):
    """The process answers."""

    status: str


class Readiness(Answer):
    """Whether a job that is submitted now would run. workers: number of live workers that take units."""

    ready: bool
    database: bool
    broker: bool
    workers: int


class FieldProblem(BaseModel):
    """One field that breaks a rule."""

    path: str = Field(description="The path of the field from the request's root, joined by dots")
    message: str


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = []

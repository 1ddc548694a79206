"""From a job's request to its units: every check before a job exists."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from pydantic import Field, ValidationInfo, field_validator
from sqlalchemy import select
from sqlalchemy.orm import Session

from occluscope import analyses, models
from occluscope.analyses.contract import AnalysisSpec, ImageRef, Parameters, Unit
from occluscope.errors import FieldError, InvalidInputError
from occluscope.models import ModelCard
from service.api.context import Strict
from service.settings import Settings
from service.store.tables import Image, ImageOwner
from service.webhooks.addresses import Allowance, ForbiddenAddressError
from service.webhooks.lookup import checked_url

KnownImages = Callable[[Iterable[str]], dict[str, ImageRef]]  # from ids to those that the owner has uploaded

_SHOWN_ERRORS: Final = 20  # errors of one list; more would hide the others
MAX_MODELS: Final = 8  # that one job compares
_QUERY_IDS: Final = 500  # ids asked for in one query; databases limit a query's variables


class JobRequest(Strict):
    """What to run, on which pictures."""

    analysis: str = Field(description="Name of an analysis", examples=["occlusion"])
    models: list[str] | None = Field(
        default=None,
        description="Instead of `model`: names of several, whose results are compared",
        min_length=2,
        max_length=MAX_MODELS,
    )
    model: str | None = Field(
        default=None, description="Name of a model", examples=["efficientnet_lite0"], validate_default=True
    )
    images: list[str] = Field(description="Ids of pictures, each once", min_length=1)
    params: dict[str, Any] = Field(default={}, description="Parameters, as the analysis's JSON Schema says")

    priority: Literal["interactive", "batch"] = Field(
        default="batch",
        description="`interactive`, for what somebody waits for, has three turns of four, `batch` the fourth",
    )

    webhook: str | None = Field(
        default=None,
        description="Told by a signed POST when the job has ended: an address on the open Internet, https:// or http://",
    )

    @field_validator("model")
    @classmethod
    def _one_or_several(cls, model: str | None, info: ValidationInfo) -> str | None:
        if "models" in info.data and (model is None) == (info.data["models"] is None):
            raise ValueError("give one model, or several as models")
        return model

    def sha256(self) -> str:
        """Equal for equal requests."""
        later = {"webhook"} if self.webhook is None else set()  # fields that requests did not always have
        content = json.dumps(self.model_dump(exclude=later), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class Submission:
    """A request that passed every check. units: by model. named: pictures that the parameters name."""

    params: dict[str, Any]
    units: dict[str, list[Unit]]
    named: list[str]


def check_request(session: Session, request: JobRequest, config: Settings, owner: str) -> Submission:
    """Check a request against the analyses, the models' cards and the owner's pictures.

    Raises
    ------
    InvalidInputError
        Names every field that breaks a rule.
    """
    errors: list[FieldError] = []
    spec = _spec(request.analysis, errors)
    cards = _cards(request, owner, errors)
    known = partial(_known_images, session, owner)
    images = _images(known, request.images, config.max_images_per_job, errors)
    params = _params(spec, request.params, errors)
    named = _named_images(known, spec, params, errors)
    _check_webhook(request.webhook, config, errors)
    if errors or spec is None or params is None:
        raise InvalidInputError(errors)
    units = _plans(spec, params, cards, images, named)
    return Submission(params.model_dump(mode="json"), units, list(named))


def _plans(
    spec: AnalysisSpec,
    params: Parameters,
    cards: list[ModelCard],
    images: list[ImageRef],
    named: dict[str, ImageRef],
) -> dict[str, list[Unit]]:
    """Every model's units; with several models, each error names its model."""
    units: dict[str, list[Unit]] = {}
    errors: list[FieldError] = []
    for card in cards:
        try:
            units[card.name] = spec.plan(params, card, images, named)
        except InvalidInputError as error:
            whose = f"{card.name}: " if len(cards) > 1 else ""
            errors += [FieldError(one.path, whose + one.message) for one in error.errors]
    if errors:
        raise InvalidInputError(errors)
    return units


def _spec(name: str, errors: list[FieldError]) -> AnalysisSpec | None:
    try:
        return analyses.spec(name)
    except KeyError:
        errors.append(FieldError("analysis", f"there is no such analysis; there are: {', '.join(analyses.names())}"))
        return None


def _check_webhook(url: str | None, config: Settings, errors: list[FieldError]) -> None:
    try:
        if url is not None:
            checked_url(url, Allowance.of(config))
    except ForbiddenAddressError as error:
        errors.append(FieldError("webhook", str(error)))


def _cards(request: JobRequest, owner: str, errors: list[FieldError]) -> list[ModelCard]:
    """The cards of the models asked for, as their owner has them."""
    asked = {"model": request.model} if request.model is not None else {}
    asked |= {f"models.{place}": name for place, name in enumerate(request.models or ())}
    found: list[ModelCard] = []
    for path, name in asked.items():
        try:
            card = models.card(str(name), owner)
        except LookupError as error:
            errors.append(FieldError(path, str(error.args[0])))
            continue
        if card in found:
            errors.append(FieldError(path, f"{card.name} is there twice"))
        found.append(card)
    return found


def _params(spec: AnalysisSpec | None, given: dict[str, Any], errors: list[FieldError]) -> Parameters | None:
    if spec is None:
        return None
    try:
        return spec.parse(given)
    except InvalidInputError as error:
        errors.extend(error.errors)
        return None


def _images(known_images: KnownImages, ids: list[str], max_images: int, errors: list[FieldError]) -> list[ImageRef]:
    if len(ids) > max_images:
        errors.append(FieldError("images", f"{len(ids):,} pictures; the limit is {max_images:,}"))
        return []
    known = known_images(ids)
    first: dict[str, int] = {}
    found: list[FieldError] = []
    for position, image_id in enumerate(ids):
        if image_id in first:
            found.append(FieldError(f"images.{position}", f"the same picture as images.{first[image_id]}"))
        elif image_id not in known:
            found.append(FieldError(f"images.{position}", "there is no such picture"))
        first.setdefault(image_id, position)
    errors.extend(found[:_SHOWN_ERRORS])
    return [] if found else [known[image_id] for image_id in ids]


def _named_images(
    known_images: KnownImages, spec: AnalysisSpec | None, params: Parameters | None, errors: list[FieldError]
) -> dict[str, ImageRef]:
    """The pictures that the parameters name, by id."""
    if spec is None or params is None:
        return {}
    wanted = spec.named_images(params)
    known = known_images(wanted.values())
    errors.extend(
        FieldError(f"params.{path}", "there is no such picture")
        for path, image_id in wanted.items()
        if image_id not in known
    )
    return known


def _known_images(session: Session, owner: str, ids: Iterable[str]) -> dict[str, ImageRef]:
    askable = sorted({image_id for image_id in ids if image_id.isascii() and image_id.isalnum()})
    known: dict[str, ImageRef] = {}
    for start in range(0, len(askable), _QUERY_IDS):
        some = ImageOwner.image_id.in_(askable[start : start + _QUERY_IDS])
        query = select(Image.id, Image.width, Image.height).join(ImageOwner).where(some, ImageOwner.owner == owner)
        known.update({row.id: ImageRef(row.id, row.width, row.height) for row in session.execute(query)})
    return known

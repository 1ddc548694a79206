"""What is published is what is served: every operation of the OpenAPI document, asked what it takes, and otherwise."""

import io
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction, load_all_checks, not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from sqlalchemy import select

from service.app import create_app
from service.settings import Settings
from service.store.database import Database
from service.store.keys import add_key
from service.store.leases import claim_unit
from service.store.migrate import migrate
from service.store.tables import Artifact, Unit
from service.store.units import commit_unit
from tests.conftest import encode, random_picture
from tests.effort import examples
from tests.unit.store.conftest import outcome

NO_BROKER = "redis://127.0.0.1:9/0"  # nothing listens there
EXAMPLES = examples(5, 50)  # of each operation
# Not that `/readyz` is no server error: without a worker it says 503, as published. And not `positive_data_acceptance`:
# a body may be of the right form and name a picture that is not there.
CHECKS: list[CheckFunction] = [
    not_a_server_error,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]


@dataclass(frozen=True)
class Asked:
    """The API's application, the headers that it is asked with, and of each resource one that there is."""

    app: Flask
    headers: dict[str, str]
    there: dict[str, str]


@pytest.fixture(scope="module", params=["no keys", "a key", "a wrong key"])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """With a picture and a job that waits."""
    url = f"sqlite:///{tmp_path_factory.mktemp('published') / 'store.db'}"
    database = Database(url)
    migrate(database)
    headers = {}
    if request.param != "no keys":
        with database.writing() as session:
            headers = {"Authorization": f"Bearer {add_key(session, 'ada')}"}
    application: Flask = create_app(Settings(database_url=url, broker_url=NO_BROKER, broker_timeout_seconds=0.1))
    with application.test_client() as client:
        file = io.BytesIO(encode(random_picture(1)))
        image = client.post("/v1/images", data={"file": (file, "a.png")}, headers=headers).get_json()["id"]
        request_of_job = {"analysis": "occlusion", "model": "efficientnet_lite0", "images": [image]}
        job = client.post("/v1/jobs", json=request_of_job, headers=headers).get_json()["id"]
    there = {"images": image, "jobs": job, "artifacts": first_result(database, job), "models": "efficientnet_lite0"}
    database.close()
    if request.param == "a wrong key":
        headers = {"Authorization": "Bearer occ_wrong"}
    return Asked(application, headers, there | {"analyses": "invariance"})


def first_result(database: Database, job: str) -> str:
    """Have the job's unit end; gives one of the artifacts that it gave."""
    with database.writing() as session:
        unit = session.scalars(select(Unit.id).where(Unit.job_id == job)).one()
        claim = claim_unit(session, unit, "w", 30)
        assert claim is not None
        assert commit_unit(session, claim, outcome())
        return session.scalars(select(Artifact.id).where(Artifact.job_id == job)).first() or ""


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["as published", "otherwise"])
def test_every_operation_answers_as_it_is_published(asked: Asked, mode: GenerationMode) -> None:
    operations = operations_of(asked)
    assert len(operations) >= 18
    for operation in operations:
        for_this = [check for check in CHECKS if (operation.path, check) != ("/readyz", not_a_server_error)]

        @settings(
            max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def answers(case: Any) -> None:
            case.validate_response(case.call(headers=asked.headers), checks=for_this)  # noqa: B023 - called below, in the same turn

        if mode == GenerationMode.POSITIVE or has_parts(operation):
            answers()


def test_what_there_is_is_shown_as_it_is_published(asked: Asked) -> None:
    """Ids that are made up lead nowhere; these lead to a picture, a job, a result, a model and an analysis."""
    found = []
    for operation in sorted(operations_of(asked), key=lambda one: ["get", "post", "delete"].index(one.method)):
        kind = operation.path.split("/")[2] if operation.path.startswith("/v1/") else ""
        name = next(iter(operation.path_parameters), None)
        if name is not None:
            case = operation.Case(path_parameters={name.name: asked.there[kind]})
            response = case.call(headers=asked.headers)
            case.validate_response(response, checks=CHECKS)
            found.append(response.status_code)
    wrong = asked.headers == {"Authorization": "Bearer occ_wrong"}
    assert set(found) == ({401} if wrong else {200, 204, 409})
    assert len(found) >= 8


def operations_of(asked: Asked) -> list[schemathesis.APIOperation[Any, Any, Any, Any]]:
    load_all_checks()
    schema = schemathesis.openapi.from_dict(without_keys(published(asked.app)))
    schema.app = asked.app
    return [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]


def test_every_error_is_published_as_a_problem(asked: Asked) -> None:
    for path, operations in published(asked.app)["paths"].items():
        for method, operation in operations.items():
            responses = operation["responses"]
            assert {"400", "500", "503"} <= responses.keys()
            assert ("403" in responses) == ("507" in responses) == (method != "get") or path == "/v1/webhooks/secret"
            for status, response in responses.items():
                if int(status) >= 400 and (path, status) != ("/readyz", "503"):
                    assert list(response["content"]) == ["application/problem+json"], (path, method, status)


def published(app: Flask) -> dict[str, Any]:
    """The OpenAPI document."""
    document: dict[str, Any] = app.test_client().get("/openapi.json").get_json()
    return document


def without_keys(document: dict[str, Any]) -> dict[str, Any]:
    """The tests send their own key: its header is no part of a request that is to be made up."""
    for operations in document["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)
    return document


def has_parts(operation: schemathesis.APIOperation[Any, Any, Any, Any]) -> bool:
    """Whether there is anything about a request that could be otherwise than published: an id may be any text."""
    return bool(operation.query or operation.headers or operation.body)

"""What is published is what is served: every operation of the OpenAPI document, asked what it takes, and otherwise."""

import io
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

from service.app import create_app
from service.settings import Settings
from service.store.database import Database
from service.store.migrate import migrate
from tests.conftest import encode, random_picture

NO_BROKER = "redis://127.0.0.1:9/0"  # nothing listens there
EXAMPLES = 25  # of each operation
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


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """The API's application, with a picture and a job that waits."""
    url = f"sqlite:///{tmp_path_factory.mktemp('published') / 'store.db'}"
    database = Database(url)
    migrate(database)
    database.close()
    application: Flask = create_app(Settings(database_url=url, broker_url=NO_BROKER, broker_timeout_seconds=0.1))
    with application.test_client() as client:
        file = io.BytesIO(encode(random_picture(1)))
        image = client.post("/v1/images", data={"file": (file, "a.png")}).get_json()
        job = {"analysis": "occlusion", "model": "efficientnet_lite0", "images": [image["id"]]}
        assert client.post("/v1/jobs", json=job).status_code == 202
    return application


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["as published", "otherwise"])
def test_every_operation_answers_as_it_is_published(app: Flask, mode: GenerationMode) -> None:
    load_all_checks()
    schema = schemathesis.openapi.from_dict(without_keys(app.test_client().get("/openapi.json").get_json()))
    schema.app = app
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) >= 18
    for operation in operations:
        for_this = [check for check in CHECKS if (operation.path, check) != ("/readyz", not_a_server_error)]

        @settings(
            max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def answers(case: Any) -> None:
            case.validate_response(case.call(), checks=for_this)  # noqa: B023 - called below, in the same turn

        if mode == GenerationMode.POSITIVE or has_parts(operation):
            answers()


def without_keys(document: dict[str, Any]) -> dict[str, Any]:
    """As long as there is no key nobody needs one, and its header is no part of a request that could be wrong."""
    for operations in document["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)
    return document


def has_parts(operation: schemathesis.APIOperation[Any, Any, Any, Any]) -> bool:
    """Whether there is anything about a request that could be otherwise than published: an id may be any text."""
    return bool(operation.query or operation.headers or operation.body)

"""One set of objects: what the API answers, what it publishes and what the client gives have the same fields."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from occluscope import wire
from occluscope.client import Client
from occluscope.models import card
from service.store.leases import claim_unit
from service.store.tables import Unit
from service.store.units import commit_unit
from tests.conftest import encode, random_picture
from tests.unit.api.conftest import Served, serving
from tests.unit.store.conftest import outcome

Schema = dict[str, Any]


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[Client]:
    """Of the app, over HTTP."""
    with serving(served.app) as url, Client(url, api_key=served.key) as connected:
        yield connected


@pytest.fixture(scope="module")
def job(served: Served, client: Client) -> wire.Job:
    """One that has ended, and whose webhook waits to be told."""
    image = client.upload(encode(random_picture(1)))
    submitted = client.submit(
        "occlusion", "efficientnet_lite0", image, webhook="http://1.1.1.1/"
    )  # nobody delivers here
    with served.database.writing() as session:
        unit = session.scalars(select(Unit.id).where(Unit.job_id == submitted.id)).one()
        claim = claim_unit(session, unit, "w", 30)
        assert claim is not None
        assert commit_unit(session, claim, outcome(image=image.id))
    return client.job(submitted.id)


def answers(job: wire.Job) -> dict[str, tuple[type[wire.Answer], str]]:
    """Addresses, with what each answers and its path in the document."""
    return {
        f"/v1/jobs/{job.id}": (wire.Job, "/v1/jobs/{id}"),
        "/v1/jobs": (wire.JobList, "/v1/jobs"),
        f"/v1/jobs/{job.id}/results": (wire.ResultsPage, "/v1/jobs/{id}/results"),
        f"/v1/images/{job.images[0]}": (wire.Image, "/v1/images/{id}"),
        "/v1/models": (wire.ModelList, "/v1/models"),
        f"/v1/models/{job.model}": (wire.ModelDetail, "/v1/models/{name}"),
        "/v1/analyses": (wire.AnalysisList, "/v1/analyses"),
        f"/v1/analyses/{job.analysis}": (wire.Analysis, "/v1/analyses/{name}"),
        "/v1/webhooks/secret": (wire.WebhookSecret, "/v1/webhooks/secret"),
        "/v1/session": (wire.Session, "/v1/session"),
        "/healthz": (wire.Liveness, "/healthz"),
        "/readyz": (wire.Readiness, "/readyz"),
    }


def test_every_field_is_answered_published_and_given(served: Served, client: Client, job: wire.Job) -> None:
    document = served.client().get("/openapi.json").get_json()
    seen: set[str] = set()
    for address, (model, path) in answers(job).items():
        content = asked(client, served, address)
        response = document["paths"][path]["get"]["responses"]["200"]
        schema = response["content"]["application/json"]["schema"]
        assert schema["$ref"].endswith(f"/{model.__name__}")
        compare(content, schema, document, seen)
        assert model.model_validate(content).model_dump(mode="json") == content, "read as the client does"
    of_wire = {name for name, one in vars(wire).items() if isinstance(one, type) and issubclass(one, wire.Answer)}
    assert of_wire - seen == {"Answer", "Results"}, "every object is answered with; these two are what others have"


def test_the_clients_objects_are_what_was_answered(served: Served, client: Client, job: wire.Job) -> None:
    assert client.job(job.id).model_dump(mode="json") == asked(client, served, f"/v1/jobs/{job.id}")
    assert job.webhook is not None
    assert (job.webhook.state, job.webhook.attempts, job.ended) == ("waiting", 0, True)
    (listed,) = client.jobs()
    (summary,) = asked(client, served, "/v1/jobs")["jobs"]
    assert listed.model_dump(mode="json", exclude={"images", "webhook"}) == summary
    page = asked(client, served, f"/v1/jobs/{job.id}/results")
    assert len(page["artifacts"]) >= 1
    assert len(page["metrics"]) >= 1
    assert client.results(job.id).model_dump(mode="json") == {name: page[name] for name in wire.Results.model_fields}
    assert client.models() == asked(client, served, "/v1/models")["models"]
    assert client.model(job.model)["labels"] == list(card(job.model).labels)
    assert client.analyses() == asked(client, served, "/v1/analyses")["analyses"]
    assert client.upload(encode(random_picture(1))).model_dump() == asked(client, served, f"/v1/images/{job.images[0]}")


def asked(client: Client, served: Served, address: str) -> Any:
    return httpx.get(client.url + address, headers=served.headers).json()


def compare(content: Any, schema: Schema, document: Schema, seen: set[str]) -> None:
    """Every field of the schema is there and none besides; so are those of the class of that name. seen: such names."""
    if "anyOf" in schema:
        schema = next(one for one in schema["anyOf"] if (one.get("type") == "null") == (content is None))
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        schema = document["components"]["schemas"][name]
        if schema["type"] == "object":
            assert set(content) == set(schema["properties"]) == fields_of(getattr(wire, name)), name
            seen.add(name)
            for field, of_field in schema["properties"].items():
                compare(content[field], of_field, document, seen)
    elif schema.get("type") == "array" and "items" in schema:
        for one in content:
            compare(one, schema["items"], document, seen)


def fields_of(model: Any) -> set[str]:
    """Of a pydantic model, or of a dataclass."""
    return set(getattr(model, "model_fields", None) or model.__dataclass_fields__)

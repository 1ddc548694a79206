"""Results as they are downloaded, from a job whose unit gave one of every kind."""

import io

import numpy as np
import pytest
from sqlalchemy import select

from occluscope.analyses.contract import Outcome
from occluscope.results import KINDS, Matrix, NamedResult, Result
from service.store.leases import claim_unit
from service.store.packing import pack_outcome
from service.store.tables import Unit
from service.store.units import commit_unit
from tests.conftest import encode, random_picture
from tests.unit.api.conftest import Served
from tests.unit.results.test_kinds import RESULTS, VALUES

# Arrays in another order than C's, and in another byte order than this machine's.
GIVEN: dict[str, Result] = {
    **RESULTS,
    "columns first": Matrix(np.asfortranarray(VALUES), tuple("abcd"), "units", None, ""),
    "other bytes": Matrix(VALUES.astype(VALUES.dtype.newbyteorder()), tuple("abcd"), "units", None, ""),
}


@pytest.fixture(scope="module")
def addresses(served: Served) -> dict[str, str]:
    """Of each result, by name."""
    client = served.client()
    upload = {"file": (io.BytesIO(encode(random_picture(1))), "a.png")}
    image = client.post("/v1/images", data=upload, headers=served.headers).get_json()["id"]
    request = {"analysis": "occlusion", "model": "efficientnet_lite0", "images": [image]}
    job = client.post("/v1/jobs", json=request, headers=served.headers).get_json()["id"]
    with served.database.writing() as session:
        unit = session.scalars(select(Unit.id).where(Unit.job_id == job)).one()
        claim = claim_unit(session, unit, "w", 30)
        assert claim is not None
        given = [NamedResult(name, result, image) for name, result in GIVEN.items()]
        assert commit_unit(session, claim, pack_outcome(Outcome(given, [])))
    artifacts = client.get(f"/v1/jobs/{job}/results", headers=served.headers).get_json()["artifacts"]
    return {artifact["name"]: artifact["href"] for artifact in artifacts}


@pytest.mark.parametrize("name", [name for name, result in GIVEN.items() if "npy" in KINDS[result.kind].formats])
def test_an_array_is_given_as_its_result_writes_it(served: Served, addresses: dict[str, str], name: str) -> None:
    """Byte for byte, though it is sent as it is stored."""
    answer = served.client().get(f"{addresses[name]}?format=npy", headers=served.headers)
    assert answer.data == GIVEN[name].to_npy()
    assert answer.content_type == "application/x-npy"
    assert answer.headers["Content-Length"] == str(len(answer.data))
    headers = {**served.headers, "If-None-Match": answer.headers["ETag"]}
    assert served.client().get(f"{addresses[name]}?format=npy", headers=headers).status_code == 304


def test_every_kind_is_given_in_all_of_its_formats(served: Served, addresses: dict[str, str]) -> None:
    for name, result in GIVEN.items():
        for form in ("png", "npy", "json", "csv"):
            answer = served.client().get(f"{addresses[name]}?format={form}", headers=served.headers)
            assert answer.status_code == (200 if form in KINDS[result.kind].formats else 406), (name, form)

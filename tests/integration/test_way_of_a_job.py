"""The whole way: HTTP → database → Celery → worker → model → database → HTTP, with real servers and weights."""

import io
import json
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from openapi_spec_validator import validate
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from occluscope import analyses
from occluscope.analyses.contract import ImageRef
from occluscope.analyses.gathering import Gathered
from occluscope.client import ApiError, Artifact, Client, Job, Results, UnreachableError
from occluscope.models.loading import LoadedModel
from occluscope.results import Heatmap
from service.running.stack import Stack
from service.store.database import Database
from service.store.tables import Artifact as ArtifactRow
from tests.conftest import encode, random_picture

PARAMS = {"window": 56, "stride": 28, "feature_layer": "_blocks.9"}
STEPS = 49 + 66  # windows, and passes of the insertion and deletion curves


@pytest.fixture(scope="module")
def finished(stack: Stack, photographs: dict[str, Image.Image]) -> Job:
    """A job over two real pictures, done."""
    with Client(stack.url) as client:
        images = [client.upload(encode(photographs[name])).id for name in ("coffee", "camera")]
        return client.wait(client.submit("occlusion", "efficientnet_lite0", images, PARAMS).id)


@pytest.fixture
def artifact(client: Client, finished: Job) -> Artifact:
    return next(artifact for artifact in client.results(finished.id).artifacts if artifact.name == "drop_map")


def test_it_succeeds_with_every_step_done(finished: Job) -> None:
    assert (finished.state, finished.error) == ("succeeded", None)
    assert (finished.progress.done, finished.progress.total) == (2 * STEPS, 2 * STEPS)
    assert finished.started_at is not None
    assert finished.finished_at is not None
    assert finished.created_at <= finished.started_at < finished.finished_at


def test_its_results_are_bit_for_bit_the_librarys(
    client: Client, finished: Job, lite0: LoadedModel, photographs: dict[str, Image.Image]
) -> None:
    spec = analyses.spec("occlusion")
    params = spec.parse(PARAMS)
    (unit,) = spec.plan(params, lite0.card, [ImageRef(finished.images[0], 600, 400)], {})
    picture = lite0.card.preparation.prepare(photographs["coffee"])
    outcome = analyses.compute("occlusion")(lite0, [picture], params, unit, Gathered())
    stored = {
        artifact.name: artifact
        for artifact in client.results(finished.id).artifacts
        if artifact.image == finished.images[0]
    }
    assert set(stored) == {result.name for result in spec.results}
    for named in outcome.results:
        if isinstance(named.result, Heatmap):
            downloaded = np.load(io.BytesIO(client.download(stored[named.name], "npy")))
            assert downloaded.tobytes() == named.result.values.tobytes()
    first = [metric for metric in client.results(finished.id).metrics if metric.image == finished.images[0]]
    metrics = {metric.name: metric.value for metric in first}
    expected = {metric.name: metric.value for metric in outcome.metrics}
    assert {**metrics, "seconds": 0} == {**expected, "seconds": 0}


def test_results_name_their_pictures(client: Client, finished: Job) -> None:
    results = client.results(finished.id)
    assert [artifact.image for artifact in results.artifacts[:7]] == finished.images[:1] * 7
    assert {metric.image for metric in results.metrics} == set(finished.images)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "image/png"),
        ("*/*", "image/png"),
        ("image/png", "image/png"),
        ("application/x-npy", "application/x-npy"),
        ("application/json", "application/json"),
        ("text/csv;q=0.9, application/json;q=0.1", "text/csv; charset=utf-8"),
    ],
)
def test_the_accept_header_chooses_the_format(
    stack: Stack, artifact: Artifact, accept: str | None, media_type: str
) -> None:
    headers = {"Accept": accept} if accept else {}
    response = httpx.get(stack.url + artifact.href, headers=headers)
    assert response.status_code == 200
    assert response.headers["content-type"] == media_type


def test_the_formats_agree(client: Client, artifact: Artifact) -> None:
    array = np.load(io.BytesIO(client.download(artifact, "npy")))
    content = json.loads(client.download(artifact, "json"))
    rows = client.download(artifact, "csv").decode().splitlines()
    assert artifact.shape == list(array.shape) == [7, 7]
    assert np.array_equal(np.array(content["values"], dtype=np.float32), array)
    assert rows[0] == "y,x,probability"
    assert [np.float32(row.split(",")[2]) for row in rows[1:]] == array.ravel().tolist()
    assert Image.open(io.BytesIO(client.download(artifact, "png"))).format == "PNG"


def test_an_overlay_has_the_originals_size(client: Client, artifact: Artifact) -> None:
    overlay = Image.open(io.BytesIO(client.download(artifact, "png", overlay=1, alpha=0.4, colormap="viridis")))
    assert overlay.height == 400
    assert overlay.width > 600


def test_a_result_never_changes_and_says_so(stack: Stack, artifact: Artifact) -> None:
    url = stack.url + artifact.href
    first = httpx.get(url)
    etag = first.headers["etag"]
    assert not etag.startswith("W/")
    assert "immutable" in first.headers["cache-control"]
    assert httpx.get(url).content == first.content
    again = httpx.get(url, headers={"If-None-Match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert httpx.get(f"{url}?overlay=1").headers["etag"] != etag
    assert httpx.get(f"{url}?format=npy", headers={"If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("alpha=2", "alpha"),
        ("alpha=nan", "alpha"),
        ("colormap=pinkish", "colormap"),
        ("size=1", "size"),
        ("size=100000", "size"),
        ("overlay=perhaps", "overlay"),
        ("format=exe", "format"),
        ("colour=1", "colour"),
    ],
)
def test_bad_drawing_options_are_named(stack: Stack, artifact: Artifact, query: str, path: str) -> None:
    response = httpx.get(f"{stack.url}{artifact.href}?{query}")
    assert response.status_code == 422
    assert [error["path"] for error in response.json()["errors"]] == [path]


def test_a_format_that_is_not_offered_is_406(stack: Stack, client: Client, finished: Job, artifact: Artifact) -> None:
    assert httpx.get(stack.url + artifact.href, headers={"Accept": "video/mp4"}).status_code == 406
    table = next(artifact for artifact in client.results(finished.id).artifacts if artifact.kind == "table")
    with pytest.raises(ApiError, match="A table is given as png, json, csv"):
        client.download(table, "npy")
    with pytest.raises(ApiError, match="overlay: a table cannot be laid over a picture"):
        client.download(table, "png", overlay=1)


def test_what_breaks_on_our_side_is_not_told_as_the_callers_mistake(
    stack: Stack, client: Client, finished: Job
) -> None:
    """A result whose stored bytes are broken: a 500 that blames no field, with its reason in the log alone."""
    broken = next(one for one in client.results(finished.id).artifacts if one.name == "probability_map")
    database = Database(stack.settings.database_url)
    with database.writing() as session:
        row = session.get_one(ArtifactRow, broken.id)
        array, row.array = row.array, b"no array"
    try:
        answer = httpx.get(f"{stack.url}{broken.href}?format=png&overlay=1")
    finally:
        with database.writing() as session:
            session.get_one(ArtifactRow, broken.id).array = array
        database.close()
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"] == []
    assert "no array" not in answer.text


def test_results_come_in_pages_and_are_sent_again_only_when_they_changed(
    stack: Stack, client: Client, finished: Job
) -> None:
    url = f"{stack.url}/v1/jobs/{finished.id}/results"
    first = httpx.get(url, params={"limit": 1})
    second = httpx.get(stack.url + first.links["next"]["url"])
    assert "next" not in second.links
    assert second.json()["next_cursor"] is None
    pages = [Results.model_validate(page.json()) for page in (first, second)]
    for page, image in zip(pages, finished.images, strict=True):
        assert {one.image for one in page.artifacts} == {image}
    assert [one.id for page in pages for one in page.artifacts] == [
        one.id for one in client.results(finished.id).artifacts
    ]
    (of_one,) = client.results_pages(finished.id, image=finished.images[1], name="drop_map")
    assert [(one.name, one.image) for one in of_one.artifacts] == [("drop_map", finished.images[1])]
    again = httpx.get(url, params={"limit": 1}, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert httpx.get(url, params={"limit": 2}, headers={"If-None-Match": first.headers["etag"]}).status_code == 200
    for name, value in (("limit", "0"), ("limit", "1000"), ("cursor", "x"), ("pictures", "1")):
        answer = httpx.get(url, params={name: value})
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, name)


def test_submitting_answers_202_and_says_where_to_look(stack: Stack, client: Client) -> None:
    image = client.upload(encode(random_picture(1)))
    request = {"analysis": "occlusion", "model": "efficientnet_lite0", "images": [image.id], "params": {"window": 224}}
    response = httpx.post(f"{stack.url}/v1/jobs", json=request)
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{response.json()['id']}"
    assert int(response.headers["retry-after"]) >= 1
    assert client.wait(response.json()["id"]).state == "succeeded"


def test_an_idempotency_key_gives_the_same_job(stack: Stack, client: Client) -> None:
    image = client.upload(encode(random_picture(2)))
    request = {"analysis": "occlusion", "model": "efficientnet_lite0", "images": [image.id], "params": {"window": 224}}
    headers = {"Idempotency-Key": "test-key"}
    answers = [httpx.post(f"{stack.url}/v1/jobs", json=request, headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202] * 3
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = httpx.post(f"{stack.url}/v1/jobs", json={**request, "params": {"window": 112}}, headers=headers)
    assert other.status_code == 409
    assert other.headers["content-type"] == "application/problem+json"


def test_progress_and_time_left_are_seen_and_finished_pictures_read_while_it_runs(client: Client) -> None:
    images = [client.upload(encode(random_picture(seed))).id for seed in (3, 4)]
    job = client.submit("occlusion", "efficientnet_lite0", images, {"window": 32, "stride": 12, "method": "naive"})
    seen: list[Job] = []
    early: list[int] = []

    def look(current: Job) -> None:
        seen.append(current)
        if current.state == "running":
            early.append(sum(not artifact.preview for artifact in client.results(job.id).artifacts))

    client.wait(job.id, look)
    done = [current.progress.done for current in seen]
    assert done == sorted(done)
    assert len(set(done)) > 3
    assert any(current.progress.eta_seconds for current in seen if current.state == "running")
    assert 6 in early
    client.delete(job.id)


def test_deleting_a_running_job_frees_its_worker(client: Client) -> None:
    image = client.upload(encode(random_picture(5))).id
    params = {"window": 16, "stride": 2, "method": "naive", "insertion_deletion": False}
    long = client.submit("occlusion", "efficientnet_lite0", [image], params)
    assert long.progress.total == 105**2
    while client.job(long.id).state != "running":
        time.sleep(0.05)
    client.delete(long.id)
    start = time.monotonic()
    short = client.submit("occlusion", "efficientnet_lite0", [image], {"window": 224})
    assert client.wait(short.id).state == "succeeded"
    assert time.monotonic() - start < 60  # all 11,025 windows would take minutes
    with pytest.raises(ApiError, match="no such job"):
        client.job(long.id)


def test_cancelling_ends_a_job_wherever_it_is(client: Client) -> None:
    """One that runs, one that waits behind it, one that has ended; the worker is free long before it would be done."""
    image, other = (client.upload(encode(random_picture(seed))).id for seed in (5, 7))
    params = {"window": 16, "stride": 2, "method": "naive", "insertion_deletion": False}
    running = client.submit("occlusion", "efficientnet_lite0", [image], params)
    waiting = client.submit("occlusion", "efficientnet_lite0", [image, other], params)
    while client.job(running.id).state != "running":
        time.sleep(0.05)
    for job in (waiting, running, running):
        cancelled = client.cancel(job.id)
        assert (cancelled.state, cancelled.ended) == ("cancelled", True)
    start = time.monotonic()
    short = client.submit("occlusion", "efficientnet_lite0", [image], {"window": 224, "insertion_deletion": False})
    assert client.wait(short.id).state == "succeeded"
    assert time.monotonic() - start < 60  # all 11,025 windows would take minutes
    assert client.results(running.id).artifacts == []
    assert client.job(waiting.id).state == client.job(running.id).state == "cancelled"
    with pytest.raises(ApiError, match="already succeeded") as caught:
        client.cancel(short.id)
    assert caught.value.status == 409
    with pytest.raises(ApiError, match="no such job"):
        client.cancel("0" * 32)


def test_a_model_without_its_weights_fails_with_the_reason(client: Client) -> None:
    image = client.upload(encode(random_picture(6))).id
    job = client.wait(client.submit("occlusion", "squeezenet1_0", [image]).id)
    assert job.state == "failed"
    assert "weights of squeezenet1_0 are not on the worker's machine" in (job.error or "")
    assert client.results(job.id).artifacts == []


def test_jobs_are_listed_newest_first(client: Client, finished: Job) -> None:
    listed = [job.id for job in client.jobs(state="succeeded", analysis="occlusion")]
    assert finished.id in listed
    moments = [job.created_at for job in client.jobs()]
    assert moments == sorted(moments, reverse=True)


def test_models_and_analyses_are_described(client: Client) -> None:
    models = client.models()
    assert models[0]["name"] == "efficientnet_lite0"
    assert len(models) == 83
    model = client.model("efficientnet_lite0")
    assert model["labels"][967] == "espresso"
    assert {"name": "_conv_head", "type": "Conv2dStaticSamePadding", "shape": [1280, 7, 7]} in model["layers"]
    described = {analysis["name"]: analysis for analysis in client.analyses()}
    assert set(described) == {"correspondence", "invariance", "occlusion"}
    analysis = described["occlusion"]
    assert analysis["parameters"]["properties"]["window"]["default"] == [32, 32]
    assert {result["kind"] for result in analysis["results"]} == {"heatmap", "class_map", "curves", "table"}


def test_it_is_alive_ready_and_measured(stack: Stack, finished: Job) -> None:
    assert finished.state == "succeeded"
    assert httpx.get(f"{stack.url}/healthz").json() == {"status": "alive"}
    readiness = httpx.get(f"{stack.url}/readyz")
    assert readiness.json() == {"ready": True, "database": True, "broker": True, "workers": 1}
    families = {
        family.name: family for family in text_string_to_metric_families(httpx.get(f"{stack.url}/metrics").text)
    }
    jobs = {sample.labels["state"]: sample.value for sample in families["occluscope_jobs"].samples}
    assert jobs["succeeded"] >= 1
    assert families["occluscope_workers"].samples[0].value == 1


def test_the_openapi_document_is_valid_and_complete(stack: Stack) -> None:
    document = httpx.get(f"{stack.url}/openapi.json").json()
    validate(document)
    assert document["openapi"].startswith("3.1")
    operations = {(method, path) for path, item in document["paths"].items() for method in item}
    assert operations >= {
        ("post", "/v1/images"), ("get", "/v1/models"), ("get", "/v1/models/{name}"), ("get", "/v1/analyses"),
        ("post", "/v1/jobs"), ("get", "/v1/jobs"), ("get", "/v1/jobs/{id}"), ("delete", "/v1/jobs/{id}"),
        ("get", "/v1/jobs/{id}/results"), ("get", "/v1/artifacts/{id}"), ("get", "/healthz"), ("get", "/readyz"),
        ("get", "/metrics"),
    }  # fmt: skip
    problem = document["paths"]["/v1/jobs"]["post"]["responses"]["422"]["content"]
    assert list(problem) == ["application/problem+json"]


def test_a_client_without_a_service_says_so() -> None:
    with pytest.raises(UnreachableError, match="is the service running"), Client("http://127.0.0.1:9") as lonely:
        lonely.models()


def test_several_sizes_and_targets_are_told_apart(client: Client, finished: Job, tmp_path: Path) -> None:
    params = {"window": [56, [112, 56]], "stride": 56, "target": ["top1", {"layer": "_blocks.5", "channel": 3}]}
    job = client.wait(client.submit("occlusion", "efficientnet_lite0", finished.images[:1], params).id)
    assert (job.state, job.params["window"]) == ("succeeded", [[56, 56], [112, 56]])
    results = client.results(job.id)
    maps = {str(artifact.variant): artifact for artifact in results.artifacts if artifact.name == "drop_map"}
    sizes, targets = ("56×56", "112×56"), ("espresso", "channel 3 of _blocks.5")
    assert set(maps) == {f"{size} · {target}" for size in sizes for target in targets}
    windows = {str(metric.variant): metric.value for metric in results.metrics if metric.name == "windows"}
    assert windows == {"56×56": 16, "112×56": 12}
    written = {path.name for path in client.save_results(job.id, tmp_path)}
    assert "image-1-drop_map-112-56-espresso-overlay.png" in written
    files = [len(artifact.formats) + artifact.on_picture for artifact in results.artifacts]
    assert len(written) == sum(files) + 2  # every file has a name of its own; metrics.json, index.html


def test_a_mask_is_a_picture_of_the_same_size(client: Client, finished: Job) -> None:
    mask = np.zeros((400, 600, 3), dtype=np.uint8)
    mask[100:300, 200:400] = 255
    drawn, other = client.upload(encode(Image.fromarray(mask))), client.upload(encode(Image.fromarray(mask[:50])))
    params = {"window": 56, "stride": 56, "region": drawn.id}
    job = client.wait(client.submit("occlusion", "efficientnet_lite0", finished.images[:1], params).id)
    names = {metric.name for metric in client.results(job.id).metrics}
    assert {"pointing_hit", "energy_inside", "drop_inside_minus_outside"} <= names
    for region, reason in ((other.id, "the mask is 600 × 50 pixels"), ("0" * 32, "there is no such picture")):
        with pytest.raises(ApiError) as caught:
            client.submit("occlusion", "efficientnet_lite0", finished.images[:1], {"region": region})
        (error,) = caught.value.errors
        assert error.path == "params.region"
        assert reason in error.message


def test_a_map_can_be_watched_while_it_is_made(client: Client, finished: Job) -> None:
    params = {"stride": 4, "method": "naive", "insertion_deletion": False}
    job = client.submit("occlusion", "efficientnet_lite0", finished.images[:1], params)
    seen: list[Artifact] = []
    deadline = time.monotonic() + 60
    while len({artifact.id for artifact in seen}) < 2 and time.monotonic() < deadline:
        seen += [artifact for artifact in client.results(job.id).artifacts if artifact.preview]
        time.sleep(0.1)
    assert {artifact.name for artifact in seen} == {"drop_map"}
    values = np.load(io.BytesIO(client.download(seen[-1], "npy")))
    assert 0 < np.isfinite(values).sum() < values.size
    assert client.download(seen[-1], "png", overlay=1).startswith(b"\x89PNG")
    client.delete(job.id)


def test_nothing_of_a_preview_is_left(client: Client, finished: Job) -> None:
    job = client.submit("occlusion", "efficientnet_lite0", finished.images[:1], {"stride": 8, "method": "adaptive"})
    job = client.wait(job.id)
    results = client.results(job.id)
    assert job.state == "succeeded"
    assert not any(artifact.preview for artifact in results.artifacts)
    metrics = {metric.name: metric.value for metric in results.metrics}
    assert metrics["windows_run"] < metrics["windows"] == 625
    assert 0 < metrics["estimated_error"] < 0.1

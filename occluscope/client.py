"""Talking to a running service over HTTP.

>>> client = Client("http://127.0.0.1:8000")  # doctest: +SKIP
>>> image = client.upload(Path("cat.jpg"))  # doctest: +SKIP
>>> job = client.submit("occlusion", "efficientnet_lite0", [image.id], {"window": 48})  # doctest: +SKIP
>>> client.wait(job.id).state  # doctest: +SKIP
'succeeded'
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, TypeVar
from uuid import uuid4

import httpx
from pydantic import BaseModel, ValidationError

from occluscope import __version__
from occluscope.analyses.contract import field_errors
from occluscope.errors import FieldError, OccluscopeError
from occluscope.wire import (
    AnalysisList,
    Artifact,
    Image,
    Job,
    JobList,
    Metric,
    ModelDetail,
    ModelList,
    Problem,
    Progress,
    Results,
    ResultsPage,
    Webhook,
    WebhookSecret,
)

__all__ = [
    "DEFAULT_URL",
    "ApiError",
    "Artifact",
    "Client",
    "Image",
    "Job",
    "Metric",
    "Progress",
    "Results",
    "UnexpectedAnswerError",
    "UnreachableError",
    "Webhook",
]

Read = TypeVar("Read", bound=BaseModel)

DEFAULT_URL: Final = "http://127.0.0.1:8000"
_FIRST_POLL_SECONDS: Final = 0.1
_LONGEST_POLL_SECONDS: Final = 1.0
_MOST_TRIES: Final = 5  # tries of a request while the service is too busy
_LONGEST_RETRY_SECONDS: Final = 30.0
_SHOWN_ERRORS: Final = 5  # errors of an answer that are shown


class ApiError(OccluscopeError):
    """The service refused a request. status: the HTTP status. errors: the fields that break a rule."""

    def __init__(self, status: int, detail: str, errors: Sequence[FieldError] = ()) -> None:
        self.status = status
        self.errors = tuple(errors)
        fields = "".join(f"\n  {error.path}: {error.message}" for error in errors)
        super().__init__(f"{detail}{fields}")


class UnreachableError(OccluscopeError):
    """No service answers at the address."""


class UnexpectedAnswerError(ApiError):
    """The answer is not one of an Occluscope service, or of a version that this client does not understand."""


class Client:
    """A service's HTTP API.

    url: the service's address, by default ``OCCLUSCOPE_URL`` or port 8000 on this machine. api_key: the key of the
    jobs' owner, by default ``OCCLUSCOPE_API_KEY``; not needed if the service has no keys.

    Every method raises `ApiError` if the service refuses the request, `UnreachableError` if no service answers, and
    `UnexpectedAnswerError` if the answer has another form. If the service is too busy for a picture (503), the request
    is repeated after the time that the service names, at most five times in all.
    """

    def __init__(self, url: str | None = None, timeout_seconds: float = 30.0, api_key: str | None = None) -> None:
        self.url = url or os.environ.get("OCCLUSCOPE_URL", DEFAULT_URL)
        key = api_key or os.environ.get("OCCLUSCOPE_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=self.url, timeout=timeout_seconds, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def upload(self, picture: str | os.PathLike[str] | bytes | BinaryIO) -> Image:
        """Upload a picture: a file's path, its bytes, or a file opened for bytes. The same bytes give the same id."""
        if isinstance(picture, str | os.PathLike):
            content = Path(picture).read_bytes()
        else:
            content = picture if isinstance(picture, bytes) else picture.read()
        return _read(Image, self._ask_again("POST", "/v1/images", files={"file": content}))

    def models(self) -> list[dict[str, Any]]:
        """Every model: name, source, input size, number of classes."""
        return list(_checked(ModelList, self._ask("GET", "/v1/models"))["models"])

    def model(self, name: str) -> dict[str, Any]:
        """A model with its labels and layers."""
        return _checked(ModelDetail, self._ask("GET", f"/v1/models/{name}"))

    def analyses(self) -> list[dict[str, Any]]:
        """Every analysis with the JSON Schema of its parameters and its results' names and kinds."""
        return list(_checked(AnalysisList, self._ask("GET", "/v1/analyses"))["analyses"])

    def submit(
        self,
        analysis: str,
        model: str | Sequence[str],
        images: str | Image | Sequence[str | Image],
        params: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        priority: str = "batch",
        *,
        webhook: str | None = None,
    ) -> Job:
        """Submit a job. It runs when a worker is free.

        model: one, or several to compare their results. images: one or several pictures, as uploaded or by id.
        priority: while both wait, ``interactive`` has three turns of four, and ``batch`` the fourth.
        idempotency_key: submitting again with the same key returns the same job; by default a new key.
        webhook: URL on the open Internet that is notified when the job has ended.
        """
        which = {"model": model} if isinstance(model, str) else {"models": list(model)}
        pictures = [images] if isinstance(images, str | Image) else images
        ids = [one.id if isinstance(one, Image) else one for one in pictures]
        what = {"images": ids, "params": dict(params or {}), "priority": priority}
        notified = {"webhook": webhook} if webhook else {}
        request = {"analysis": analysis, **which, **what, **notified}
        headers = {"Idempotency-Key": idempotency_key or uuid4().hex}
        return _read(Job, self._ask("POST", "/v1/jobs", json=request, headers=headers))

    def webhook_secret(self) -> str:
        """The secret that deliveries to this owner's webhooks are signed with (Standard Webhooks)."""
        return _read(WebhookSecret, self._ask("GET", "/v1/webhooks/secret")).secret

    def job(self, job_id: str) -> Job:
        """A job's state and progress."""
        return _read(Job, self._ask("GET", f"/v1/jobs/{job_id}"))

    def jobs(self, state: str | None = None, analysis: str | None = None) -> Iterator[Job]:
        """Jobs, newest first. Pages are fetched when they are needed."""
        query = {name: value for name, value in (("state", state), ("analysis", analysis)) if value}
        while True:
            page = _read(JobList, self._ask("GET", "/v1/jobs", params=query))
            yield from (Job(**dict(summary)) for summary in page.jobs)
            if not page.next_cursor:
                return
            query["cursor"] = page.next_cursor

    def cancel(self, job_id: str) -> Job:
        """Cancel a job that has not ended. The results of its finished units stay."""
        return _read(Job, self._ask("POST", f"/v1/jobs/{job_id}/cancel"))

    def delete(self, job_id: str) -> None:
        """Delete a job with its results."""
        self._ask("DELETE", f"/v1/jobs/{job_id}")

    def wait(self, job_id: str, on_progress: Callable[[Job], None] | None = None) -> Job:
        """Poll until the job has ended. on_progress: called with the job after each poll."""
        pause = _FIRST_POLL_SECONDS
        response = self._ask("GET", f"/v1/jobs/{job_id}")
        job, known = _read(Job, response), response.headers.get("ETag", "")
        while True:
            if on_progress:
                on_progress(job)
            if job.ended:
                return job
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)
            response = self._ask("GET", f"/v1/jobs/{job_id}", headers={"If-None-Match": known} if known else {})
            if response.status_code != httpx.codes.NOT_MODIFIED:
                job, known = _read(Job, response), response.headers.get("ETag", "")

    def results(self, job_id: str, *, after: int | None = None) -> Results:
        """All results of the job's finished units so far, and previews of running ones.

        after: a `results_version` that an earlier answer had. Only results of units that gave or replaced some since
        then. Of the earlier results, previews that are not among `previews` are gone, and all else stays.
        """
        found = Results(metrics=[], artifacts=[])
        for page in self.results_pages(job_id, after=after):
            found.metrics.extend(page.metrics)
            found.artifacts.extend(page.artifacts)
            found.results_version, found.previews = page.results_version, page.previews
        return found

    def results_pages(
        self, job_id: str, *, image: str | None = None, name: str | None = None, after: int | None = None
    ) -> Iterator[Results]:
        """Results picture by picture, at last those of no single picture. Pages are fetched when they are needed.

        image: results of this picture only. name: artifacts of this name only, with all numbers of their pictures.
        after: as of `results`.
        """
        asked = (("image", image), ("name", name), ("after", after))
        query: dict[str, str | int] = {what: value for what, value in asked if value not in (None, "")}
        while True:
            page = _read(ResultsPage, self._ask("GET", f"/v1/jobs/{job_id}/results", params=query))
            yield page
            if not page.next_cursor:
                return
            query["cursor"] = page.next_cursor

    def download(self, artifact: Artifact, format: str, **options: Any) -> bytes:  # noqa: A002 - the API's word
        """One result as ``png``, ``npy``, ``json`` or ``csv``.

        options: for a PNG: ``overlay=1``, ``alpha``, ``colormap``, ``size``.
        """
        return self._ask_again("GET", artifact.href, params={"format": format, **options}).content

    def save_results(
        self, job_id: str, folder: str | os.PathLike[str], names: Mapping[str, str] | None = None
    ) -> list[Path]:
        """Write a job's results: every result in every format it has, its overlay, ``metrics.json``, ``index.html``.

        names: of the pictures, by id; by default image-1, image-2, … in the job's order.
        Several files are fetched at a time. Returns the files written, the page last.
        """
        from occluscope.report import Chapter, write_report  # it imports this module

        return write_report(self, Path(folder), None, [Chapter(job_id, names=names or {})])

    def _ask_again(self, method: str, path: str, **options: Any) -> httpx.Response:
        """As `_ask`, for requests that may be repeated: after a 503 it waits for ``Retry-After`` and tries again."""
        for _ in range(_MOST_TRIES - 1):
            response = self._request(method, path, **options)
            pause = response.headers.get("Retry-After", "")
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE or not pause.isdecimal():
                return self._succeeded(response)
            time.sleep(min(float(pause), _LONGEST_RETRY_SECONDS))
        return self._ask(method, path, **options)

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._succeeded(self._request(method, path, **options))

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise UnreachableError(
                f"the service's address is '{self.url}'; it must begin with http:// or https://"
            ) from error
        except httpx.TransportError as error:
            raise UnreachableError(
                f"no answer from {self.url} ({type(error).__name__}); is the service running?"
            ) from error

    @staticmethod
    def _succeeded(response: httpx.Response) -> httpx.Response:
        if response.is_success or response.status_code == httpx.codes.NOT_MODIFIED:
            return response
        try:
            problem = Problem.model_validate({"title": "", "status": response.status_code, **response.json()})
        except (ValueError, TypeError):
            raise ApiError(response.status_code, f"the service answered {response.status_code}") from None
        detail = problem.detail
        if response.status_code == httpx.codes.UNAUTHORIZED:
            detail += " The client takes it as api_key, the command line from OCCLUSCOPE_API_KEY."
        raise ApiError(response.status_code, detail, [FieldError(one.path, one.message) for one in problem.errors])


def _read(wanted: type[Read], response: httpx.Response) -> Read:
    """The answer as an object. Fields that this client does not know are ignored."""
    try:
        return wanted.model_validate(response.json())
    except ValidationError as error:
        raise _unexpected(wanted, response, field_errors(error)[:_SHOWN_ERRORS]) from error
    except ValueError as error:
        raise _unexpected(wanted, response, ()) from error


def _checked(wanted: type[BaseModel], response: httpx.Response) -> dict[str, Any]:
    """The answer as a dictionary with all its fields."""
    _read(wanted, response)
    return dict(response.json())


def _unexpected(
    wanted: type[BaseModel], response: httpx.Response, errors: Sequence[FieldError]
) -> UnexpectedAnswerError:
    asked = f"{response.request.method} {response.request.url}"
    what = "fields that this client does not understand" if errors else "no JSON"
    detail = f"{asked} answered with {what}, where {wanted.__name__} is expected; right is an Occluscope service of "
    return UnexpectedAnswerError(response.status_code, f"{detail}about the client's version, {__version__}.", errors)

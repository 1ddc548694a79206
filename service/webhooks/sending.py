"""Sending one delivery to a checked address, signed by the Standard Webhooks specification.

Receivers can verify it with any of its libraries: https://www.standardwebhooks.com
"""

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final, NamedTuple

import httpx
import structlog
from standardwebhooks import Webhook

from occluscope import __version__
from service.store.deliveries import Due
from service.webhooks.addresses import (
    Allowance,
    ForbiddenAddressError,
    UnknownAddressError,
    check_addresses,
    host_of,
    parse_url,
)
from service.webhooks.lookup import begin_look_up

ATTEMPT_SECONDS: Final = 10.0  # in total, from resolving the host to the last header of the answer
_REASON_LETTERS: Final = 300  # of an error's text, part of which the receiver writes
_CONNECT_SECONDS: Final = 4.0  # to one of the name's addresses, before the next is tried

_log = structlog.get_logger(__name__)


class Sent(NamedTuple):
    """The result of an attempt.

    status: HTTP status of the answer, if one came. error: why the attempt failed, if it did. looking_up: the look-up of
    the host, which may outlast the attempt.
    """

    status: int | None
    error: str | None
    looking_up: "Future[list[str]] | None" = None


class Sender:
    """Makes attempts, any number at once."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._tls = httpx.create_ssl_context(trust_env=False)  # slow to make, so made once

    async def attempt(self, due: Due, secret: str) -> Sent:
        """Make one attempt within `ATTEMPT_SECONDS`; whatever goes wrong is its result, not an exception."""
        looking_up = None
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                url = parse_url(due.url, self._allowance)
                looking_up = begin_look_up(url)
                addresses = await asyncio.wrap_future(looking_up)
                check_addresses(host_of(url), addresses, self._allowance)
                status = await self._post_to_any(url, addresses, due, secret)
        except TimeoutError:
            return Sent(None, f"no answer within {ATTEMPT_SECONDS:g} s", looking_up)
        except (ForbiddenAddressError, UnknownAddressError, httpx.HTTPError) as error:
            return Sent(None, (str(error) or type(error).__name__)[:_REASON_LETTERS], looking_up)
        except Exception as error:  # noqa: BLE001 - counts as an attempt, or it would be made for ever
            _log.exception("delivery raised", job=due.job_id, delivery=due.id)
            return Sent(None, f"internal error ({type(error).__name__})", looking_up)
        taken = HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES
        return Sent(status, None if taken else f"it answered {status}", looking_up)

    async def _post_to_any(self, url: httpx.URL, addresses: Sequence[str], due: Due, secret: str) -> int:
        """Send to the first address that accepts a connection."""
        *others, last = addresses
        for address in others:
            with suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await self._post(url, address, due, secret)
        return await self._post(url, last, due, secret)

    async def _post(self, url: httpx.URL, address: str, due: Due, secret: str) -> int:
        """Return the answer's status. Its body is not read, and redirections are not followed."""
        body = json.dumps(due.message)
        headers = {
            "Host": url.netloc.decode("ascii"),
            "Content-Type": "application/json",
            "User-Agent": f"Occluscope/{__version__}",
            **_signature(secret, due.id, body),
        }
        limits = httpx.Timeout(ATTEMPT_SECONDS, connect=_CONNECT_SECONDS)
        # A client for each request: a connection kept open for one host name must not serve another's certificate.
        async with (
            httpx.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False, timeout=limits) as client,
            client.stream(
                "POST",
                url.copy_with(host=address),
                content=body,
                headers=headers,
                extensions={"sni_hostname": host_of(url).removesuffix(".")},
            ) as answer,
        ):
            return answer.status_code


def _signature(secret: str, delivery_id: str, body: str) -> dict[str, str]:
    """Headers of Standard Webhooks: HMAC-SHA256 over id, timestamp (seconds since 1970) and body."""
    moment = datetime.now(UTC)
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign(delivery_id, moment, body),
    }

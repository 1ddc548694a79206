"""The deliverer: tells webhooks that their jobs have ended, again with ever longer pauses until they have taken it.

Signed as Standard Webhooks has it (https://www.standardwebhooks.com), so that receivers can check it with a library.
"""

import asyncio
import json
import threading
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final, NamedTuple

import httpx
import structlog
from sqlalchemy.exc import SQLAlchemyError
from standardwebhooks import Webhook

from occluscope import __version__
from service.addresses import (
    Allowance,
    ForbiddenAddressError,
    UnknownAddressError,
    check_addresses,
    host_of,
    parse_url,
)
from service.lookup import begin_look_up
from service.settings import Settings
from service.store.database import Database
from service.store.deliveries import Due, claim_deliveries, has_due, note_delivered, note_refused, webhook_secret

_AT_ONCE: Final = 16
_LOOK_SECONDS: Final = 0.5  # between two looks for what is due
_ANSWER_SECONDS: Final = 10.0  # from looking up the name to the answer's first line
_GROWTH: Final = 3.0  # of the pause, with each attempt
_LONGEST_PAUSE_SECONDS: Final = 6 * 3600.0

_log = structlog.get_logger(__name__)


class Sent(NamedTuple):
    """What came of an attempt. status: of the answer, if there was one. error: why it was none, if so."""

    due: Due
    status: int | None
    error: str | None


class Deliverer:
    """Round after round; any number of them may run at once."""

    def __init__(self, database: Database, config: Settings) -> None:
        self._database = database
        self._config = config

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; whatever goes wrong, the next round comes."""
        while not stop.wait(_LOOK_SECONDS):
            try:
                self.round()
            except SQLAlchemyError as error:
                _log.warning("database out of reach", error=str(error))
            except Exception:  # noqa: BLE001 - nobody else would deliver the rest
                _log.exception("deliveries broke off")

    def round(self) -> int:
        """Deliver what is due, some at once; gives how many were tried."""
        with self._database.reading() as session:  # SQLite's one writer need not be asked for nothing
            if not has_due(session):
                return 0
        with self._database.writing() as session:
            claimed = claim_deliveries(session, _AT_ONCE, _ANSWER_SECONDS + self._config.lease_seconds)
            secrets = {due.owner: webhook_secret(session, due.owner) for due in claimed}
        for due, status, error in asyncio.run(self._send_all(claimed, secrets)):
            self._note(due, status, error)
        return len(claimed)

    async def _send_all(self, claimed: list[Due], secrets: dict[str, str]) -> list[Sent]:
        return await asyncio.gather(*(self._try(due, secrets[due.owner]) for due in claimed))

    async def _try(self, due: Due, secret: str) -> Sent:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                status = await self._send(due, secret)
        except TimeoutError:
            return Sent(due, None, f"no answer within {_ANSWER_SECONDS:.0f} s")
        except (ForbiddenAddressError, UnknownAddressError, httpx.HTTPError) as error:
            return Sent(due, None, str(error) or type(error).__name__)
        except Exception as error:  # noqa: BLE001 - counts as an attempt, or it would be made for ever
            _log.exception("delivery raised", job=due.job_id, delivery=due.id)
            return Sent(due, None, f"internal error ({type(error).__name__})")
        taken = HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES
        return Sent(due, status, None if taken else f"it answered {status}")

    async def _send(self, due: Due, secret: str) -> int:
        """Gives the answer's status; what else it says is not read, and no redirection is followed."""
        allowance = Allowance.of(self._config)
        url = parse_url(due.url, allowance)
        addresses = await asyncio.wrap_future(begin_look_up(url))
        check_addresses(host_of(url), addresses, allowance)
        body = json.dumps(due.message)
        headers = {
            "Host": url.netloc.decode("ascii"),
            "Content-Type": "application/json",
            "User-Agent": f"Occluscope/{__version__}",
            **_signature(secret, due.id, body),
        }
        # One client each: a connection kept open to an address is not for another name's certificate.
        async with (
            httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=_ANSWER_SECONDS) as client,
            client.stream(
                "POST",
                url.copy_with(host=addresses[0]),
                content=body,
                headers=headers,
                extensions={"sni_hostname": host_of(url).removesuffix(".")},
            ) as answer,
        ):
            return answer.status_code

    def _note(self, due: Due, status: int | None, error: str | None) -> None:
        facts = {"job": due.job_id, "delivery": due.id, "attempt": due.attempt, "status": status}
        pause = self._pause(due, status)
        with self._database.writing() as session:
            if error is None:
                note_delivered(session, due, status)
            else:
                note_refused(session, due, error, status, pause)
        if error is None:
            _log.info("webhook told", **facts)
        else:
            _log.warning("webhook not told", **facts, error=error, again_in_seconds=pause)

    def _pause(self, due: Due, status: int | None) -> float | None:
        """Seconds until the next attempt; none where there will be none."""
        if due.attempt >= self._config.webhook_attempts or status == HTTPStatus.GONE:
            return None
        pause = self._config.webhook_retry_seconds * _GROWTH ** (due.attempt - 1)
        return min(pause, _LONGEST_PAUSE_SECONDS)


def _signature(secret: str, delivery_id: str, body: str) -> dict[str, str]:
    """Headers of Standard Webhooks: HMAC-SHA256 over id, timestamp (seconds since 1970) and body."""
    moment = datetime.now(UTC)
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign(delivery_id, moment, body),
    }

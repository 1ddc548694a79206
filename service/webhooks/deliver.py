"""The deliverer: notifies webhooks that their jobs have ended, and retries with growing pauses until they accept.

A fixed number of attempts run at once. When one ends, its place goes to the next owner at once (`places.py`).
"""

import asyncio
import threading
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from service.settings import Settings
from service.store.database import Database
from service.store.deliveries import Due, claim_deliveries, note_delivered, note_refused, owners_due, webhook_secret
from service.webhooks.addresses import Allowance
from service.webhooks.places import Places
from service.webhooks.sending import ATTEMPT_SECONDS, Sender, Sent

PLACES: Final = 64  # attempts at once
PLACES_OF_ONE_OWNER: Final = 16
_LOOK_SECONDS: Final = 0.5  # between two checks for due deliveries
_LONGEST_GROWTH: Final = 40  # times that a pause grows; far beyond the longest pause, and no overflow
_GROWTH: Final = 3.0  # factor by which the pause grows with each attempt
_LONGEST_PAUSE_SECONDS: Final = 6 * 3600.0

_log = structlog.get_logger(__name__)


class Deliverer:
    """Delivers what is due. Any number of deliverers may run at once; each has its own places."""

    def __init__(self, database: Database, config: Settings) -> None:
        self._database = database
        self._config = config
        self._sender = Sender(Allowance.of(config))
        self._places = Places(PLACES, PLACES_OF_ONE_OWNER)
        self._attempts: set[asyncio.Task[None]] = set()

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set, whatever goes wrong meanwhile. Attempts under way are then abandoned."""
        asyncio.run(self._run(stop))

    def deliver_due(self) -> int:
        """Deliver until nothing is due; return the number of attempts."""
        return asyncio.run(self._deliver_due())

    async def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            started = 0
            try:
                started = await self._start_due()
            except SQLAlchemyError as error:
                _log.warning("database out of reach", error=str(error))
            except Exception:  # noqa: BLE001 - nobody else would deliver the rest
                _log.exception("deliveries broke off")
            if not started:
                await self._wait()

    async def _deliver_due(self) -> int:
        tried = 0
        while (started := await self._start_due()) or self._attempts:
            tried += started
            if not started:
                await self._wait()
        return tried

    async def _wait(self) -> None:
        """Wait until a place becomes free, or until the next check is due."""
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(_LOOK_SECONDS)

    async def _start_due(self) -> int:
        """Begin due deliveries while places are free; return how many were begun."""
        if not self._places.free:
            return 0
        shares = self._places.share(await asyncio.to_thread(self._owners_due))
        if not shares:  # SQLite has one writer; do not take its lock for nothing
            return 0
        claimed = await asyncio.to_thread(self._claim, shares)
        for due, secret in claimed:
            self._places.take(due.owner)
            attempt = asyncio.create_task(self._attempt(due, secret))
            self._attempts.add(attempt)
            attempt.add_done_callback(self._attempts.discard)
        return len(claimed)

    def _owners_due(self) -> list[str]:
        with self._database.reading() as session:
            return owners_due(session)

    def _claim(self, shares: Mapping[str, int]) -> list[tuple[Due, str]]:
        lease_seconds = ATTEMPT_SECONDS + self._config.lease_seconds
        with self._database.writing() as session:
            # Sorted, and before deliveries: two deliverers that make secrets must not wait for each other.
            secrets = {owner: webhook_secret(session, owner) for owner in sorted(shares)}
            return [
                (due, secrets[owner])
                for owner, share in shares.items()
                for due in claim_deliveries(session, owner, share, lease_seconds)
            ]

    async def _attempt(self, due: Due, secret: str) -> None:
        """Make one attempt and record its result. Its place is free once the attempt and its look-up have ended."""
        try:
            sent = await self._sender.attempt(due, secret)
            try:
                await asyncio.to_thread(self._note, due, sent)
            except SQLAlchemyError as error:  # it is due again once its claim has expired
                _log.warning("database out of reach", job=due.job_id, delivery=due.id, error=str(error))
            if sent.looking_up:
                with suppress(Exception):  # it was reported above
                    await asyncio.wrap_future(sent.looking_up)
        finally:
            self._places.give_back(due.owner)

    def _note(self, due: Due, sent: Sent) -> None:
        facts = {"job": due.job_id, "delivery": due.id, "attempt": due.attempt, "status": sent.status}
        pause = self._pause(due, sent.status)
        with self._database.writing() as session:
            if sent.error is None:
                note_delivered(session, due, sent.status)
            else:
                note_refused(session, due, sent.error, sent.status, pause)
        if sent.error is None:
            _log.info("webhook told", **facts)
        else:
            _log.warning("webhook not told", **facts, error=sent.error, again_in_seconds=pause)

    def _pause(self, due: Due, status: int | None) -> float | None:
        """Seconds until the next attempt; None after the last one."""
        if due.attempt >= self._config.webhook_attempts or status == HTTPStatus.GONE:
            return None
        pause = self._config.webhook_retry_seconds * _GROWTH ** min(due.attempt - 1, _LONGEST_GROWTH)
        return min(pause, _LONGEST_PAUSE_SECONDS)

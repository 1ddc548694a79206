"""Which ending a unit has after its computation raised something."""

import pytest
import torch
from sqlalchemy.exc import InterfaceError, OperationalError

from occluscope.analyses.contract import Unit
from occluscope.errors import OccluscopeError, UnitAbortedError
from service.store.database import now
from service.store.leases import Claim
from workers.endings import MOST_OUTAGES, Ending, Failed, GivenBack, ending_after

AWAY = InterfaceError("SELECT 1", {}, OSError("connection refused"))


def refused() -> OperationalError:
    """An error that names its statement's data, as SQLite has it."""
    error = OSError("integer overflow")
    error.sqlite_errorcode = 1  # type: ignore[attr-defined]
    return OperationalError("SELECT 1", {}, error)


def after(error: BaseException, *, attempts: int = 1, outages: int = 0, stopping: bool = False) -> Ending:
    claim = Claim("u", "j", 1, "occlusion", "m", {}, Unit((), 1), now(), attempts=attempts, outages=outages)
    return ending_after(error, claim, max_attempts=3, stopping=stopping)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OccluscopeError("picture 7 is gone"), "picture 7 is gone"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory while running m"),
        (MemoryError(), "out of memory while running m"),
        (ZeroDivisionError(), "internal error (ZeroDivisionError); the worker's log has unit u"),
        (SystemExit(3), "internal error (SystemExit); the worker's log has unit u"),
    ],
)
def test_what_cannot_be_done_fails_with_a_reason(error: BaseException, reason: str) -> None:
    assert after(error) == Failed(reason)


def test_a_unit_that_is_no_longer_wanted_waits_again_and_loses_no_attempt() -> None:
    assert after(UnitAbortedError("the worker stops")) == GivenBack()
    assert after(KeyboardInterrupt(), stopping=True) == GivenBack()
    assert after(ZeroDivisionError(), stopping=True) != GivenBack()


def test_a_database_that_was_away_costs_no_attempt_until_it_was_away_too_often() -> None:
    assert after(AWAY) == GivenBack(outage=True)
    assert after(AWAY, outages=MOST_OUTAGES) == GivenBack(failed_attempt=True)
    assert after(AWAY, outages=MOST_OUTAGES, attempts=3) == Failed(
        "the database failed 3 times under it (OSError); the worker's log has unit u"
    )


def test_data_that_the_database_cannot_give_cost_an_attempt_each_time() -> None:
    assert after(refused(), attempts=2) == GivenBack(failed_attempt=True)
    assert isinstance(after(refused(), attempts=3), Failed)

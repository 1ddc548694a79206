"""One service for each pair of servers, mended after every fault; and the account of all jobs, printed at the end."""

from collections.abc import Iterator

import pytest

from tests.faults.ledger import INSTANT, SECONDS_LONG, Totals
from tests.faults.site import Site, running_site
from tests.parts import BROKERS, consumers, wait_until

WORKERS = 2
ONE_PAIR = {  # of servers, where what is tried has little to do with the database; the other pair in the long run alone
    "test_api.py": "sqlite-valkey",
    "test_broker.py": "postgresql-valkey",
    "test_cancel.py": "sqlite-valkey",
    "test_reconcilers.py": "postgresql-valkey",
    "test_webhooks.py": "postgresql-valkey",
}
_totals = pytest.StashKey[dict[str, Totals]]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the second pair of servers to the long run, by `ONE_PAIR`; another broker is no second database."""
    for item in items:
        call = getattr(item, "callspec", None)
        pair = call.params.get("running") if call else None
        if pair in ("sqlite-valkey", "postgresql-valkey") and pair != ONE_PAIR.get(item.path.name, pair):
            item.add_marker("long")


@pytest.fixture(scope="session", params=["sqlite-valkey", "postgresql-valkey"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    database, broker = request.param.split("-")
    if BROKERS[broker] is None:
        pytest.skip("there is no redis-server (Debian: apt-get install redis-server)")
    with running_site(tmp_path_factory.mktemp(request.param), database, broker, WORKERS) as site:
        site.ledger.know(SECONDS_LONG, 0)
        site.ledger.know(INSTANT, 1)
        yield site


@pytest.fixture
def site(running: Site, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A service in which all is well; afterwards every job that was accepted must have ended, once and right."""
    yield running
    running.broker.recover()
    if running.database:
        running.database.recover()
    wait_until(lambda: _all_are_back(running), 60)
    totals = running.ledger.audit()
    session = request.session.stash.setdefault(_totals, {})
    session.setdefault(running.name, Totals()).__iadd__(totals)
    assert totals.all_well, f"{totals}: {running.ledger.findings}"


def _all_are_back(site: Site) -> bool:
    site.parts.revive()  # the watchdog may end a worker while we wait
    return consumers(site.parts.url) == WORKERS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    session = terminalreporter._session
    assert session is not None
    for name, totals in session.stash.get(_totals, {}).items():
        terminalreporter.write_line(f"faults on {name}: jobs {totals}")

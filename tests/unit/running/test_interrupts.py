"""Ctrl-C and other signals end a process, whenever they come."""

import signal
import subprocess
import sys

import pytest

from service.running.interrupts import signals_as_interrupts


class Finalised:
    """Python drops what is raised while it runs `__del__`."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __del__(self) -> None:
        signal.raise_signal(self._number)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_while_an_object_is_finalised_is_not_lost(number: int) -> None:
    before = signal.getsignal(number)
    with signals_as_interrupts() as raise_if_asked:
        raise_if_asked()
        finalised = Finalised(number)
        del finalised
        with pytest.raises(KeyboardInterrupt):
            raise_if_asked()
    assert signal.getsignal(number) == before


def test_a_signal_raises_at_once_otherwise() -> None:
    with signals_as_interrupts(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(("start", "status"), [("default_int_handler", -signal.SIGINT), ("SIG_IGN", 0)])
def test_ctrl_c_while_modules_are_imported_ends_the_process_unless_it_is_ignored(start: str, status: int) -> None:
    code = (
        f"import signal; signal.signal(signal.SIGINT, signal.{start})\n"
        "from service.running.interrupts import ctrl_c_ends_at_once\n"
        "class Finalised:\n    def __del__(self): signal.raise_signal(signal.SIGINT)\n"
        "with ctrl_c_ends_at_once():\n    Finalised()\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == status

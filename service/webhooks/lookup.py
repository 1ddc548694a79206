"""Looking up the host of a webhook: each in a thread of its own, since a name server may not answer for a minute.

What it leads to is checked, and the request goes to the very addresses that were checked.
"""

import socket
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import Final

import httpx

from service.webhooks.addresses import (
    Allowance,
    ForbiddenAddressError,
    UnknownAddressError,
    check_addresses,
    host_of,
    is_ip,
    parse_url,
    port_of,
)

_SUBMISSION_SECONDS: Final = 2.0  # that a request waits for a name server
_SUBMISSIONS: Final = threading.BoundedSemaphore(16)  # look-ups of requests at once, those given up included


def checked_url(url: str, allowance: Allowance) -> httpx.URL:
    """A webhook's URL, if requests may be sent there.

    A host that cannot be looked up in time is accepted: it is looked up again when there is something to deliver.

    Raises
    ------
    ForbiddenAddressError
        It breaks a rule, there is no such host, or that leads to an address that is not public.
    """
    parsed = parse_url(url, allowance)
    host = host_of(parsed)
    if is_ip(host) or not _SUBMISSIONS.acquire(blocking=False):
        return parsed
    looking = begin_look_up(parsed)
    looking.add_done_callback(lambda _: _SUBMISSIONS.release())
    with suppress(UnknownAddressError, TimeoutError):
        check_addresses(host, looking.result(_SUBMISSION_SECONDS), allowance)
    return parsed


def begin_look_up(url: httpx.URL) -> "Future[list[str]]":
    """The IP addresses of a URL's host, the best first, when they are known. Nothing waits for the thread.

    The future raises `ForbiddenAddressError` where there is no such host, `UnknownAddressError` where nobody knows.
    """
    found: Future[list[str]] = Future()
    found.set_running_or_notify_cancel()  # from here on nobody can cancel it, so that its thread can always set it
    host = host_of(url)
    if is_ip(host):
        found.set_result([host])
    else:
        threading.Thread(target=_look_up, args=(host, port_of(url), found), name="look-up", daemon=True).start()
    return found


def _look_up(host: str, port: int, found: "Future[list[str]]") -> None:
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found.set_result(list(dict.fromkeys(str(where[0]) for *_, where in answers)))
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            found.set_exception(ForbiddenAddressError(f"there is no host {host}"))
        else:
            found.set_exception(UnknownAddressError(f"{host} could not be looked up"))
    except Exception as error:  # noqa: BLE001 - who waits for it is told, whatever it is
        found.set_exception(error)

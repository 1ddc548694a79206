"""Resolving the host of a webhook, each in its own thread: a name server may take a minute to answer.

The addresses found are checked, and the request is sent to exactly those addresses.
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

_SUBMISSION_SECONDS: Final = 2.0  # that a request of the API waits for a name server
_SUBMISSIONS: Final = threading.BoundedSemaphore(
    16
)  # look-ups for requests at once, including those no longer waited for


def checked_url(url: str, allowance: Allowance) -> httpx.URL:
    """Check that requests may be sent to a webhook's URL, and return it parsed.

    A host that cannot be resolved in time is accepted: it is resolved again for each delivery.

    Raises
    ------
    ForbiddenAddressError
        The URL breaks a rule, its host does not exist, or it resolves to an address that is not public.
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
    """Start resolving a URL's host. The future gives its IP addresses, the best first. Nothing waits for the thread.

    The future raises `ForbiddenAddressError` if the host does not exist, `UnknownAddressError` if that is not known.
    """
    found: Future[list[str]] = Future()
    found.set_running_or_notify_cancel()  # from here on it cannot be cancelled, so its thread can always set it
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

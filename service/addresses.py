"""Where webhooks may go: to public addresses, and to hosts that the operator has named.

A stranger's webhook must not have this service ask its own machine, its network or a cloud's metadata. So a name is
looked up once, all of its addresses are checked, and the request goes to the very address that was checked.
"""

import ipaddress
import socket
from collections.abc import Collection
from contextlib import suppress
from typing import Final

import httpx

_TRANSLATED: Final = [  # IPv6 that leads to any IPv4 address, private ones too
    ipaddress.ip_network(network) for network in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
]
_LONGEST: Final = 2000  # letters
_PORTS: Final = {"http": 80, "https": 443}


class ForbiddenAddressError(ValueError):
    """Nothing may be sent there; the message says why."""


class UnknownAddressError(Exception):
    """The name could not be looked up just now."""


def checked_url(url: str, private_hosts: Collection[str] = ()) -> httpx.URL:
    """A webhook's URL, if requests may be sent there. private_hosts: that may have other than public addresses.

    Raises
    ------
    ForbiddenAddressError
        It is no HTTP URL, has a password in it, or leads to an address that is not public.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ForbiddenAddressError("not a URL") from error
    if len(url) > _LONGEST:
        raise ForbiddenAddressError(f"over {_LONGEST} letters")
    if parsed.scheme not in _PORTS or not parsed.host:
        raise ForbiddenAddressError("not an address that begins with https:// or http://")
    if parsed.port is not None and not 0 < parsed.port < 2**16:
        raise ForbiddenAddressError("there is no such port")
    if parsed.userinfo:
        raise ForbiddenAddressError("names and passwords do not belong into it; deliveries are signed")
    with suppress(UnknownAddressError):  # it is looked up again when there is something to deliver
        address_of(parsed, private_hosts)
    return parsed


def address_of(url: httpx.URL, private_hosts: Collection[str] = ()) -> str:
    """The IP address to send to.

    Raises
    ------
    ForbiddenAddressError
        There is no such host, or one of its addresses is not public.
    UnknownAddressError
        The name could not be looked up.
    """
    try:
        found = socket.getaddrinfo(url.host, url.port or _PORTS[url.scheme], type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            raise ForbiddenAddressError(f"there is no host {url.host}") from error
        raise UnknownAddressError(f"{url.host} could not be looked up") from error
    except UnicodeError as error:
        raise ForbiddenAddressError("not a host's name") from error
    addresses = [str(where[0]) for *_, where in found]
    if url.host not in private_hosts and not all(map(is_public, addresses)):
        raise ForbiddenAddressError("its address is not a public one")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open Internet's."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return is_public(str(parsed.ipv4_mapped))
        if any(parsed in network for network in _TRANSLATED):
            return False
    return parsed.is_global and not parsed.is_multicast

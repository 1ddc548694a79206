"""Which addresses a webhook may have: their form, their port, and the IP addresses that the host resolves to.

A stranger's webhook must not make this service send requests to its own machine, its own network, a cloud's metadata
service, or a server that is no web server. Nothing here uses the network; `lookup.py` does.
"""

import ipaddress
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Self

import httpx

from service.settings import Settings
from service.webhooks.networks import is_globally_reachable

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_LONGEST: Final = 2000  # letters
_LONGEST_HOST: Final = 253  # letters, RFC 1035
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_AUTHORITY: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@%\s]+)(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)  # systems read these as part of an IPv4 address
_FIRST_FREE_PORT: Final = 1024  # ports below it belong to well-known services
# Ports from 1024 on that browsers refuse, by the Fetch standard (https://fetch.spec.whatwg.org/#port-blocking).
_OTHER_PROTOCOLS: Final = frozenset(
    (1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080)
)


class ForbiddenAddressError(ValueError):
    """Nothing may be sent to this address; the message says why."""


class UnknownAddressError(Exception):
    """The host name could not be resolved just now."""


@dataclass(frozen=True)
class Allowance:
    """What the operator allows in addition. hosts: may resolve to any address. ports: allowed beside the usual ones."""

    hosts: Collection[str] = ()
    ports: Collection[int] = ()

    @classmethod
    def of(cls, config: Settings) -> Self:
        """The allowance that the settings give."""
        hosts = {host.lower().strip("[]").removesuffix(".") for host in config.webhook_hosts}
        return cls(hosts, frozenset(config.webhook_ports))

    def has_host(self, host: str) -> bool:
        """Whether the operator allows every address of this host."""
        return host.removesuffix(".") in self.hosts


def parse_url(url: str, allowance: Allowance) -> httpx.URL:
    """Parse a webhook's URL, and check its form, its port and, if it names one, its IP address.

    Raises
    ------
    ForbiddenAddressError
        One of these is not allowed.
    """
    if len(url) > _LONGEST:
        raise ForbiddenAddressError(f"over {_LONGEST} letters")
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in DEFAULT_PORTS or not rest:
        raise ForbiddenAddressError("not an address that begins with https:// or http://")
    if "#" in rest or "\\" in rest:
        raise ForbiddenAddressError("'#' and '\\' do not belong into it; encode them as %23 and %5C")
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    if "@" in authority:
        raise ForbiddenAddressError("names and passwords do not belong into it; deliveries are signed")
    if not _AUTHORITY.fullmatch(authority):
        raise ForbiddenAddressError("after https:// there must be a host's name or IP address, and a port if any")
    try:
        parsed = httpx.URL(url)
        _check_host(parsed.host and host_of(parsed))  # decoding shows whether the name is valid
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ForbiddenAddressError("not a URL, or its host is not a name that there can be") from error
    _check_port(port_of(parsed), allowance)
    if is_ip(host_of(parsed)):
        check_addresses(host_of(parsed), [host_of(parsed)], allowance)
    return parsed


def check_addresses(host: str, addresses: Sequence[str], allowance: Allowance) -> None:
    """Check the IP addresses that a host resolves to.

    Raises
    ------
    ForbiddenAddressError
        One of them is not on the public Internet, and the operator does not allow the host.
    """
    if not allowance.has_host(host) and not all(map(is_globally_reachable, addresses)):
        raise ForbiddenAddressError("its address is not a public one")


def host_of(url: httpx.URL) -> str:
    """The host in the form that is resolved: an IP address, or a name in ASCII (``xn--…``)."""
    return url.raw_host.decode("ascii")


def port_of(url: httpx.URL) -> int:
    """The port; the scheme's default if the URL names none."""
    return DEFAULT_PORTS[url.scheme] if url.port is None else url.port


def is_ip(host: str) -> bool:
    """Whether a host is an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _check_host(host: str) -> None:
    if is_ip(host):
        return
    labels = host.removesuffix(".").split(".")
    if len(host) > _LONGEST_HOST or not all(map(_LABEL.fullmatch, labels)):
        raise ForbiddenAddressError(
            f"its host is not a name: up to {_LONGEST_HOST} letters, of labels of 1 to 63 letters, digits and '-'"
        )
    if _NUMBER.fullmatch(labels[-1]):
        raise ForbiddenAddressError("its host ends in a number: write an IPv4 address as four decimal numbers")


def _check_port(port: int, allowance: Allowance) -> None:
    if not 0 < port < 2**16:
        raise ForbiddenAddressError(f"there is no port {port}")
    usual = port in DEFAULT_PORTS.values() or (port >= _FIRST_FREE_PORT and port not in _OTHER_PROTOCOLS)
    if not usual and port not in allowance.ports:
        raise ForbiddenAddressError(
            f"port {port} is another protocol's; 80, 443 and most from {_FIRST_FREE_PORT} are open"
        )

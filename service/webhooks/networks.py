"""Which IP addresses are on the public Internet and can belong to somebody's server.

IPv6 addresses are allocated from 2000::/3 only, so all others are refused: loopback, link-local, site-local, unique
local, multicast, and every form that carries an IPv4 address to a translator (64:ff9b::/96, ::ffff:0:0:0/96, ::/96).
Inside it, and in IPv4, everything in IANA's registries of special-purpose addresses is refused. A few of those can be
reached, but they serve protocols such as relays and measurements, never a webhook's receiver.
https://www.iana.org/assignments/iana-ipv4-special-registry, https://www.iana.org/assignments/iana-ipv6-special-registry
"""

import ipaddress
from typing import Final

_GLOBAL_IPV6: Final = ipaddress.IPv6Network("2000::/3")  # RFC 4291, 2.4: the only global unicast block in use
_SPECIAL_IPV4: Final = [
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by a provider's customers
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # in no registry: inside Azure's networks it is the host of a virtual machine
        "169.254.0.0/16",  # link-local, and clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; 192.0.0.192 is a cloud's metadata
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112: answers reverse look-ups of private addresses
        "192.52.193.0/24",  # multicast relays
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # measurements
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
]
_SPECIAL_IPV6: Final = [
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo (carries IPv4), measurements, identifiers, relays
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries IPv4
        "2620:4f:8000::/48",  # AS112
        "3ffe::/16",  # the former 6bone
        "3fff::/20",  # documentation
    )
]
_ISATAP: Final = {0x0000_5EFE, 0x0200_5EFE}  # first half of an interface's identifier whose second is an IPv4 address


def is_globally_reachable(address: str) -> bool:
    """Whether an IP address can be reached from the whole Internet and can belong to a server.

    Raises
    ------
    ValueError
        The text is not an IP address.
    """
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv4Address):
        return not any(parsed in network for network in _SPECIAL_IPV4)
    if parsed.ipv4_mapped:  # the operating system connects to the IPv4 address itself
        return parsed.scope_id is None and is_globally_reachable(str(parsed.ipv4_mapped))
    if parsed.scope_id is not None or parsed not in _GLOBAL_IPV6:
        return False
    carries_ipv4 = (int(parsed) >> 32) & 0xFFFF_FFFF in _ISATAP
    return not carries_ipv4 and not any(parsed in network for network in _SPECIAL_IPV6)

"""Where a consumer's URL may lead: to public addresses, unless a setting says more.

A URL is an application's word, perhaps its customer's, and a name leads where its owner likes, each time elsewhere.
So what is judged are the addresses that a name has at this moment, and the connection is made to these.

`ipaddress.ip_address(...).is_global` alone would not do: it takes a private address behind a NAT64 prefix for a public
one, a multicast one too, and what it says of some blocks changed with Python's releases.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final, TypeAlias

#: What `socket.getaddrinfo` answers: of each address its family, its kind, its protocol, a name and the address.
Found: TypeAlias = list[tuple[Any, Any, int, str, tuple[Any, ...]]]

#: Answers the addresses of a name and a port; it may take as long as name servers do. Raises `OSError`.
Resolve: TypeAlias = Callable[[str, int], Found]

#: The usual one.
resolve: Final[Resolve] = partial(socket.getaddrinfo, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)


class Reach(StrEnum):
    """How far in a consumer's URL may lead."""

    #: To public addresses alone.
    PUBLIC = "public"
    #: To this machine, too: where the providers are a sandbox.
    LOOPBACK = "loopback"
    #: To private networks and this machine, too.
    PRIVATE = "private"


class Inward(Exception):
    """A name leads to an address that is not allowed; it says which kind, never which address."""


#: Where clouds tell machines their secrets, beside 169.254.169.254: never a consumer, whatever the setting.
_METADATA: Final = frozenset(
    map(
        ip_address,
        (
            "fd00:ec2::254",  # AWS
            "fd20:ce::254",  # Google
            "100.100.100.200",  # Alibaba
            "168.63.129.16",  # Azure's agent
        ),
    )
)

#: What a setting opens, and how it is called.
_LOOPBACK: Final = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
_PRIVATE: Final = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("100.64.0.0/10"),  # behind a carrier's NAT (RFC 6598)
    IPv6Network("fc00::/7"),
)

#: Of IPv4 what is neither that nor public
#: (https://www.iana.org/assignments/iana-ipv4-special-registry, and multicast).
_SPECIAL: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network: Linux takes it for this machine
            "169.254.0.0/16",  # the link's own, with the metadata of clouds
            "192.0.0.0/24",  # protocols
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # relays of 6to4
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)

#: Of IPv6 what is public at all: the rest is unspecified, mapped (::ffff:0:0/96), unique local, the link's own,
#: multicast, a translator's, or not given out yet.
_UNICAST: Final = IPv6Network("2000::/3")

#: Of that what is not (https://www.iana.org/assignments/iana-ipv6-special-registry). Tunnels are refused whole: an IPv4
#: address is inside, and nobody serves from behind one.
_SPECIAL_UNICAST: Final = (
    IPv6Network("2001::/23"),  # protocols, and Teredo
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("2002::/16"),  # 6to4
    IPv6Network("3fff::/20"),  # documentation
)

#: A translator's well-known prefix, with an IPv4 address behind it (RFC 6052): in a network without IPv4 it is the only
#: way to a public one. A network's own prefix (64:ff9b:1::/48, RFC 8215) is refused: what it leads to is its own.
_NAT64: Final = IPv6Network("64:ff9b::/96")


def kind(address: str) -> str:
    """Return "public", "loopback", "private", or the word for what no setting allows: "reserved"."""
    try:
        one = ip_address(address)
    except ValueError:
        return "reserved"
    if one in _METADATA:
        return "reserved"
    if any(one in network for network in _LOOPBACK):
        return "loopback"
    if any(one in network for network in _PRIVATE):
        return "private"
    return "public" if _public(one) else "reserved"


def _public(one: IPv4Address | IPv6Address) -> bool:
    if isinstance(one, IPv6Address):
        if one in _NAT64:
            return kind(str(IPv4Address(int(one) & 0xFFFFFFFF))) == "public"
        return one in _UNICAST and not any(one in network for network in _SPECIAL_UNICAST) and one.is_global
    return not any(one in network for network in _SPECIAL) and one.is_global


#: What each reach allows.
_ALLOWED: Final = {
    Reach.PUBLIC: {"public"},
    Reach.LOOPBACK: {"public", "loopback"},
    Reach.PRIVATE: {"public", "loopback", "private"},
}


def checked(found: Found, reach: Reach) -> Found:
    """Return the addresses of a name that may be connected to: all of them, or none.

    Raises `Inward` where one of them is not allowed: a name that leads outward and inward at once is a mistake or a
    trap, and which of the two a connection takes must not depend on what is reachable.
    """
    for word in sorted({kind(str(address[0])) for *_, address in found}):
        if word not in _ALLOWED[reach]:
            raise Inward(word)
    return found

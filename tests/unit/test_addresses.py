"""Where a consumer's URL may lead: every class of address, and names with several."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from workers.addresses import Found, Inward, Reach, checked, kind


def found(*addresses: str) -> Found:
    """What a name server answers, as `socket.getaddrinfo` does."""
    return [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (one, 443, 0, 0))
        if ":" in one
        else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 443))
        for one in addresses
    ]


@pytest.mark.parametrize(
    ("address", "word"),
    [
        pytest.param("93.184.215.14", "public", id="a public one"),
        pytest.param("8.8.8.8", "public", id="another"),
        pytest.param("172.32.0.1", "public", id="just behind 172.16.0.0/12"),
        pytest.param("100.128.0.1", "public", id="just behind the carriers' NAT"),
        pytest.param("2606:4700::6810:84e5", "public", id="a public one of IPv6"),
        pytest.param("2001:4860:4860::8888", "public", id="one that begins like the protocols' block"),
        pytest.param("127.0.0.1", "loopback", id="this machine"),
        pytest.param("127.255.255.254", "loopback", id="all of 127.0.0.0/8"),
        pytest.param("::1", "loopback", id="this machine in IPv6"),
        pytest.param("10.0.0.1", "private", id="10.0.0.0/8"),
        pytest.param("172.16.0.1", "private", id="172.16.0.0/12, its first"),
        pytest.param("172.31.255.255", "private", id="172.16.0.0/12, its last"),
        pytest.param("192.168.1.1", "private", id="192.168.0.0/16"),
        pytest.param("100.64.0.1", "private", id="behind a carrier's NAT"),
        pytest.param("100.127.255.254", "private", id="behind a carrier's NAT, its last"),
        pytest.param("fd12:3456::1", "private", id="unique local"),
        pytest.param("fc00::1", "private", id="unique local, its first"),
        pytest.param("0.0.0.0", "reserved", id="unspecified"),  # noqa: S104 - a row of the table
        pytest.param("0.1.2.3", "reserved", id="this network"),
        pytest.param("::", "reserved", id="unspecified in IPv6"),
        pytest.param("169.254.169.254", "reserved", id="the metadata of most clouds"),
        pytest.param("169.254.1.1", "reserved", id="the link's own"),
        pytest.param("fe80::1", "reserved", id="the link's own in IPv6"),
        pytest.param("fe80::1%lo", "reserved", id="with an interface"),
        pytest.param("fd00:ec2::254", "reserved", id="AWS's metadata in IPv6, in a private block"),
        pytest.param("fd20:ce::254", "reserved", id="Google's metadata in IPv6, in a private block"),
        pytest.param("100.100.100.200", "reserved", id="Alibaba's metadata, in the carriers' block"),
        pytest.param("168.63.129.16", "reserved", id="Azure's agent, which looks public"),
        pytest.param("192.0.0.192", "reserved", id="Oracle's metadata"),
        pytest.param("192.0.0.9", "reserved", id="of the protocols' block, which Python calls global"),
        pytest.param("192.0.2.1", "reserved", id="documentation"),
        pytest.param("198.51.100.1", "reserved", id="documentation too"),
        pytest.param("203.0.113.1", "reserved", id="documentation as well"),
        pytest.param("192.88.99.1", "reserved", id="a relay of 6to4"),
        pytest.param("198.18.0.1", "reserved", id="benchmarks"),
        pytest.param("224.0.0.1", "reserved", id="multicast"),
        pytest.param("239.255.255.250", "reserved", id="multicast within an organisation"),
        pytest.param("240.0.0.1", "reserved", id="reserved"),
        pytest.param("255.255.255.255", "reserved", id="broadcast"),
        pytest.param("ff02::1", "reserved", id="multicast in IPv6"),
        pytest.param("ff0e::1", "reserved", id="global multicast in IPv6, which Python calls global"),
        pytest.param("fec0::1", "reserved", id="site-local, of old"),
        pytest.param("::ffff:127.0.0.1", "reserved", id="mapped: this machine"),
        pytest.param("::ffff:10.0.0.1", "reserved", id="mapped: private"),
        pytest.param("::ffff:8.8.8.8", "reserved", id="mapped: even a public one"),
        pytest.param("::127.0.0.1", "reserved", id="compatible, of old"),
        pytest.param("64:ff9b::7f00:1", "reserved", id="NAT64 to this machine"),
        pytest.param("64:ff9b::a00:1", "reserved", id="NAT64 to a private one, which Python calls global"),
        pytest.param("64:ff9b::a9fe:a9fe", "reserved", id="NAT64 to the metadata"),
        pytest.param("64:ff9b::a83f:8110", "reserved", id="NAT64 to Azure's agent"),
        pytest.param("64:ff9b::808:808", "public", id="NAT64 to a public one, as in a network without IPv4"),
        pytest.param("64:ff9b:1::808:808", "reserved", id="NAT64 of a network's own"),
        pytest.param("2002:7f00:1::1", "reserved", id="6to4 to this machine"),
        pytest.param("2002:808:808::1", "reserved", id="6to4 at all"),
        pytest.param("2001:0:7f00:1::1", "reserved", id="Teredo"),
        pytest.param("2001:db8::1", "reserved", id="documentation in IPv6"),
        pytest.param("3fff::1", "reserved", id="documentation in IPv6, the newer"),
        pytest.param("2001:20::1", "reserved", id="ORCHID"),
        pytest.param("100::1", "reserved", id="to be discarded"),
        pytest.param("5f00::1", "reserved", id="segments of routes"),
        pytest.param("4000::1", "reserved", id="not given out yet"),
        pytest.param("hooks.example.com", "reserved", id="no address at all"),
        pytest.param("127.1", "reserved", id="an address of sorts, which is the resolver's to read"),
    ],
)
def test_an_address_is_of_a_kind(address: str, word: str) -> None:
    assert kind(address) == word


#: By kind, an address.
OF: dict[str, str] = {
    "public": "93.184.215.14",
    "loopback": "127.0.0.1",
    "private": "10.0.0.1",
    "reserved": "169.254.169.254",
}


@pytest.mark.parametrize(
    ("reach", "allowed"),
    [
        pytest.param(Reach.PUBLIC, {"public"}, id="the usual"),
        pytest.param(Reach.LOOPBACK, {"public", "loopback"}, id="with a sandbox"),
        pytest.param(Reach.PRIVATE, {"public", "loopback", "private"}, id="where the setting allows it"),
    ],
)
def test_what_may_be_reached(reach: Reach, allowed: set[str]) -> None:
    for word, address in OF.items():
        if word in allowed:
            assert checked(found(address), reach) == found(address)
        else:
            with pytest.raises(Inward, match=f"^{word}$"):
                checked(found(address), reach)


@pytest.mark.parametrize(
    ("addresses", "word"),
    [
        pytest.param(["93.184.215.14", "10.0.0.1"], "private", id="a private one behind"),
        pytest.param(["127.0.0.1", "93.184.215.14"], "loopback", id="this machine in front"),
        pytest.param(["2606:4700::1", "::ffff:10.0.0.1"], "reserved", id="a mapped one among IPv6"),
    ],
)
def test_a_name_that_leads_inward_as_well_is_refused(addresses: list[str], word: str) -> None:
    with pytest.raises(Inward) as told:
        checked(found(*addresses), Reach.PUBLIC)
    assert str(told.value) == word, "it never says which address"


def test_all_addresses_of_a_good_name_stay() -> None:
    several: Any = found("93.184.215.14", "2606:4700::1")
    assert checked(several, Reach.PUBLIC) == several

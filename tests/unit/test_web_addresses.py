"""Which addresses jobs may lead a worker to, a row a rule."""

from ipaddress import ip_address

import pytest

from workers.web.addresses import OpenHosts, is_public

CLOSED = {
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "private": ["10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1"],
    "unique local": ["fc00::1", "fd12:3456:789a::1"],
    "link-local": ["169.254.0.1", "fe80::1", "fe80::1%eth0", "febf::1"],
    "site-local": ["fec0::1"],
    "metadata": [
        *("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200"),
        *("192.0.0.192", "168.63.129.16"),
    ],
    "carrier NAT": ["100.64.0.1", "100.127.255.255"],
    "protocols": ["192.0.0.1", "192.88.99.1", "2001:1::1", "2001:20::1"],
    "benchmarks": ["198.18.0.1", "198.19.255.255", "2001:2::1"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1"],
    "reserved": ["240.0.0.1", "4000::1", "100::1"],
    "broadcast": ["255.255.255.255"],
    "IPv4-mapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8"],
    "IPv4-compatible": ["::127.0.0.1", "::8.8.8.8"],
    "NAT64": ["64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1"],
    "6to4": ["2002:7f00:1::", "2002:808:808::1"],
    "Teredo": ["2001:0:4136:e378:8000:63bf:3fff:fdd2"],
    "of this link": ["2606:4700::1111%eth0"],
}


@pytest.mark.parametrize(
    "address",
    [pytest.param(one, id=f"{kind} {one}") for kind, all_ in CLOSED.items() for one in all_],
)
def test_closed(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0"),
        *("126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255"),
        *("172.32.0.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0"),
        *("223.255.255.255", "2606:4700::1111", "2a00:1450::1", "2001:4860:4860::8888"),
    ],
)
def test_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    ("address", "is_open"),
    [
        ("10.1.2.3", True),
        ("10.1.2.4", False),
        ("192.168.255.1", True),
        ("fd00::1", True),
        ("fd01::1", False),
        ("::ffff:10.1.2.3", False),
    ],
)
def test_what_the_operator_opens(address: str, is_open: bool) -> None:
    opened = OpenHosts.of(["files.lan", "10.1.2.3", "192.168.0.0/16", "fd00::/16"])
    assert (ip_address(address) in opened) == is_open
    assert opened.names == {"files.lan"}

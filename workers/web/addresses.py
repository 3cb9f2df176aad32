"""Which addresses a job may lead a worker to: the public ones, and what the operator opens."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_network,
)
from typing import Self

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Written out, as what the standard library calls global has changed between its versions.
_CLOSED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network, unspecified
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # behind a provider's NAT; metadata of Alibaba Cloud
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # what Azure's hosts are told by
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; metadata of Oracle Cloud
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)

# All that has been given out as public. Outside of it lie loopback, link-local, unique local (also
# AWS's metadata), multicast, and IPv4 in all its disguises: mapped, compatible, NAT64.
_GLOBAL_V6 = IPv6Network("2000::/3")
_CLOSED_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)


def is_public(address: Address) -> bool:
    """Whether the address is one of the public internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _CLOSED_V4)
    # An address with a zone is one of this link.
    is_global = address.scope_id is None and address in _GLOBAL_V6
    return is_global and not any(address in network for network in _CLOSED_V6)


@dataclass(frozen=True)
class OpenHosts:
    """What the operator opens beside the public internet."""

    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, hosts: Iterable[str]) -> Self:
        """Tell names, in small letters, from addresses and networks."""
        names, networks = set[str](), list[Network]()
        for host in hosts:
            try:
                networks.append(ip_network(host))
            except ValueError:
                names.add(host)
        return cls(frozenset(names), tuple(networks))

    def __contains__(self, address: Address) -> bool:
        return any(
            address.version == network.version and address in network for network in self.networks
        )

"""Which hosts a page may be fetched from: the public internet, and nothing else unless a user allows it.

A model chooses what is fetched, and a page may redirect to any address, so a fetch must not reach the cluster, the node
or the cloud's metadata. `ipaddress.is_global` is no filter: depending on Python's version it lets NAT64 and 6to4 pass,
which carry any IPv4 address. So addresses are unwrapped first, and then checked against the registries of
special-purpose addresses; of IPv6 only the space of global unicast is public. The network decides where a mapped or NAT64
address leads, so the IPv4 address inside takes its place. An ISATAP address is routed by its prefix: both must be public.

Names are checked before they are resolved as far as their form is wrong, but only the addresses they resolve to decide.

Source: IANA IPv4 and IPv6 Special-Purpose Address Registries; RFC 6052 (NAT64), RFC 4291 (mapped), RFC 5214 (ISATAP).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NOT_PUBLIC_V4 = tuple(
    ipaddress.IPv4Network(each)
    for each in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # Azure's metadata and DNS, inside public space
    )
)
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(
    ipaddress.IPv6Network(each)
    for each in (
        "2001::/23",  # protocol assignments, among them Teredo, which wraps IPv4 addresses
        "2001:db8::/32",
        "2002::/16",  # 6to4 wraps IPv4 addresses and is deprecated (RFC 7526)
        "3fff::/20",
    )
)
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""What DNS64 answers for every IPv4-only host of a cluster that speaks IPv6 only."""
_ISATAP = (0x00005EFE, 0x02005EFE)
"""Upper half of an interface identifier whose lower half is an IPv4 address."""

_NUMERIC = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
"""A last label that makes a host an IPv4 address for a resolver or a browser: 2130706433, 0x7f000001, 127.1."""
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_LOCAL_NAMES = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "svc", "cluster", "arpa", "test")
"""Last labels of names that no public host has."""


def fault(address: Address, *, allow: Sequence[Network] = (), deny: Sequence[Network] = ()) -> str:
    """Why an address may not be connected to; empty if it may.

    Args:
        address: as it was resolved.
        allow: networks that may be reached although they are not public.
        deny: networks that may not be reached although they are public.
    """
    reached = _reached(address)
    if any(each in network for each in (address, *reached) for network in deny):
        return f"{address} is in a denied network"
    zoned = _has_zone(address)
    if all(any(each in network for network in allow) or (not zoned and _is_public(each)) for each in reached):
        return ""
    return f"{address} is not a public address"


def is_public(address: Address) -> bool:
    """Whether an address belongs to a host of the public internet.

    >>> is_public(ipaddress.ip_address("64:ff9b::a9fe:a9fe"))  # NAT64 of 169.254.169.254
    False
    """
    return not _has_zone(address) and all(map(_is_public, _reached(address)))


def _has_zone(address: Address) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None


def _is_public(plain: Address) -> bool:
    """Whether an address, taken as it is, belongs to a host of the public internet."""
    if isinstance(plain, ipaddress.IPv4Address):
        return not any(plain in network for network in _NOT_PUBLIC_V4)
    return plain in _PUBLIC_V6 and not any(plain in network for network in _NOT_PUBLIC_V6)


def _reached(address: Address) -> tuple[Address, ...]:
    """The addresses that a connection may reach, each of which decides.

    They are the IPv4 address inside a mapped or NAT64 address, an ISATAP address and the IPv4 address inside, any other
    address itself.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    number = int(address)
    inner = ipaddress.IPv4Address(number & 0xFFFFFFFF)
    if address in _MAPPED or address in _NAT64:
        return (inner,)
    return (address, inner) if (number >> 32) & 0xFFFFFFFF in _ISATAP else (address,)


def literal(host: str) -> Address | None:
    """The address that a host of a URL is written as; None for a name.

    Raises:
        ValueError: it is an address in a form that programs read differently: decimal, octal, hexadecimal, short, with
            a zone.
    """
    bare = host.removeprefix("[").removesuffix("]")
    if ":" in bare or host.startswith("["):
        if "%" in bare:
            raise ValueError("an address with a zone")
        return ipaddress.IPv6Address(bare)
    if _NUMERIC.fullmatch(bare.removesuffix(".").rpartition(".")[2]):
        return ipaddress.IPv4Address(bare)  # refuses all but four decimal numbers without leading zeros
    return None


def check_name(host: str, *, local: bool = False) -> None:
    """Checks the form of a host name, in ASCII.

    Args:
        host: the name.
        local: whether names of one label and local domains are accepted; what they resolve to is checked anyway.

    Raises:
        ValueError: it is no name of a public host.
    """
    labels = host.lower().removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("not a host name")
    if not local and (len(labels) == 1 or labels[-1] in _LOCAL_NAMES):
        raise ValueError("not a name of a public host")

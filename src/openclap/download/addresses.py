"""Classify network addresses (protection against server-side request forgery, SSRF).

A table of URLs from strangers, or a redirect, must not make this machine send requests to its own services, its
neighbours or its cloud's metadata server. The ranges are those of IANA's special-purpose registries (RFC 6890), as
`ipaddress` has them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Literal

AddressKind = Literal["public", "private", "forbidden"]
"""Private addresses need permission; forbidden ones (link-local, metadata, multicast, reserved) are never contacted."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# RFC 6052: an IPv4 address in the last 32 bits, which a gateway contacts.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Metadata servers of Amazon and others (IPv4), Amazon (IPv6) and Alibaba. `ipaddress` calls the last two only private.
_METADATA = frozenset(ipaddress.ip_address(text) for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200"))
# This machine, multicast DNS (RFC 6762), private networks (ICANN 2024) and home networks (RFC 8375).
_PRIVATE_NAMES = ("localhost", "local", "internal", "home.arpa")
_SEVERITY: dict[AddressKind, int] = {"public": 0, "private": 1, "forbidden": 2}


def kind_of_address(text: str) -> AddressKind:
    """Classify a numeric address; one that embeds an IPv4 address gets the more severe kind of the two."""
    address = ipaddress.ip_address(text.partition("%")[0])  # without an IPv6 zone
    return max(map(_kind, _with_embedded(address)), key=_SEVERITY.__getitem__)


def kind_of_host(host: str) -> AddressKind:
    """Classify the host of a URL by its text alone, without resolving it."""
    name = host.strip("[]").rstrip(".").lower()
    try:
        return kind_of_address(name)
    except ValueError:
        private = any(name == suffix or name.endswith(f".{suffix}") for suffix in _PRIVATE_NAMES)
        return "private" if private or not name else "public"


def is_allowed(kind: AddressKind, *, allow_private: bool) -> bool:
    """Return whether an address of this kind may be contacted."""
    return kind == "public" or (kind == "private" and allow_private)


def _with_embedded(address: _Address) -> Iterator[_Address]:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:  # the same host in another notation, so only the IPv4 address counts
            yield address.ipv4_mapped
            return
        yield from filter(None, (address.sixtofour, *(address.teredo or ())))
        if address in _NAT64:
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    yield address


def _kind(address: _Address) -> AddressKind:
    if address in _METADATA or address.is_link_local or address.is_unspecified or address.is_multicast:
        return "forbidden"
    if address.is_loopback:
        return "private"
    # NAT64 prefixes are reserved but reach the public internet.
    if address.is_reserved and not address.is_global:
        return "forbidden"
    return "public" if address.is_global else "private"

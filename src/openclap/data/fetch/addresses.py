"""Classify addresses as public or internal (protection against server-side request forgery, SSRF).

A table of URLs from strangers, or a redirect, must not make this machine ask its own services, its neighbours or its
cloud's metadata server. The ranges are those of IANA's special-purpose registries (RFC 6890), as `ipaddress` has them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Literal

Kind = Literal["public", "private", "never"]
"""Public: may be asked. Private: only where that is allowed. Never: link-local, metadata, any, multicast, reserved."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_METADATA = frozenset(ipaddress.ip_address(text) for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200"))
"""Of Amazon and others over IPv4, of Amazon over IPv6, of Alibaba: the last two lie in ranges that are private only."""
_PRIVATE_NAMES = ("localhost", "local", "internal", "home.arpa")
"""Of this machine, of multicast DNS (RFC 6762), of private networks (ICANN 2024) and of homes (RFC 8375)."""
_GRAVITY: dict[Kind, int] = {"public": 0, "private": 1, "never": 2}


def kind_of_address(text: str) -> Kind:
    """The kind of a numeric address. One that carries an IPv4 address inside is as bad as the worse of both."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return max((_kind(each) for each in _with_embedded(address)), key=_GRAVITY.__getitem__)


def kind_of_host(host: str) -> Kind:
    """The kind of a URL's host as far as it can be told without asking who answers to it."""
    name = host.strip("[]").rstrip(".").lower()
    try:
        return kind_of_address(name)
    except ValueError:
        private = any(name == each or name.endswith("." + each) for each in _PRIVATE_NAMES)
        return "private" if private or not name else "public"


def _with_embedded(address: _Address) -> Iterator[_Address]:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:  # the same host, not another one
            yield address.ipv4_mapped
            return
        yield from filter(None, (address.sixtofour, *(address.teredo or ())))
        if address in _NAT64:
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    yield address


def _kind(address: _Address) -> Kind:
    if address in _METADATA or address.is_link_local or address.is_unspecified or address.is_multicast:
        return "never"
    if address.is_loopback:
        return "private"
    if address.is_reserved and not address.is_global:
        return "never"
    return "public" if address.is_global else "private"

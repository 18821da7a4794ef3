"""Addresses of clients, for limits: what a connection says, and what proxies in front of it say."""

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

# IPv6 with a port has 54 characters; the rest is room for the zone of a link.
MAX_ADDRESS = 100

# 203.0.113.9:443, [2001:db8::1]:443, [2001:db8::1]: some proxies add the port.
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}|\[([^\]]+)\](?::[0-9]{1,5})?", re.ASCII)


def client_address(peer: str, forwarded: Sequence[str], proxies: int) -> str:
    """The address of the client behind `proxies` proxies, of which the last is `peer`; IPv6 by /64, one customer's
    block.

    `forwarded` is the values of X-Forwarded-For, each a list. Each proxy appends the peer that it saw, so the last
    `proxies` entries can be believed; the client may have made up those before. Where the entry that counts is not an
    address, the next one to its right does, and at last the peer.
    """
    entries = [entry for value in forwarded for entry in value.split(",") if entry.strip()] if proxies else []
    for entry in (*entries[-proxies:], peer):
        if address := _parse(entry.strip()):
            return address
    return peer


def _parse(text: str) -> str | None:
    return _parsed(text) if len(text) <= MAX_ADDRESS else None


# A connection has the same for each of its requests, and behind a proxy many have.
@lru_cache(maxsize=4096)
def _parsed(text: str) -> str | None:
    if found := _WITH_PORT.fullmatch(text):
        text = found[1] or found[2]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address), 64), strict=False))

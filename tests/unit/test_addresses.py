"""The address of a client, as proxies tell it."""

import pytest

from notifier.web.addresses import client_address

PEER = "10.1.2.3"


@pytest.mark.rule("S-18")
@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        # Nothing is believed unless the settings say so, not even from a private peer.
        (0, ["203.0.113.9"], PEER),
        (0, [], PEER),
        # As many as the settings say, from the right; the client may have made up what is before.
        (1, ["203.0.113.9"], "203.0.113.9"),
        (1, ["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        (2, ["192.0.2.1, 198.51.100.1, 203.0.113.9"], "198.51.100.1"),
        (3, ["198.51.100.1, 203.0.113.9"], "198.51.100.1"),
        (1, [], PEER),
        (2, [], PEER),
        # One list, however many headers there are.
        (1, ["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
        (2, ["198.51.100.1", "203.0.113.9"], "198.51.100.1"),
        (2, ["192.0.2.1,198.51.100.1", "203.0.113.9"], "198.51.100.1"),
        (2, ["198.51.100.1, ,\t203.0.113.9 ,"], "198.51.100.1"),
        # All forms.
        (1, ["203.0.113.9:443"], "203.0.113.9"),
        (1, ["2001:db8:1:2:3::4"], "2001:db8:1:2::/64"),
        (1, ["2001:DB8:1:2::"], "2001:db8:1:2::/64"),
        (1, ["[2001:db8:1:2:3::4]"], "2001:db8:1:2::/64"),
        (1, ["[2001:db8:1:2:3::4]:443"], "2001:db8:1:2::/64"),
        (1, ["[::1]:9"], "::/64"),
        (1, ["::ffff:203.0.113.9"], "203.0.113.9"),
        (1, ["[::ffff:203.0.113.9]:443"], "203.0.113.9"),
        (1, ["fe80::1%eth0"], "fe80::/64"),
        # What is not an address leaves the last one known.
        *[
            (1, [garbage], PEER)
            for garbage in (
                "",
                ",",
                "unknown",
                "_hidden",
                "203.0.113.9:",
                "203.0.113.9:443:1",
                "203.0.113.9:999999",
                "203.0.113.256",
                "[2001:db8::1",
                "[2001:db8::1]x",
                "[]:1",
                "2001:db8::1]:443",
                "1",
                "\udcff",
                "9" * 5000,
                "\u0661.2.3.4",
            )
        ],
        (2, ["unknown, 203.0.113.9"], "203.0.113.9"),
        (3, ["unknown, made up, 203.0.113.9:1"], "203.0.113.9"),
        (2, ["198.51.100.1, unknown"], "198.51.100.1"),
        (1, ["198.51.100.1, unknown"], PEER),
    ],
)
def test_the_address_is_the_one_that_the_trusted_proxies_saw(proxies: int, forwarded: list[str], address: str) -> None:
    assert client_address(PEER, forwarded, proxies) == address


@pytest.mark.rule("S-18")
@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),  # a listener for both versions of IP
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%2", "fe80::/64"),
        ("", ""),  # a socket without an address
    ],
)
def test_without_a_proxy_it_is_the_peer(peer: str, address: str) -> None:
    assert client_address(peer, [], 0) == client_address(peer, [], 2) == address

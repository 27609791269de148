"""What lies on the host's links, and which subnet routes of peers take it away."""

from __future__ import annotations

import pytest

from tsenv import hostnet


@pytest.mark.parametrize(
    ("route", "said"),
    [
        ("192.0.2.0/24", "router routes 192.0.2.0/24: inside, this host's own network 192.0.2.0/24 is reached by that peer"),
        ("192.0.0.0/16", "router routes 192.0.0.0/16: inside, this host's own network 192.0.2.0/24 is reached by that peer"),
        ("fd77::/48", "router routes fd77::/48: inside, this host's own network fd77::/64 is reached by that peer"),
        ("10.88.0.0/24", ""),
        ("fd88::/64", ""),
        ("no network", ""),
    ],
)
def test_overlaps(monkeypatch: pytest.MonkeyPatch, route: str, said: str) -> None:
    monkeypatch.setattr(hostnet, "on_links", lambda: ["192.0.2.0/24", "fd77::/64"])
    assert list(hostnet.overlaps([("router", route)])) == ([said] if said else [])


def test_this_machines_links_are_networks() -> None:
    import ipaddress

    assert all(ipaddress.ip_network(link).prefixlen for link in hostnet.on_links())

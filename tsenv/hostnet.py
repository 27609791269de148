"""The host's network: news of links, addresses and routes that come and go (rtnetlink(7)), and what lies on its links.

tailscaled watches the network that it is in. That is the session's, while its outer sockets may be the host's.
"""

import contextlib
import socket
import sys
from collections.abc import Iterable, Iterator

# linux/rtnetlink.h: RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE
GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400


def watch() -> socket.socket:
    """A socket that is readable after each change. It needs no privilege."""
    news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    news.bind((0, GROUPS))
    return news


def drain(news: socket.socket) -> None:
    """Forget what has been told: that something changed is all we need to know."""
    while True:
        try:
            news.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS: more changes than it could hold
            with contextlib.suppress(OSError):
                news.recv(1 << 16)


def overlaps(routes: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Sentences about those of the (peer, route) pairs that take addresses of the host's own links."""
    import ipaddress  # 5 ms that only --accept-routes needs

    links = [ipaddress.ip_network(link) for link in dict.fromkeys(on_links())]
    for peer, route in routes:
        try:
            network = ipaddress.ip_network(route)
        except ValueError:
            continue
        for link in links:
            if network.version == link.version and network.overlaps(link):
                yield f"{peer} routes {route}: inside, this host's own network {link} is reached by that peer"


def on_links() -> list[str]:
    """The networks on the links of this network namespace, as 192.0.2.0/24: of /proc/net/route and ipv6_route."""
    found = []
    with contextlib.suppress(OSError), open("/proc/net/route", encoding="utf-8", errors="replace") as file:
        for device, destination, gateway, *_, mask, _, _, _ in (line.split() for line in file.readlines()[1:]):
            if int(mask, 16) and not int(gateway, 16) and device != "*":  # that one is refused
                address = int(destination, 16).to_bytes(4, sys.byteorder)
                found.append(f"{socket.inet_ntop(socket.AF_INET, address)}/{int(mask, 16).bit_count()}")
    with contextlib.suppress(OSError), open("/proc/net/ipv6_route", encoding="utf-8", errors="replace") as file:
        for destination, length, _, _, hop, *_, device in (line.split() for line in file):
            # Single addresses, fe80:: and ff00:: are of every link.
            local = int(length, 16) == 128 or destination[:2] in ("fe", "ff") or device == "lo"  # noqa: PLR2004
            if int(length, 16) and not int(hop, 16) and not local:
                found.append(f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(destination))}/{int(length, 16)}")
    return found

"""News of the host's network: links, addresses and routes that come and go (rtnetlink(7)).

tailscaled watches the network that it is in. That is the session's, while its outer sockets may be the host's.
"""

import contextlib
import socket

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

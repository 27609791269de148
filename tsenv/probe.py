"""Looks from inside a session whether a name resolves or a peer answers.

    python3 -I -S probe.py lookup NAME SECONDS | connect HOST PORT SECONDS | ping HOST TAILSCALE SECONDS

Exit status 0 as soon as it does, 1 when SECONDS are over; the last reason goes to stderr. Retries have a pause between
them: the other side is a network, which tells nobody when it is ready.
"""

import os
import socket
import sys
import time
from collections.abc import Callable  # noqa: TC003 - no `typing` on this short way

PAUSE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def lookup(name: str) -> None:
    """OSError unless `name` resolves, by the same library call that every program uses."""
    socket.getaddrinfo(name, None)


def connect(host: str, port: str) -> None:
    """OSError unless something at host:port accepts."""
    socket.create_connection((host, port), timeout=2).close()


def ping(host: str, tailscale: str) -> None:
    """OSError unless `host` answers a ping through the tunnel; tailscale's own ping needs no ping program."""
    reader, writer = os.pipe()
    pid = os.posix_spawn(
        tailscale,
        [tailscale, "ping", "--icmp", "-c", "1", "--timeout", "2s", host],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)],
    )
    os.close(writer)
    with open(reader, "rb") as output:
        words = output.read().decode(errors="replace").strip()
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise OSError(words.splitlines()[-1] if words else "no reply")


def main(what: str, words: list[str], seconds: float) -> int:
    """Try until it works or the time is over."""
    calls: dict[str, Callable[..., None]] = {"lookup": lookup, "connect": connect, "ping": ping}
    call = calls[what]
    deadline = time.monotonic() + seconds
    turn = 0
    while True:
        try:
            call(*words)
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            return 0
        pause = PAUSE[min(turn, len(PAUSE) - 1)]
        turn += 1
        if time.monotonic() + pause > deadline:
            print(reason, file=sys.stderr)
            return 1
        time.sleep(pause)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:-1], float(sys.argv[-1])))

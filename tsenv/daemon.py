"""tailscaled and tailscale: how they are called, and what they say of themselves.

The LocalAPI is HTTP on a unix socket (tailscale.com/ipn/localapi). Requests are written by hand as HTTP/1.0, so that
the answer is neither chunked nor kept alive: http.client would cost more than the rest of `tsenv status`.
"""

import contextlib
import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tsenv.errors import TsenvError
from tsenv.session import Options

SOCKET = "tailscaled.sock"
DEFAULT_SERVER = "https://controlplane.tailscale.com"  # what tailscaled uses when it is told no other

# tailscale.com/ipn/backend.go: State
STATES = ("NoState", "InUseOtherUser", "NeedsLogin", "NeedsMachineAuth", "Stopped", "Starting", "Running")
# tailscale.com/ipn/backend.go: NotifyInitialState, NotifyInitialHealthState, NotifyPeerChanges, NotifyNoNetMap.
WATCH_MASK = 1 << 1 | 1 << 7 | 1 << 12 | 1 << 13


def tailscaled_argv(tailscaled: str, folder: str, state: str, port: int) -> list[str]:
    """The daemon; `folder`: the session directory, `state`: of its node's keys, `port`: its UDP port for life."""
    return [
        tailscaled,
        "--tun=tailscale0",
        f"--socket={folder}/{SOCKET}",
        f"--statedir={state}",
        f"--state={state}/tailscaled.state",
        # One port for the session's life: peers find a restarted daemon where it was.
        f"--port={port}",
        "--no-logs-no-support",
    ]


def tailscale_argv(tailscale: str, folder: str, *words: str) -> list[str]:
    """The command-line client on this session's daemon."""
    return [tailscale, f"--socket={folder}/{SOCKET}", *words]


def up_words(options: Options, *, login: tuple[str, ...], timeout: float) -> list[str]:
    """`tailscale up …`; `login`: the flags by which it reads a secret from stdin, never from argv or a file on disk."""
    return [
        "up",
        "--reset",  # a persistent session's old preferences must not make `up` refuse (PAINS 1.23)
        f"--timeout={max(1, round(timeout))}s",
        f"--hostname={options.hostname}",
        f"--shields-up={_bool(not options.allow_incoming)}",
        f"--accept-routes={_bool(options.accept_routes)}",
        f"--accept-dns={_bool(options.accept_dns)}",
        *([f"--login-server={options.login_server}"] if options.login_server else []),
        *([f"--advertise-tags={','.join(options.advertise_tags)}"] if options.advertise_tags else []),
        *login,
        *options.extra,
    ]


def _bool(value: bool) -> str:
    return "true" if value else "false"


@dataclass(frozen=True)
class Peer:
    """Another node: `path` is "direct ADDR", "relay NAME" or "idle"; `routes` are its subnets, without exit routes."""

    name: str
    dns_name: str
    addresses: tuple[str, ...]
    online: bool
    path: str
    exit_node: bool
    routes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Status:
    """What the daemon says of itself and of its peers; names without the final dot, health as sentences."""

    state: str
    addresses: tuple[str, ...]
    name: str
    dns_name: str
    tags: tuple[str, ...]
    online: bool
    health: tuple[str, ...]
    auth_url: str
    magic_dns: bool
    peers: tuple[Peer, ...]
    exit_node: str
    key_expiry: str

    @classmethod
    def parse(cls, data: dict[str, Any]) -> "Status":
        """From `tailscale status --json` (ipnstate.Status). Names come from others: they are cleaned here, once."""
        own = _dict(data.get("Self"))
        tailnet = _dict(data.get("CurrentTailnet"))
        peers = sorted((_peer(_dict(p)) for p in _dict(data.get("Peer")).values()), key=lambda p: p.dns_name or p.name)
        exit_id = _dict(data.get("ExitNodeStatus")).get("ID")
        exits = [p for p in _dict(data.get("Peer")).values() if exit_id and _dict(p).get("ID") == exit_id]
        return cls(
            state=clean(data.get("BackendState")),
            addresses=_strings(data.get("TailscaleIPs")),
            name=clean(own.get("HostName")),
            dns_name=clean(own.get("DNSName")).rstrip("."),
            tags=_strings(own.get("Tags")),
            online=bool(own.get("Online")),
            health=_strings(data.get("Health")),
            auth_url=clean(data.get("AuthURL")),
            magic_dns=bool(tailnet.get("MagicDNSEnabled")),
            peers=tuple(peers),
            exit_node=_peer(_dict(exits[0])).name if exits else "",
            key_expiry=clean(own.get("KeyExpiry")),
        )


def _peer(data: dict[str, Any]) -> Peer:
    address, relay = clean(data.get("CurAddr")), clean(data.get("Relay"))
    path = f"direct {address}" if address else f"relay {relay}" if relay and data.get("Active") else "idle"
    dns_name = clean(data.get("DNSName")).rstrip(".")
    return Peer(
        name=dns_name.partition(".")[0] or clean(data.get("HostName")),
        dns_name=dns_name,
        addresses=_strings(data.get("TailscaleIPs")),
        online=bool(data.get("Online")),
        path=path,
        exit_node=bool(data.get("ExitNodeOption")),
        routes=tuple(route for route in _strings(data.get("PrimaryRoutes")) if not route.endswith("/0")),
    )


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _strings(value: object) -> tuple[str, ...]:
    return tuple(clean(item) for item in value) if isinstance(value, list) else ()


def clean(value: object) -> str:
    """A string from the network that is safe on a terminal: what is not printable becomes '?'."""
    return "".join(c if c.isprintable() else "?" for c in value) if isinstance(value, str) else ""


class LocalAPI:
    """The daemon's socket in session directory `folder`."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, SOCKET)

    def _connect(self, request: str, timeout: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        try:
            connection.connect(self._path)
            connection.sendall(f"{request} HTTP/1.0\r\nHost: local-tailscaled.sock\r\n\r\n".encode())
        except OSError:
            connection.close()
            raise
        return connection

    def get(self, path: str, timeout: float = 5.0) -> Any:
        """The JSON at /localapi/v0/`path`; OSError when the daemon does not answer, TsenvError when it refuses."""
        with self._connect(f"GET /localapi/v0/{path}", timeout) as connection, connection.makefile("rb") as answer:
            return json.loads(_body(path, answer.read()))

    def ask(self, method: str, path: str) -> "Answer":
        """Send a request and do not wait: the supervisor must serve tailscaled's sockets meanwhile."""
        return Answer(path, self._connect(f"{method} /localapi/v0/{path}", 1.0))

    def status(self, *, peers: bool = True) -> Status:
        """The daemon's status; OSError when it does not answer."""
        return Status.parse(self.get("status" if peers else "status?peers=false"))

    def watch(self) -> "Bus":
        """The stream of changes; the first message tells the present state."""
        return Bus(self._connect(f"GET /localapi/v0/watch-ipn-bus?mask={WATCH_MASK}", 5.0))


def _body(path: str, answer: bytes) -> bytes:
    """The body of an HTTP answer; TsenvError unless its status is 200."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.split(b" ", 2)[1:2] != [b"200"]:
        raise TsenvError(f"tailscaled refused {path}: {clean(body.decode(errors='replace').strip())}")
    return body


class Answer:
    """An answer that is still to come."""

    def __init__(self, path: str, connection: socket.socket) -> None:
        self._path = path
        self._connection = connection
        self._connection.setblocking(False)
        self._data = b""

    def fileno(self) -> int:
        """For select."""
        return self._connection.fileno()

    def read(self) -> bytes | None:
        """Take what has come; the body when that was all, else None. OSError, TsenvError as for `get`."""
        chunk = self._connection.recv(1 << 16)
        self._data += chunk
        return None if chunk else _body(self._path, self._data)

    def close(self) -> None:
        """No interest any more."""
        self._connection.close()


class Bus:
    """The daemon's notifications (ipn.Notify), one JSON object a line, after an HTTP head."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._connection.setblocking(False)
        self._buffer = b""
        self._head = True

    def fileno(self) -> int:
        """For select."""
        return self._connection.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._connection.close()

    def read(self, handle: Callable[[dict[str, Any]], None]) -> bool:
        """Hand every whole message that has come to `handle`; False when the stream has ended."""
        try:
            data = self._connection.recv(1 << 16)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._buffer += data
        if self._head and b"\r\n\r\n" in self._buffer:
            self._buffer = self._buffer.partition(b"\r\n\r\n")[2]
            self._head = False
        while not self._head and b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            with contextlib.suppress(ValueError, RecursionError):  # no JSON: not for us
                if isinstance(notice := json.loads(line), dict):
                    handle(notice)
        return bool(data)


def state_name(number: object) -> str:
    """The name of an ipn.State."""
    return STATES[number] if isinstance(number, int) and 0 <= number < len(STATES) else ""

"""How tailscaled and tailscale are called, and what is made of what they say."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsenv import daemon
from tsenv.daemon import LocalAPI, Status
from tsenv.errors import TsenvError
from tsenv.session import Options

if TYPE_CHECKING:
    from pathlib import Path

# Cut down from `tailscale status --json` of 1.102.5.
STATUS: dict[str, Any] = {
    "Version": "1.102.5",
    "BackendState": "Running",
    "AuthURL": "",
    "TailscaleIPs": ["100.64.0.9", "fd7a:115c:a1e0::9"],
    "Self": {"ID": "9", "HostName": "me", "DNSName": "me.tail-a.test.", "Tags": ["tag:ci"], "Online": True},
    "Health": ["router: no route"],
    "CurrentTailnet": {"Name": "lab", "MagicDNSSuffix": "tail-a.test", "MagicDNSEnabled": True},
    "ExitNodeStatus": {"ID": "2", "Online": True, "TailscaleIPs": ["100.64.0.2/32"]},
    "Peer": {
        "nodekey:b": {"ID": "2", "HostName": "exit", "DNSName": "exit.tail-a.test.", "CurAddr": "10.77.0.5:41641",
                      "Relay": "lab", "Online": True, "Active": True, "ExitNodeOption": True, "TailscaleIPs": ["100.64.0.2"]},
        "nodekey:a": {"ID": "1", "HostName": "db", "DNSName": "db.tail-a.test.", "CurAddr": "", "Relay": "lab",
                      "Online": True, "Active": True, "TailscaleIPs": ["100.64.0.1"]},
        "nodekey:c": {"ID": "3", "HostName": "Old Phone", "DNSName": "", "CurAddr": "", "Relay": "", "Online": False,
                      "Active": False, "TailscaleIPs": None},
    },
}  # fmt: skip


def test_a_status() -> None:
    found = Status.parse(STATUS)
    assert found.state == "Running"
    assert found.addresses == ("100.64.0.9", "fd7a:115c:a1e0::9")
    assert (found.name, found.dns_name, found.tags) == ("me", "me.tail-a.test", ("tag:ci",))
    assert found.magic_dns
    assert found.health == ("router: no route",)
    assert found.exit_node == "exit"
    assert [(p.name, p.path, p.online, p.exit_node) for p in found.peers] == [
        ("Old Phone", "idle", False, False),
        ("db", "relay lab", True, False),
        ("exit", "direct 10.77.0.5:41641", True, True),
    ]
    assert found.peers[0].addresses == ()


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*STATUS, *STATUS["Self"], "x"]), inner, max_size=5),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([*STATUS]), junk))
def test_no_status_is_too_odd(data: dict[str, Any]) -> None:
    """Names and tags come from other people's machines: whatever they are, they are shown and nothing else happens."""
    found = Status.parse(data)
    for text in (found.state, found.name, found.dns_name, *found.health, *found.tags, *(p.name for p in found.peers)):
        assert text.isprintable()


def test_names_cannot_write_on_the_terminal() -> None:
    assert daemon.clean("ok \x1b[2Jx\r\n\u202e") == "ok ?[2Jx???"
    assert daemon.clean(None) == ""
    assert daemon.clean("größe") == "größe"


@pytest.mark.parametrize(("number", "name"), [(0, "NoState"), (2, "NeedsLogin"), (3, "NeedsMachineAuth"), (6, "Running")])
def test_states(number: int, name: str) -> None:
    assert daemon.state_name(number) == name


@pytest.mark.parametrize("number", [-1, 7, None, "6", 6.0])
def test_no_states(number: object) -> None:
    assert daemon.state_name(number) == ""


# --- argv ------------------------------------------------------------------------------------------------------------------


def test_the_daemons_argv() -> None:
    argv = daemon.tailscaled_argv("/bin/tailscaled", "/run/s", "/var/s", 41000)
    assert argv[0] == "/bin/tailscaled"
    assert {"--socket=/run/s/tailscaled.sock", "--statedir=/var/s", "--port=41000", "--no-logs-no-support"} <= set(argv)


def words(*login: str, **options: Any) -> list[str]:
    return daemon.up_words(Options(hostname="me", **options), login=login, timeout=30.4)


def test_up_without_options_is_closed() -> None:
    assert words() == [
        "up", "--reset", "--timeout=30s", "--hostname=me", "--shields-up=true", "--accept-routes=false", "--accept-dns=true",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"allow_incoming": True}, "--shields-up=false"),
        ({"accept_routes": True}, "--accept-routes=true"),
        ({"accept_dns": False}, "--accept-dns=false"),
        ({"login_server": "http://h"}, "--login-server=http://h"),
        ({"advertise_tags": ("tag:a", "tag:b")}, "--advertise-tags=tag:a,tag:b"),
        ({"extra": ("--ssh",)}, "--ssh"),
    ],
)
def test_each_option_is_one_word(options: dict[str, Any], word: str) -> None:
    assert word in words(**options)
    assert word not in words()


def test_what_the_user_adds_comes_last() -> None:
    """So that it wins: tailscale takes the last of two."""
    assert words("--auth-key=file:/dev/stdin", extra=("--hostname=other",))[-2:] == [
        "--auth-key=file:/dev/stdin",
        "--hostname=other",
    ]


def test_an_exit_node_is_no_word_of_up() -> None:
    """Before the login the daemon knows no peers' names; it is set afterwards."""
    assert not any("exit-node" in word for word in words(exit_node="de"))


def test_a_timeout_is_never_zero() -> None:
    """0 means for ever to tailscale."""
    assert "--timeout=1s" in daemon.up_words(Options(), login=(), timeout=0.01)


# --- the socket ------------------------------------------------------------------------------------------------------------


def serve(folder: Path, answer: bytes) -> threading.Thread:
    """A daemon that answers one request."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / daemon.SOCKET))
    listener.listen()

    def one() -> None:
        connection, _ = listener.accept()
        with connection, listener:
            connection.recv(1 << 16)
            connection.sendall(answer)

    thread = threading.Thread(target=one)
    thread.start()
    return thread


def test_get(tmp_path: Path) -> None:
    thread = serve(tmp_path, b"HTTP/1.0 200 OK\r\nX: y\r\n\r\n" + json.dumps(STATUS).encode())
    assert LocalAPI(str(tmp_path)).status().name == "me"
    thread.join()


@pytest.mark.parametrize("head", [b"HTTP/1.0 403 Forbidden", b"HTTP/1.0 500 200 ", b""])
def test_a_refusal(tmp_path: Path, head: bytes) -> None:
    thread = serve(tmp_path, head + b"\r\n\r\naccess denied\x1b\n")
    with pytest.raises(TsenvError, match=r"tailscaled refused status: access denied\?"):
        LocalAPI(str(tmp_path)).status()
    thread.join()


def test_no_daemon(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        LocalAPI(str(tmp_path)).status()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_bus_takes_messages_however_they_are_cut(size: int) -> None:
    ours, theirs = socket.socketpair()
    bus = daemon.Bus(ours)
    stream = b'HTTP/1.0 200 OK\r\nA: b\r\n\r\n{"State":2}\n\n{"State":6,"x":"\xc3\xa9"}\n{"Sta'
    heard: list[dict[str, Any]] = []
    for at in range(0, len(stream), size):
        theirs.sendall(stream[at : at + size])
        assert bus.read(heard.append)
    assert heard == [{"State": 2}, {"State": 6, "x": "é"}]
    assert bus.read(heard.append)  # nothing there is not the end
    theirs.close()
    assert not bus.read(heard.append)
    bus.close()

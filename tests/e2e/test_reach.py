"""The main job: any program in a session reaches peers by every name they have, and the internet too (issue 3, 1)."""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING

import pytest
from lab_state import wait_until
from rig import caller

if TYPE_CHECKING:
    from lab import Lab
    from rig import Session

PAGE = "my-server of tailnet A\n"


@pytest.fixture(params=["short name", "FQDN", "address", "IPv6 address"])
def peer(request: pytest.FixtureRequest, either: Session, lab: Lab) -> str:
    """The peer my-server, as one may call it."""
    node = lab.control.find("my-server")
    assert node
    v4, v6 = sorted(node.addresses, key=len)
    names = {"short name": "my-server", "FQDN": either.fqdn, "address": v4, "IPv6 address": v6}
    return names[request.param]


@pytest.fixture
def nowhere() -> str:
    """A path that no test has used yet, on both sides of an ssh."""
    return f"/tmp/tsenv-e2e-{uuid.uuid4().hex}"


def test_ping(either: Session, peer: str) -> None:
    done = either.exec("ping", "-c2", "-i0.2", "-W5", peer)
    assert done.returncode == 0, done
    assert "2 received" in done.stdout


def test_udp(either: Session, peer: str) -> None:
    done = either.exec(*caller(peer, "7", udp=True))
    assert done.stdout == "hello\n", done


def test_tcp(either: Session, peer: str) -> None:
    done = either.exec(*caller(peer, "7"))
    assert done.stdout == "hello\n", done


def test_http(either: Session, peer: str) -> None:
    url = f"http://[{peer}]" if ":" in peer else f"http://{peer}"
    done = either.exec("curl", "-sS", f"{url}/", f"{url}/ip")
    page, seen = done.stdout.splitlines(keepends=True)
    assert page == PAGE, done
    # The peer sees the node, not the computer it runs on: it came through the tailnet.
    assert seen.strip() in either.status()["addresses"]


def test_ssh(either: Session, peer: str) -> None:
    done = either.exec("ssh", peer, "uname -n; id -un; exit 3")
    assert done.stdout == "my-server\ntsenv-lab\n", done
    assert done.returncode == 3
    assert not done.stderr


def test_ssh_carries_bytes_both_ways(either: Session) -> None:
    data = bytes(range(256)) * 4000
    done = either.exec("ssh", "my-server", "cat", input=data)
    assert done.stdout_bytes == data


def test_scp_there_and_back(either: Session, nowhere: str) -> None:
    script = """set -eu
    mkdir "$1" && cd "$1"
    head -c 3000000 /dev/urandom >sent
    scp -q sent my-server:"$1/at the peer"
    scp -q my-server:"$1/at the peer" back
    cmp sent back
    """
    done = either.exec("sh", "-c", script, "sh", nowhere)
    either.machine.run(["rm", "-rf", nowhere])
    assert done.returncode == 0, done
    assert not done.stderr


def test_rsync_over_ssh(either: Session, nowhere: str) -> None:
    script = """set -eu
    mkdir -p "$1/here/deep"
    echo 1 >"$1/here/one"
    head -c 200000 /dev/urandom >"$1/here/deep/two"
    rsync -a -e ssh "$1/here/" my-server:"$1/there/"
    rsync -a -e ssh my-server:"$1/there/" "$1/back/"
    diff -r "$1/here" "$1/back"
    """
    done = either.exec("sh", "-c", script, "sh", nowhere)
    either.machine.run(["rm", "-rf", nowhere])
    assert done.returncode == 0, done
    assert not done.stderr


def test_much_data_arrives_whole(either: Session) -> None:
    size = 20_000_000
    done = either.exec("bash", "-c", f"set -o pipefail; curl -sS http://my-server/bytes/{size} | sha256sum")
    assert done.stdout.split()[0] == hashlib.sha256(b"x" * size).hexdigest(), done


def test_the_internet_in_the_same_session(either: Session) -> None:
    done = either.exec("curl", "-sS", "http://internet.lab.test/", "http://internet.lab.test/ip", "http://my-server/")
    assert done.stdout == f"internet\n{either.machine.address}\n{PAGE}", done


def test_the_internet_by_ipv6(either: Session) -> None:
    # Debian 12's pasta loses IPv6 answers in the first second of a namespace.
    there = lambda: either.exec("curl", "-sS", "-m2", "http://internet6.lab.test/").stdout == "internet\n"  # noqa: E731
    wait_until("IPv6", there, 40)
    done = either.exec("curl", "-sS", "-m5", "http://internet6.lab.test/ip")
    assert done.stdout == f"{either.machine.address6}\n", done


def test_a_name_that_is_nowhere_fails_at_once(either: Session) -> None:
    done = either.exec("curl", "-sS", "-m5", "http://no-such-peer/")
    assert done.returncode == 6, done  # could not resolve
    assert either.exec("getent", "hosts", "no-such-peer.tail-a.test").returncode == 2


def test_names_by_every_library(either: Session) -> None:
    """The C library's, and those of programs that only read /etc/resolv.conf."""
    address = either.exec("getent", "ahostsv4", "my-server").stdout.split()[0]
    python = either.exec("python3", "-c", "import socket; print(socket.gethostbyname('my-server'))")
    assert python.stdout.strip() == address
    own = either.exec("busybox", "nslookup", either.fqdn)
    assert f"Address: {address}\n" in own.stdout, own


def test_its_own_name_and_address_lead_to_itself(either: Session) -> None:
    status = either.status()
    own = either.exec("getent", "ahostsv4", status["dns_name"])
    assert own.stdout.split()[0] == status["addresses"][0], own
    assert either.exec("ping", "-c1", "-W2", status["addresses"][0]).returncode == 0


def test_the_path_to_the_peer_is_direct(either: Session) -> None:
    """No relay in between: the peer is on the same LAN."""
    done = either.tsenv("tailscale", "ping", "--until-direct", "-c", "10", "my-server")
    assert done.returncode == 0, done
    assert "via 10.77.0.2:41641" in done.stdout.splitlines()[-1], done
    paths = {peer["name"]: peer["path"] for peer in either.status()["peers"]}
    assert paths["my-server"] == "direct 10.77.0.2:41641"

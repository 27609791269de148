"""Closed by default: no port of one side is open on the other, and each option opens its own and no other (issue 3, 5)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from rig import await_ready, caller, server, some_port

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence

    from conftest import NewSession
    from lab import Lab
    from lab_box import Completed, Machine
    from rig import Session

    Background = list[subprocess.Popen[bytes]]

REFUSED = "Connection refused"


def serve_inside(session: Session, background: Background, port: str, address: str = "::", *, udp: bool = False) -> None:
    """Answer "inside" at a port of the session."""
    background.append(session.popen(*server(address, port, "inside", udp=udp)))
    await_ready(background[-1])


def serve_outside(machine: Machine, background: Background, port: str, address: str, *, udp: bool = False) -> None:
    """Answer "outside" at a port of the computer."""
    background.append(machine.popen(server(address, port, "outside", udp=udp)))
    await_ready(background[-1])


def silent(ask: Callable[[Sequence[str]], Completed], calls: list[list[str]]) -> None:
    """Make all calls at once, for some must time out; none may be answered."""
    with ThreadPoolExecutor() as pool:
        for done in pool.map(ask, calls):
            assert done.returncode, done
            assert not answer(done), done


def ping(address: str) -> list[str]:
    """Argv of a ping that says nothing but by its status."""
    return ["sh", "-c", f"ping -c1 -W1 {address} >/dev/null"]


def answer(done: Completed) -> str:
    """What a caller got, empty if nothing."""
    return done.stdout.strip()


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_a_port_inside_is_not_on_the_host(lab: Lab, either: Session, background: Background, udp: bool) -> None:
    port = some_port()
    serve_inside(either, background, port, "0.0.0.0", udp=udp)
    assert answer(either.exec(*caller("127.0.0.1", port, udp=udp))) == "inside"
    for box in (either.machine, lab.internet):
        for address in ("127.0.0.1", either.machine.address):
            done = box.run(caller(address, port, udp=udp))
            assert REFUSED in done.stderr, done


def test_a_port_inside_is_not_on_the_host_by_ipv6(lab: Lab, either: Session, background: Background) -> None:
    port = some_port()
    serve_inside(either, background, port)
    assert answer(either.exec(*caller("::1", port))) == "inside"
    for box in (either.machine, lab.internet):
        for address in ("::1", either.machine.address6):
            done = box.run(caller(address, port))
            assert REFUSED in done.stderr, done


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_the_hosts_loopback_is_not_inside(either: Session, background: Background, udp: bool) -> None:
    """Neither by 127.0.0.1 nor by any address that pasta is known to map to it."""
    port, port6 = some_port(), some_port()
    serve_outside(either.machine, background, port, "127.0.0.1", udp=udp)
    serve_outside(either.machine, background, port6, "::1", udp=udp)
    assert answer(either.machine.run(caller("127.0.0.1", port, udp=udp))) == "outside"
    assert answer(either.machine.run(caller("::1", port6, udp=udp))) == "outside"
    gateway = either.exec("sh", "-c", "PATH=$PATH:/sbin ip route show default | cut -d' ' -f3").stdout.strip()
    assert gateway == "10.77.0.1"
    calls = [("127.0.0.1", port), (gateway, port), (either.machine.address, port), ("169.254.1.1", port)]
    calls += [("::1", port6), ("fd77::1", port6), (either.machine.address6, port6)]
    silent(lambda words: either.exec(*words), [caller(*call, udp=udp, seconds=1) for call in calls])


def test_a_peer_cannot_connect_in(lab: Lab, either: Session, background: Background) -> None:
    port = some_port()
    serve_inside(either, background, port)
    addresses = either.status()["addresses"]
    for address in addresses:
        assert answer(either.exec(*caller(address, port))) == "inside"
    calls = [call for address in addresses for call in (caller(address, port, seconds=1), ping(address))]
    silent(lab.my_server.run, calls)


def test_allow_incoming(lab: Lab, new_session: NewSession, background: Background) -> None:
    """Lets peers in, by both families and protocols; still nothing is open on the host."""
    session, port, udp = new_session("--allow-incoming"), some_port(), some_port()
    serve_inside(session, background, port)
    serve_inside(session, background, udp, udp=True)
    for address in session.status()["addresses"]:
        assert answer(lab.my_server.run(caller(address, port), check=True)) == "inside"
        assert answer(lab.my_server.run(caller(address, udp, udp=True), check=True)) == "inside"
        assert lab.my_server.run(["ping", "-c1", "-W2", address]).returncode == 0
    done = session.machine.run(caller("127.0.0.1", port))
    assert REFUSED in done.stderr, done


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_publish(lab: Lab, new_session: NewSession, background: Background, udp: bool) -> None:
    """One port of the session, on the host's loopback; not on its network, and no other port."""
    port, other = some_port(), some_port()
    session = new_session("--publish", f"{port}/udp" if udp else port)
    for number in (port, other):
        serve_inside(session, background, number, "0.0.0.0", udp=udp)
    assert answer(session.machine.run(caller("127.0.0.1", port, udp=udp))) == "inside"
    for box, address, number in (
        (session.machine, "127.0.0.1", other),
        (session.machine, session.machine.address, port),
        (lab.internet, session.machine.address, port),
    ):
        done = box.run(caller(address, number, udp=udp))
        assert REFUSED in done.stderr, done
    done = session.machine.run(caller("127.0.0.1", port, udp=not udp))
    assert REFUSED in done.stderr, done
    done = lab.my_server.run(caller(session.address, port, udp=udp, seconds=1))
    assert "timed out" in done.stderr, done


def test_publish_to_the_network(lab: Lab, new_session: NewSession, background: Background) -> None:
    port = some_port()
    session = new_session("--publish", f"0.0.0.0:{port}")
    serve_inside(session, background, port, "0.0.0.0")
    assert answer(lab.internet.run(caller(session.machine.address, port))) == "inside"
    assert answer(session.machine.run(caller("127.0.0.1", port))) == "inside"


def test_publish_several_and_down_closes_them(new_session: NewSession, background: Background) -> None:
    ports = [some_port() for _ in range(3)]
    session = new_session(*(word for port in ports for word in ("--publish", port)))
    for port in ports:
        serve_inside(session, background, port, "0.0.0.0")
        assert answer(session.machine.run(caller("127.0.0.1", port))) == "inside"
    session.tsenv("down", "--force", check=True)
    for port in ports:
        done = session.machine.run(caller("127.0.0.1", port))
        assert REFUSED in done.stderr, done


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_host_port(new_session: NewSession, background: Background, udp: bool) -> None:
    """One port of the host's loopback, inside at the same address; no other port, and no other way round."""
    port, other = some_port(), some_port()
    session = new_session("--host-port", f"{port}/udp" if udp else port)
    for number in (port, other):
        serve_outside(session.machine, background, number, "127.0.0.1", udp=udp)
    assert answer(session.exec(*caller("127.0.0.1", port, udp=udp))) == "outside"
    done = session.exec(*caller("127.0.0.1", other, udp=udp))
    assert REFUSED in done.stderr, done
    calls = [caller(address, port, udp=udp, seconds=1) for address in ("10.77.0.1", session.machine.address)]
    silent(lambda words: session.exec(*words), calls)


@pytest.mark.parametrize("option", ["--publish", "--host-port"])
@pytest.mark.parametrize("value", ["0", "65536", "80-90", "", "-1"])
def test_what_is_no_port(machine: Machine, option: str, value: str, session_name: str) -> None:
    done = machine.run(["tsenv", "-n", session_name, "up", f"{option}={value}"])
    assert done.returncode == 2, done
    assert done.stderr.startswith(f"tsenv: '{value}' is not a port\n  hint: "), done


def test_a_port_that_is_taken(up: Callable[..., Completed], background: Background, machine: Machine) -> None:
    """`up` fails and names it: the program behind the published port would be another."""
    port = some_port()
    serve_outside(machine, background, port, "127.0.0.1")
    done = up("--publish", port, check=False)
    assert done.returncode == 125, done
    error = next(line for line in done.stderr.splitlines() if "--publish" in line)
    assert "cannot be opened" in error
    assert port in error

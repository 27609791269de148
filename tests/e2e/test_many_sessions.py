"""Many commands in one session, many sessions beside each other, each with its own tailnet (issue 3, 3)."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import NewSession
    from lab import Lab
    from rig import Session

ASK = "curl -sS http://my-server/ http://my-server/ip"


def test_fifty_commands_at_once(session: Session) -> None:
    """Each reaches the peer, has its own input, output and status."""
    children = [session.popen("sh", "-c", f"{ASK}; cat; exit {n}", stdin=-1) for n in range(50)]
    answers = [child.communicate(f"{n}".encode(), timeout=60) for n, child in enumerate(children)]
    address = session.address
    assert [out.decode() for out, _ in answers] == [f"my-server of tailnet A\n{address}\n{n}" for n in range(50)]
    assert [child.returncode for child in children] == list(range(50))
    assert {err for _, err in answers} == {b""}


def test_eight_sessions_of_two_tailnets_at_once(lab: Lab, new_session: NewSession, session_name: str) -> None:
    """They go up at the same time; each resolves my-server to the one of its own tailnet, and is a node of its own."""
    controls = [lab.control_b if n in (2, 5) else lab.control for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        jobs = [
            pool.submit(new_session, name=f"{session_name}-{n}", control=control)
            for n, control in enumerate(controls)
        ]
        sessions = [job.result() for job in jobs]
        answers = list(pool.map(lambda s: s.exec("sh", "-c", ASK).stdout, sessions))
        addresses = list(pool.map(lambda s: s.address, sessions))
    letters = "AABAABAA"
    expected = [f"my-server of tailnet {x}\n{address}\n" for x, address in zip(letters, addresses, strict=True)]
    assert answers == expected
    listed = {row["name"]: row for row in json.loads(lab.machine.run(["tsenv", "list", "--json"]).stdout)}
    for one, control, address in zip(sessions, controls, addresses, strict=True):
        assert (listed[one.name]["state"], listed[one.name]["addresses"][0]) == ("up", address)
        assert listed[one.name]["dns_name"] == f"{one.name}.{control.domain}"


@pytest.fixture
def two(lab: Lab, new_session: NewSession, session_name: str) -> tuple[Session, Session]:
    """A session in each tailnet."""
    return (
        new_session(name=f"{session_name}-a"),
        new_session(name=f"{session_name}-b", control=lab.control_b),
    )


def test_two_tailnets_are_apart(two: tuple[Session, Session]) -> None:
    ours, theirs = two
    for one, letter in ((ours, "A"), (theirs, "B")):
        for name in ("my-server", one.fqdn):
            assert one.exec("curl", "-sS", f"http://{name}/").stdout == f"my-server of tailnet {letter}\n"
        assert one.exec("ssh", "my-server", "uname", "-n").stdout == "my-server\n"
        assert {peer["dns_name"] for peer in one.status()["peers"]} >= {one.fqdn}
    for one, other in ((ours, theirs), (theirs, ours)):
        assert one.exec("getent", "hosts", other.fqdn).returncode == 2
        # Ports of one are not ports of the other: both have a loopback of their own.
        assert one.status()["netns"] != other.status()["netns"]


def test_one_session_is_not_joined_from_inside_another(two: tuple[Session, Session]) -> None:
    ours, theirs = two
    for words in (["tsenv", "-n", theirs.name, "exec", "true"], ["env", "a.b=1", "tsenv", "-n", theirs.name, "exec", "true"]):
        done = ours.exec(*words)
        assert done.returncode == 125, done
        assert done.stderr.startswith(f"tsenv: session '{theirs.name}' cannot be joined from in here"), done
    # But it can be asked about, and the one inside is the default.
    assert ours.exec("tsenv", "-n", theirs.name, "status").returncode == 0
    assert ours.exec("tsenv", "status").stdout.startswith(f"{ours.name}: up")


def test_the_end_of_one_is_not_the_end_of_another(two: tuple[Session, Session]) -> None:
    ours, theirs = two
    child = theirs.popen("sh", "-c", f"read line; {ASK}", stdin=-1)
    ours.tsenv("down", check=True)
    out, _ = child.communicate(b"go on\n", timeout=20)
    assert out.startswith(b"my-server of tailnet B\n")
    assert ours.exec("true").returncode == 125

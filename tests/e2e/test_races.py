"""Two at the same moment, and what a killed machine leaves: one session, whole and ours, or none."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from lab_state import start_time, wait_until
from rig import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab import Lab
    from lab_box import Completed, Machine

UID = pwd.getpwnam("tsenv-lab").pw_uid
Ups = "Callable[..., subprocess.Popen[bytes]]"


def folder(name: str) -> Path:
    """The session's directory, seen as root."""
    return Path(f"/run/user/{UID}/tsenv/{name}")


def record(name: str) -> dict[str, Any]:
    """Its session.json."""
    found: dict[str, Any] = json.loads((folder(name) / "session.json").read_text())
    return found


@pytest.fixture
def session(lab: Lab, machine: Machine, session_name: str) -> Iterator[Session]:
    """A session that is not up yet, and is down with the test."""
    yield Session(session_name, machine, lab.control)
    machine.run(["tsenv", "-n", session_name, "down", "--force"])
    assert not folder(session_name).exists()


def start_up(session: Session, *options: str, key: str | None = None) -> subprocess.Popen[bytes]:
    """Start `tsenv up` and go on."""
    words = ["--login-server", session.control.url, "--hostname", session.name, "--auth-key-file", "-", *options]
    child = session.machine.popen(["tsenv", "-n", session.name, "up", *words], stdin=subprocess.PIPE)
    assert child.stdin
    child.stdin.write((key or session.control.auth_key()).encode())
    child.stdin.close()
    child.stdin = None
    return child


def ends(child: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    out, err = child.communicate(timeout=60)
    return child.returncode, out.decode(), err.decode()


def bring_up(session: Session, *options: str) -> None:
    """Bring it up, new."""
    status, out, err = ends(start_up(session, *options))
    assert status == 0, err
    assert out.startswith(f"{session.name}: up, "), out


def nodes(session: Session) -> int:
    """How many nodes of this name the control server has."""
    return len([node for node in session.control.nodes() if node.name == session.name])


def works(session: Session) -> None:
    """It is up, whole, and its commands reach the tailnet."""
    shown = session.tsenv("status", "--json", check=True)
    assert json.loads(shown.stdout)["state"] == "up"
    page = session.exec("curl", "-sS", "-m", "15", "http://my-server/")
    assert page.stdout == "my-server of tailnet A\n", str(page)
    assert nodes(session) == 1


# --- two at the same moment ------------------------------------------------------------------------------------------------


def test_four_with_the_same_options(session: Session) -> None:
    keys = [session.control.auth_key() for _ in range(4)]
    outcomes = [ends(child) for child in [start_up(session, key=key) for key in keys]]
    assert [status for status, _, _ in outcomes] == [0] * 4, outcomes
    said = sorted(re.sub(r", .*", "", out.strip()) for _, out, _ in outcomes)
    assert said == [f"{session.name}: up", *[f"{session.name}: up already"] * 3]
    assert sum("waiting for another tsenv" in err for _, _, err in outcomes) >= 1, outcomes
    works(session)


def test_two_with_other_options(session: Session) -> None:
    children = [start_up(session), start_up(session, "--accept-routes")]
    outcomes = [ends(child) for child in children]
    assert sorted(status for status, _, _ in outcomes) == [0, 125], outcomes
    lost = next(err for status, _, err in outcomes if status)
    assert re.search(r"is up with other options: accept-routes: here (yes, asked for no|no, asked for yes)\n", lost), lost
    assert f"tsenv -n {session.name} down" in lost
    works(session)


def test_again_with_the_same_options(session: Session) -> None:
    bring_up(session)
    before = record(session.name)
    begin = time.monotonic()
    status, out, err = ends(start_up(session, key="needs-no-key"))
    assert time.monotonic() - begin < 3
    assert (status, err) == (0, "")
    assert out.startswith(f"{session.name}: up already, {before['addresses'][0]}")
    # Nobody keeps a one-time key; without one the login would be by URL, but there is none to do.
    words = ["up", "--login-server", session.control.url, "--hostname", session.name]
    assert session.tsenv(*words, check=True).stdout == out
    assert record(session.name) == before


def test_again_with_other_options(session: Session) -> None:
    bring_up(session, "--accept-routes")
    words = ["--hostname", "other", "--persistent", "--publish", "18080", "--advertise-tags", "tag:a,tag:b"]
    status, out, err = ends(start_up(session, *words))
    assert (status, out) == (125, "")
    first, second = err.splitlines()
    for difference in (
        f"hostname: here {session.name}, asked for other",
        "accept-routes: here yes, asked for no",
        "advertise-tags: here none, asked for tag:a tag:b",
        "publish: here none, asked for 127.0.0.1/18080",
        "ephemeral: here yes, asked for no",
    ):
        assert difference in first
    assert "login-server" not in first
    assert second.startswith(f"  hint: tsenv -n {session.name} down")
    works_still = session.exec("true")
    assert works_still.returncode == 0


def test_up_while_it_goes_down(session: Session) -> None:
    bring_up(session)
    down = session.machine.popen(["tsenv", "-n", session.name, "down"])
    wait_until("the session to go down", lambda: not (folder(session.name) / "ready").exists(), 10)
    bring_up(session)
    assert ends(down)[0] == 0
    works(session)


def test_up_while_it_ends_by_itself(session: Session) -> None:
    """Nobody holds the lock then, and its logout must not be disturbed."""
    bring_up(session)
    first = record(session.name)
    with paused(first["pids"]["tailscaled"]["pid"]) as resume:
        os.kill(first["pids"]["supervisor"]["pid"], signal.SIGTERM)
        wait_until("the session to go down", lambda: not (folder(session.name) / "ready").exists(), 10)
        child = start_up(session)
        assert child.stderr
        assert b"waiting for the end of the last" in child.stderr.readline()
        resume()
    status, out, err = ends(child)
    assert (status, out.partition(",")[0]) == (0, f"{session.name}: up"), err
    works(session)


@contextlib.contextmanager
def paused(pid: int) -> Iterator[Callable[[], None]]:
    """A process that stands still until the function given is called, or the block ends."""

    def resume() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    os.kill(pid, signal.SIGSTOP)
    try:
        yield resume
    finally:
        resume()


@pytest.mark.parametrize("force", [True, False])
def test_down_while_it_goes_up(lab: Lab, session: Session, force: bool) -> None:
    """With --force at once; without, when the other one is done with it."""
    with lab.testcontrol(hang_register=True) as server:
        child = start_up(session, "--login-server", server.url, "--timeout", "20" if force else "3", key="x")
        wait_until("the daemon", (folder(session.name) / "tailscaled.sock").exists, 10)
        begin = time.monotonic()
        down = session.tsenv("down", *(["--force"] if force else []), timeout=30)
        assert time.monotonic() - begin < 8
        status, _, err = ends(child)
    assert status == 125
    assert "Traceback" not in err
    assert down.returncode in (0, 125), str(down)
    assert not folder(session.name).exists()


def test_exec_while_it_goes_up(lab: Lab, session: Session) -> None:
    with lab.testcontrol(hang_register=True) as server:
        child = start_up(session, "--login-server", server.url, "--timeout", "3", key="x")
        wait_until("the way in", (folder(session.name) / "join").exists, 10)
        done = session.exec("true")
        assert done.returncode == 125
        assert f"tsenv: session '{session.name}' is still going up\n  hint: " in done.stderr
        shown = session.tsenv("status", "--json")
        assert json.loads(shown.stdout)["state"] == "starting"
        ends(child)


def test_another_that_does_not_let_go(session: Session) -> None:
    """A lock that stays held is named when --timeout is over."""
    hold = f"mkdir -p -m 700 {folder(session.name)}; exec flock {folder(session.name)}/lock sh -c 'echo; exec sleep 30'"
    holder = session.machine.popen(["sh", "-c", hold])
    assert holder.stdout
    holder.stdout.readline()
    try:
        status, _, err = ends(start_up(session, "--timeout", "1", key="x"))
        assert status == 125
        assert f"another tsenv has had session '{session.name}' in hand for too long\n  hint: tsenv " in err
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.communicate()


# --- what a killed `up` or machine leaves ----------------------------------------------------------------------------------


def logins(session: Session) -> list[int]:
    """The pids of `tailscale up` for this session."""
    mark = f"--socket={folder(session.name)}/tailscaled.sock".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            argv = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if mark in argv and b"up" in argv:
                found.append(int(entry.name))
    return found


def test_a_killed_up_leaves_nothing(lab: Lab, session: Session) -> None:
    with lab.testcontrol(hang_register=True) as server:
        child = start_up(session, "--login-server", server.url, key="x")
        login = wait_until("the login", lambda: logins(session), 10)[0]
        # One that has not looked for its daemon yet would find the next session's, and log that in elsewhere.
        with paused(login):
            child.kill()
            ends(child)
            wait_until("the login to go", lambda: not logins(session), 5)
        wait_until("the directory to go", lambda: not folder(session.name).exists(), 10)
    bring_up(session)
    works(session)


@pytest.mark.parametrize("made", ["lock", "session.json", "join", "tailscaled.sock"])
def test_up_at_once_after_a_killed_one(session: Session, made: str) -> None:
    """The killed one's supervisor is still taking everything down: it must not take the next session with it."""
    child = start_up(session)
    wait_until(f"{made} to be there", (folder(session.name) / made).exists, 10)
    child.kill()
    ends(child)
    bring_up(session)
    works(session)


def kill_machine(session: Session) -> dict[str, Any]:
    """All at once, as when the power goes, but for the directory: on many machines that is no tmpfs."""
    found = record(session.name)
    for part in ("supervisor", "anchor", "inner", "tailscaled", "pasta"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(found["pids"][part]["pid"], signal.SIGKILL)
    wait_until("all of it to end", lambda: not any(start_time(p["pid"]) == p["start"] for p in found["pids"].values()), 5)
    return found


def test_a_killed_machine(session: Session) -> None:
    bring_up(session)
    kill_machine(session)
    done = session.exec("true")
    assert done.returncode == 125
    assert re.match(rf"tsenv: session '{session.name}' has (died|ended).*\n  hint: tsenv ", done.stderr), done.stderr
    assert json.loads(session.tsenv("status", "--json").stdout)["state"] == "dead"
    assert re.search(rf"^{session.name} +dead", session.tsenv("list").stdout, re.MULTILINE)
    bring_up(session)
    assert session.exec("curl", "-sS", "-m", "15", "http://my-server/").returncode == 0


def test_a_reused_pid_is_never_joined(session: Session, up: Callable[..., Completed]) -> None:
    """The worst case: all numbers of the dead session now belong to the parts of another session."""
    bring_up(session)
    other = Session(f"{session.name}-b", session.machine, session.control)
    up(name=other.name)
    theirs = record(other.name)["pids"]
    dead = kill_machine(session)
    forged = dead | {"pids": {part: {"pid": theirs[part]["pid"], "start": dead["pids"][part]["start"]} for part in theirs}}
    (folder(session.name) / "session.json").write_text(json.dumps(forged))
    join = folder(session.name) / "join"
    text = join.read_text()
    for part in ("anchor", "inner"):
        text = re.sub(rf"\b{dead['pids'][part]['pid']}\b", str(theirs[part]["pid"]), text)
    join.write_text(text)

    for argv in (["tsenv", "-n", session.name, "exec", "true"], ["sh", str(join), "true"]):
        done = session.machine.run(argv)
        assert done.returncode == 125, str(done)
        assert re.match(rf"tsenv: session '{session.name}' has (died|ended)", done.stderr)
    # Neither `up` nor `down` may end what the numbers belong to.
    bring_up(session)
    assert session.tsenv("down", "--force").returncode == 0
    assert other.status()["state"] == "up"
    assert other.exec("true").returncode == 0


def test_a_restarted_machine(session: Session) -> None:
    bring_up(session)
    kill_machine(session)
    path = folder(session.name) / "session.json"
    path.write_text(json.dumps(record(session.name) | {"boot": "another"}))
    assert "the machine was restarted" in session.tsenv("tailscale", "status").stderr
    bring_up(session)


HALVES = {
    "nothing in it": ":",
    "a lock": ": >lock",
    "up to the overlay": ": >lock; mkdir -p etc/work/work etc/upper; chmod 0 etc/work/work; : >etc/upper/resolv.conf",
    "all but the record, and all empty": ": >lock; : >ready; : >join; mkdir -p state bin; ln -s /nowhere bin/ssh; mkfifo inner.made",
}


@pytest.mark.parametrize("what", HALVES)
def test_a_half_made_directory(session: Session, what: str) -> None:
    make = f"mkdir -p -m 700 {folder(session.name)} && cd {folder(session.name)} && {HALVES[what]}"
    session.machine.run(["sh", "-ec", make], check=True)
    done = session.exec("true")
    assert done.returncode == 125
    assert re.match(rf"tsenv: (session|no session) '{session.name}' .*\n  hint: tsenv ", done.stderr), done.stderr
    if "record" not in what:
        assert f"session '{session.name}' was never finished" in done.stderr
    assert json.loads(session.tsenv("status", "--json").stdout)["state"] == "half-made"
    bring_up(session)
    works(session)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": "other"}', '{"pids": 7}'])
def test_a_broken_record(session: Session, text: str) -> None:
    """It tells no pid that could be trusted: said, and removed by hand."""
    make = f"mkdir -p -m 700 {folder(session.name)} && cat >{folder(session.name)}/session.json"
    session.machine.run(["sh", "-ec", make], input=text, check=True)
    for words in (["exec", "true"], ["status"], ["up", "--timeout", "5"]):
        done = session.tsenv(*words)
        assert done.returncode == 125, str(done)
        assert re.match(rf"tsenv: .*{session.name}.*\n  hint: tsenv -n {session.name} down --force", done.stderr), str(done)
    assert session.name in session.tsenv("list").stdout
    assert session.tsenv("down", "--force").returncode == 0
    assert not folder(session.name).exists()

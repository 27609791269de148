"""Decisions of the supervisor that no real fault makes reliably; the faults themselves: tests/e2e/test_faults.py."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tsenv import paths, session
from tsenv.loop import Loop
from tsenv.session import Process, Session
from tsenv.supervisor import BACKOFF_MOST, Part, Supervisor, Watcher, how

if TYPE_CHECKING:
    from pathlib import Path


class Log:
    """Keeps what is told."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def event(self, text: str) -> None:
        """One more."""
        self.events.append(text)


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    """One that is up, of parts that are only data."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    paths.private_dir(paths.runtime_base())
    paths.private_dir(paths.session_dir("x"))
    made: Any = Supervisor.__new__(Supervisor)
    made.session = Session("x", pids={"supervisor": Process(1, 1)})
    made.loop, made.log = Loop(), Log()
    made.troubles, made.watcher, made.ready, made.stopping = {}, None, True, False
    made.pasta = made.tailscaled = None
    found: Supervisor = made
    return found


def test_a_part_that_cannot_be_started_is_tried_again(supervisor: Supervisor) -> None:
    tries = []

    def start() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise PermissionError(13, "pasta is being replaced by an upgrade")
        part.ended = False
        supervisor.loop.stop()

    part = Part("pasta", start, wait=0.01)
    supervisor.pasta = part
    part.timer = supervisor.loop.after(0.0, lambda: supervisor._restart(part))
    supervisor.loop.after(5, supervisor.loop.stop)
    supervisor.loop.run()
    assert len(tries) == 3


def test_the_pauses_double_up_to_a_limit(supervisor: Supervisor) -> None:
    part = supervisor.pasta = Part("pasta", lambda: None)
    pauses = []
    for pid in range(10, 20):
        part.pid, part.ended, part.began = pid, False, float("inf")
        pauses.append(part.wait)
        supervisor._ended(part, pid, -signal.SIGKILL)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, *[BACKOFF_MOST] * 4]
    part.pid, part.ended, part.began = 20, False, float("-inf")  # it ran for long
    supervisor._ended(part, 20, 1)
    assert supervisor.session.degraded == "pasta ended (exit status 1), again in 0.1 s"
    assert supervisor.session.restarts == {"pasta": 11}


def test_the_end_of_a_former_part_is_no_news(supervisor: Supervisor) -> None:
    part = supervisor.pasta = Part("pasta", lambda: None, pid=7, ended=False)
    supervisor._ended(part, 6, -9)
    assert not part.ended
    assert not supervisor.session.degraded


def test_all_that_is_wrong_is_told_until_it_is_right(supervisor: Supervisor) -> None:
    supervisor._trouble("pasta", "no pasta")
    supervisor._trouble("tailscaled", "no daemon")
    assert session.load("x").degraded == "no pasta; no daemon"  # type: ignore[union-attr]
    supervisor._trouble("pasta", "")
    assert supervisor.session.degraded == "no daemon"
    supervisor._trouble("tailscaled", "")
    assert supervisor.log.events[-1] == "all is well again"  # type: ignore[attr-defined]


@pytest.mark.parametrize("state", ["NeedsLogin", "Stopped"])
def test_a_state_says_what_to_type(supervisor: Supervisor, state: str) -> None:
    assert "tsenv -n x " in supervisor._meaning(state)


def test_a_directory_is_ours_by_its_record(supervisor: Supervisor) -> None:
    supervisor._save()
    assert supervisor._is_ours()
    other = Session("x", pids={"supervisor": Process(2, 2)})
    other.save()
    assert not supervisor._is_ours()


def test_a_removed_file_is_noticed(tmp_path: Path) -> None:
    import select

    (tmp_path / "ready").touch()
    with Watcher(str(tmp_path), Watcher.GONE) as watcher:
        assert not select.select([watcher], [], [], 0)[0]
        (tmp_path / "ready").unlink()
        assert select.select([watcher], [], [], 1)[0]
        watcher.drain()
        assert not select.select([watcher], [], [], 0)[0]


def test_ends_in_words() -> None:
    assert [how(status) for status in (0, 3, -9, -99)] == ["exit status 0", "exit status 3", "SIGKILL", "signal 99"]


def test_what_a_peer_calls_itself_comes_to_no_completion(supervisor: Supervisor) -> None:
    """From tailscaled's answer to the file: shell code, escapes and options are no host names."""
    names = ["db", "$(touch hacked)", "`id`", "-oProxyCommand=id", "a\x1b[2Jb", "x;y", "ünï", "a b", ""]
    peers = {f"nodekey:{n}": {"HostName": name, "DNSName": f"{name}.tail.test."} for n, name in enumerate(names)}
    supervisor._write_peers(json.dumps({"BackendState": "Running", "Peer": peers}).encode())
    with open(supervisor.session.file("peers"), encoding="utf-8") as file:
        assert file.read().split("\n") == ["db", "db.tail.test", ""]

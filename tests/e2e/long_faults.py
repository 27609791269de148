"""Faults that take their time: `make soak` runs these, and `make test` does not: the file is not named as tests are."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from faults import back_after, connection, measured, reaches, record, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab_control import Control

    from tests.e2e.conftest import NewSession

pytestmark = pytest.mark.timeout(900)

SUSPENDED = 60  # seconds, as the others
AWAY = 300
JUMP = 300
INTERNET = ("curl", "-sS", "--max-time", "5", "http://internet.lab.test/")


def test_a_minute_of_suspend(new_session: NewSession) -> None:
    """All that suspend does to processes: to the session's, and to those in it."""
    session = new_session()
    with connection(session) as ask:
        found = record(session)
        stopped = [p["pid"] for p in found["pids"].values()] + [p["pid"] for p in session.status()["processes"]]
        assert len(stopped) > len(found["pids"])
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(SUSPENDED)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        silence = ask()
        assert session.exec(*INTERNET).stdout == "internet\n"
    assert record(session)["pids"] == found["pids"]
    assert (session.status()["state"], session.status()["health"]) == ("up", [])
    measured(f"suspend for {SUSPENDED} s, and resume", "nothing", "all; open connections go on", {"silence": silence})


def test_ten_times_in_a_row(new_session: NewSession) -> None:
    """Both at once, each time; the pauses grow to five seconds."""
    session = new_session()
    before = session.status()
    silences: list[float] = []
    with connection(session) as ask:
        for _ in range(10):
            back_after(session, "tailscaled", "pasta", meanwhile=lambda: silences.append(ask()))
    after = session.status()
    assert after["addresses"] == before["addresses"]
    assert after["state"] == "up"
    assert after["restarts"] == {"tailscaled": 10, "pasta": 10}
    assert len([n for n in session.control.nodes() if n.name == session.name]) == 1
    assert session.exec(*INTERNET).stdout == "internet\n"
    measured("tailscaled and pasta: SIGKILL, ten times in a row", "an open connection is silent, at most for",
             "the same node and address; open connections to peers go on", {"silence": max(silences)})  # fmt: skip


def test_no_pasta_is_left_whenever_the_supervisor_dies(new_session: NewSession) -> None:
    """Around the moment at which another pasta starts, which does not end by itself: the hour of soak found it."""
    for turn in range(40):
        session = new_session()
        found = record(session)["pids"]
        os.kill(found["pasta"]["pid"], signal.SIGKILL)
        time.sleep(0.1 + turn * 0.0006)  # the first pause of the backoff is 0.1 s
        os.kill(found["supervisor"]["pid"], signal.SIGKILL)
        pasta = f"pasta .*--netns /proc/{found['anchor']['pid']}/ns/net"
        gone = ["sh", "-c", f"! pgrep -f '[{pasta[0]}]{pasta[1:]}'"]
        ask = functools.partial(session.machine.run, gone, user="root")
        until(lambda ask=ask: ask().returncode == 0, "the last pasta to end", 2)
        session.tsenv("down", "--force", check=True)


@pytest.mark.parametrize("how", ["gone", "hanging"])
def test_the_control_server_is_away(new_session: NewSession, own_control: Control, how: str) -> None:
    """Peers go on, also those that were not in touch; a new peer is there soon after it came back."""
    session = new_session(control=own_control)
    peer = new_session("--allow-incoming", name=f"{session.name}-peer", control=own_control)
    quiet = new_session("--allow-incoming", name=f"{session.name}-quiet", control=own_control)
    assert reaches(session, peer)
    if how == "gone":
        own_control.stop()
    else:
        own_control.pause()
    end = time.monotonic() + AWAY
    while time.monotonic() < end:
        assert reaches(session, peer)
        assert session.exec(*INTERNET).stdout == "internet\n"
        assert session.status()["state"] == "up"
        time.sleep(5)
    assert "the control server cannot be reached" in " ".join(session.status()["health"])
    assert reaches(session, quiet)
    if how == "gone":
        own_control.start()
    else:
        own_control.resume()
    begin = time.monotonic()
    late = new_session("--allow-incoming", name=f"{session.name}-late", control=own_control)
    until(lambda: reaches(session, late), "the new peer to be known", 60)
    until(lambda: session.status()["health"] == [], "all to be well", 60)
    measured(f"control server {how} for {AWAY} s", "status: it cannot be reached", "all that was up goes on; then all",
             {"a new peer is known": time.monotonic() - begin})  # fmt: skip


@contextlib.contextmanager
def clock_jump(seconds: float) -> Iterator[None]:
    """Let the machine's clock be wrong meanwhile."""
    real, passed = time.time(), time.monotonic()
    time.clock_settime(time.CLOCK_REALTIME, real + seconds)
    try:
        yield
    finally:
        time.clock_settime(time.CLOCK_REALTIME, real + time.monotonic() - passed)


@pytest.mark.skipif(not os.environ.get("TSENV_SET_CLOCK"), reason="sets the machine's clock: TSENV_SET_CLOCK=1 allows it")
@pytest.mark.parametrize("seconds", [JUMP, -JUMP])
def test_the_clock_jumps(new_session: NewSession, seconds: int) -> None:
    """There and back, which is a jump too. A time to live is none of the clock's."""
    session = new_session("--ttl", "2m")
    with connection(session) as ask:
        with clock_jump(seconds):
            silence = ask()
            time.sleep(20)  # tailscaled looks at the clock every 15 s
            silence = max(silence, ask())
            assert session.exec(*INTERNET).stdout == "internet\n"
            assert session.status()["state"] == "up"
        silence = max(silence, ask())
        time.sleep(20)
        silence = max(silence, ask())
    assert (session.status()["state"], session.status()["health"]) == ("up", [])
    measured(f"the clock jumps by {seconds:+} s", "nothing", "all; --ttl counts on", {"silence": silence})

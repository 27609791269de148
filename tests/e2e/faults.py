"""What the fault tests do to a session, and what they look at: as root, so that nothing is hidden from them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pwd
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab_state import start_time, wait_until
from rig import stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rig import Session

UID = pwd.getpwnam("tsenv-lab").pw_uid
PARTS = ("supervisor", "pasta", "anchor", "inner", "tailscaled")


def folder(session: Session) -> Path:
    """Its runtime directory, on the lab's shared computer."""
    return Path(f"/run/user/{UID}/tsenv/{session.name}")


def record(session: Session) -> dict[str, Any]:
    """Its session.json."""
    found: dict[str, Any] = json.loads((folder(session) / "session.json").read_text())
    return found


def pid(session: Session, part: str) -> int:
    """The process id of one of its parts, now."""
    return int(record(session)["pids"][part]["pid"])


def log(session: Session) -> str:
    """What its supervisor has told."""
    home = Path(pwd.getpwnam("tsenv-lab").pw_dir)
    return (home / f".local/state/tsenv/{session.name}/supervisor.log").read_text()


def kill(session: Session, *parts: str, number: int = signal.SIGKILL) -> None:
    """Send a signal to parts, all at the same moment."""
    for found in [pid(session, part) for part in parts]:
        os.kill(found, number)


def until(probe: Callable[[], object], what: str, seconds: float = 15) -> None:
    """Wait until the probe is true; the deadline names what was waited for."""
    wait_until(what, probe, seconds)


def is_well(session: Session) -> bool:
    """Whether it says of itself that it is whole, without running anything."""
    found = record(session)
    return not found["degraded"] and all(start_time(found["pids"][part]["pid"]) for part in PARTS)


def back_after(
    session: Session, *parts: str, number: int = signal.SIGKILL, meanwhile: Callable[[], object] = lambda: None
) -> float:
    """Kill parts; the seconds until others have taken their place and the session is whole again.

    `meanwhile` is called at once after the kill.
    """
    before = {part: pid(session, part) for part in parts}
    begin = time.monotonic()
    kill(session, *parts, number=number)
    meanwhile()
    wait_until(
        f"{parts} of {session.name} to be back",
        lambda: all(pid(session, part) != before[part] for part in parts) and is_well(session),
        20,
    )
    return time.monotonic() - begin


def reaches(session: Session, peer: Session) -> bool:
    """Whether a ping gets to another session, which must allow that, by its name."""
    return session.exec("ping", "-c", "1", "-W", "5", peer.name, timeout=60).returncode == 0


def runs(found: dict[str, Any]) -> list[str]:
    """What still runs of a session, by its record: its parts, and everything in its network namespace."""
    left = [f"{part} {p['pid']}" for part, p in found["pids"].items() if start_time(p["pid"]) == p["start"]]
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "ns/net").stat().st_ino == found["netns"]:
                left.append(f"inside: {(entry / 'cmdline').read_bytes()!r}")
    return left


def gone_after(found: dict[str, Any], seconds: float) -> float:
    """Wait until nothing of the session runs; how long that took. The limit is a promise, not a guess."""
    begin = time.monotonic()
    while left := runs(found):
        assert time.monotonic() - begin < seconds, f"after {seconds} s there still runs {left}"
        time.sleep(0.02)
    return time.monotonic() - begin


def mounts(session: Session) -> list[str]:
    """Mounts of it that the host, or the lab's computer, can see."""
    seen = []
    for holder in (1, session.machine.holder.pid):
        lines = Path(f"/proc/{holder}/mounts").read_text().splitlines()
        seen += [line for line in lines if f"/tsenv/{session.name}" in line]
    return seen


@contextlib.contextmanager
def memory_cgroup(process: int, limit: int) -> Iterator[Callable[[], int]]:
    """Put a process into a cgroup that may take `limit` bytes more; yields what counts the OOM kills in it."""
    root = Path("/sys/fs/cgroup")
    first = root / "memory" if (root / "memory").is_dir() else root
    place = first / f"tsenv-test-{process}"
    if first == root and "memory" not in (root / "cgroup.subtree_control").read_text():
        (root / "cgroup.subtree_control").write_text("+memory")
    place.mkdir()
    kept, counted = ("memory.max", "memory.events") if first == root else ("memory.limit_in_bytes", "memory.oom_control")
    try:
        (place / kept).write_text(str(limit))
        (place / "cgroup.procs").write_text(str(process))
        yield lambda: int((place / counted).read_text().split("oom_kill ")[1].split()[0])
    finally:
        wait_until("the cgroup to be empty", lambda: not (place / "cgroup.procs").read_text(), 10)
        place.rmdir()


@contextlib.contextmanager
def connection(session: Session) -> Iterator[Callable[[], float]]:
    """An ssh connection that echoes lines: each call sends one and returns the seconds until it is back."""
    child = session.popen("ssh", "my-server", "cat", stdin=subprocess.PIPE)
    assert child.stdin
    assert child.stdout
    numbers = itertools.count()

    def ask() -> float:
        line = b"line %d\n" % next(numbers)
        begin = time.monotonic()
        child.stdin.write(line)
        child.stdin.flush()
        assert child.stdout.readline() == line
        return time.monotonic() - begin

    try:
        ask()
        yield ask
        _, said = child.communicate(timeout=10)
        assert child.returncode == 0, said
    finally:
        stop(child)


def measured(fault: str, sees: str, back: str, seconds: dict[str, float]) -> None:
    """Add a row to the fault matrix (docs/reliability.md) when the run is asked to write one."""
    if path := os.environ.get("TSENV_FAULT_MATRIX"):
        test = os.environ["PYTEST_CURRENT_TEST"].partition("::")[2].rpartition(" ")[0]
        row = {"fault": fault, "sees": sees, "back": back, "seconds": seconds, "test": test}
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

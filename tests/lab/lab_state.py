"""What the lab has made, on disk: so that any process can attach to it, and a later one clean up after a killed one.

Everything lies in /run/tsenv-lab: lab.json (this state), log/, and a folder for each part.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

FOLDER = Path("/run/tsenv-lab")
STATE = FOLDER / "lab.json"
BIN = Path("/opt/tsenv-lab/bin")
VENV = Path("/opt/tsenv-lab/venv")
HERE = Path(__file__).resolve().parent
NETNS_PREFIX = "tsl-"
LAB_USERS = ("tsenv-lab", "tsenv-other")

Found = TypeVar("Found")

# Children of this process: kept, so that they can be reaped, and that no Popen warns about being forgotten.
_children: dict[int, subprocess.Popen[bytes]] = {}


class LabError(Exception):
    """The lab cannot do what it was asked; the message says what failed and shows the log."""


@dataclass(frozen=True)
class Process:
    """A process that the lab started. Pid and start time (clock ticks since boot) together name it for good."""

    name: str
    pid: int
    start: int

    def alive(self) -> bool:
        """Tell whether this very process still runs (a zombie does not)."""
        return start_time(self.pid) == self.start

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def start_time(pid: int) -> int | None:
    """Return the start time of a running process in clock ticks; None if it ended or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


@contextlib.contextmanager
def locked(name: str, mode: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold the lab-wide lock of that name."""
    with lock_file(name).open("w") as file:
        fcntl.flock(file, mode)
        yield


def lock_file(name: str) -> Path:
    """Name a lock's file; it lies with what setup installed, for the lab's own folder goes with the lab."""
    folder = Path("/opt/tsenv-lab/locks")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def load() -> dict[str, Any]:
    """Return the state of the running lab."""
    try:
        state: dict[str, Any] = json.loads(STATE.read_text())
    except FileNotFoundError:
        message = "no lab is up (tests/lab/lab.py up)"
        raise LabError(message) from None
    return state


@contextlib.contextmanager
def edited() -> Iterator[dict[str, Any]]:
    """Give the state to change, and write it back whole."""
    with locked("state"):
        state = load()
        yield state
        save(state)


def save(state: Mapping[str, Any]) -> None:
    """Write the state by a rename: a reader never sees half of it."""
    fresh = STATE.with_suffix(".new")
    fresh.write_text(json.dumps(state, indent=1) + "\n")
    fresh.replace(STATE)


def sh(*argv: str | Path, stdin: str = "", timeout: float = 30) -> str:
    """Run a program of the lab's own making and return its output; LabError shows what it said."""
    words = [str(word) for word in argv]
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        message = f"{' '.join(words)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        raise LabError(message)
    return done.stdout


def spawn(name: str, argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Process:
    """Start a daemon of the lab, its output in log/NAME.log, and record it before anything else can fail."""
    log = FOLDER / "log" / f"{name}.log"
    words = [str(word) for word in argv]
    with log.open("wb") as output:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C at the tests is not for the lab
            cwd="/",
            env=dict(env) if env is not None else None,
        )
    _children[child.pid] = child
    process = Process(name, child.pid, start_time(child.pid) or 0)
    with edited() as state:
        state["processes"].append([process.name, process.pid, process.start])
    return process


def processes(state: Mapping[str, Any]) -> list[Process]:
    """List the recorded processes, oldest first."""
    return [Process(*entry) for entry in state["processes"]]


def find_process(name: str) -> Process:
    """Return the recorded process of that name, the newest one."""
    for process in reversed(processes(load())):
        if process.name == name:
            return process
    message = f"the lab has no process {name!r}"
    raise LabError(message)


def wait_until(what: str, probe: Callable[[], Found | None], seconds: float = 15) -> Found:
    """Ask until the probe answers; the deadline names what was waited for."""
    deadline = time.monotonic() + seconds
    while not (found := probe()):
        if time.monotonic() > deadline:
            message = f"waited {seconds} s for {what}"
            raise LabError(message)
        time.sleep(0.02)
    return found


def wait_for_line(process: Process, pattern: str, seconds: float = 15) -> None:
    """Wait for a daemon's log to say that it is ready; show the log when it does not."""
    log = FOLDER / "log" / f"{process.name}.log"
    wanted = re.compile(pattern, re.MULTILINE)

    def said() -> bool:
        if wanted.search(log.read_text(errors="replace")):
            return True
        if not process.alive():
            message = f"{process.name} ended:\n{log.read_text(errors='replace')[-3000:]}"
            raise LabError(message)
        return False

    try:
        wait_until(f"{process.name} to say {pattern!r}", said, seconds)
    except LabError as error:
        message = f"{error}\n{log.read_text(errors='replace')[-3000:]}"
        raise LabError(message) from None


def end(victims: Sequence[Process], grace: float = 4) -> None:
    """End processes: SIGTERM, a grace period on their pidfds, SIGKILL. Returns when all are gone."""
    handles = {}
    for process in victims:
        if process.alive():
            with contextlib.suppress(ProcessLookupError):
                handles[os.pidfd_open(process.pid)] = process
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 4.0)):
        for process in handles.values():
            process.signal(number)
            process.signal(signal.SIGCONT)  # a paused one too must hear it
        _await(handles, seconds)
    for handle in handles:
        os.close(handle)


def retire(victims: Sequence[Process]) -> None:
    """End processes that are meant to be gone from now on, and strike them from the record."""
    end(victims)
    gone = {process.pid for process in victims}
    with edited() as state:
        state["processes"] = [entry for entry in state["processes"] if entry[1] not in gone]


def _await(handles: dict[int, Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while handles and (left := deadline - time.monotonic()) > 0:
        for handle in select.select(list(handles), [], [], left)[0]:
            process = handles.pop(handle)
            os.close(handle)
            if child := _children.pop(process.pid, None):
                child.wait()


def networks() -> list[str]:
    """List the network namespaces that a lab made, also a killed one."""
    folder = Path("/run/netns")
    return sorted(path.name for path in folder.glob(f"{NETNS_PREFIX}*")) if folder.is_dir() else []


def residents(names: Sequence[str]) -> list[Process]:
    """List the processes in these network namespaces."""
    homes = {Path(f"/run/netns/{name}").stat().st_ino for name in names}
    return _select(lambda network, _: network in homes)


def strays() -> list[Process]:
    """List what was started on the lab's computers and still runs: in their networks, or by the lab's users elsewhere.

    A session of tsenv has a network of its own, so the user id is what tells its processes. The lab's users exist
    for the lab alone; still, what they run in the host's network is none of our business.
    """
    homes = {Path(f"/run/netns/{name}").stat().st_ino for name in networks()}
    host = Path("/proc/self/ns/net").stat().st_ino
    uids = {int(sh("id", "-u", user)) for user in LAB_USERS}
    found = _select(lambda network, uid: network in homes or (uid in uids and network != host))
    return [process for process in found if _has_our_root(process)]


def _has_our_root(process: Process) -> bool:
    """Tell a process of ours from one of a lab in another root directory: tests/matrix runs one in a chroot."""
    try:
        return Path("/").samefile(f"/proc/{process.pid}/root")
    except OSError:
        return False  # it has ended


def _select(wanted: Callable[[int, int], bool]) -> list[Process]:
    """List the processes that a predicate of network namespace (inode) and user id picks."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if wanted((folder / "ns/net").stat().st_ino, folder.stat().st_uid):
                pid = int(folder.name)
                found.append(Process((folder / "comm").read_text().strip(), pid, start_time(pid) or 0))
    return found


def wipe() -> None:
    """Remove everything a lab made, whatever is left of it: processes, networks, files."""
    if STATE.exists():
        end(processes(load()))
    for _ in range(3):  # what a supervisor restarts while it ends is a stray of the next round
        if not (left := strays()):
            break
        end(left, grace=1)
    for name in networks():
        sh("ip", "netns", "del", name)
    shutil.rmtree(FOLDER, ignore_errors=True)

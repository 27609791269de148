"""What a refused or interrupted command must look like: two good lines, the right status, and nothing left of it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab_box import Machine

# Runs argv as its child and adopts what that leaves behind (PR_SET_CHILD_SUBREAPER, prctl(2)), whatever sessions and
# namespaces it is in. What still runs a second after argv ended is listed in the last line of stderr, and ended.
REAPER = """
import ctypes, json, os, pathlib, signal, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = os.fork()
if child == 0:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execvp(sys.argv[1], sys.argv[1:])
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def parent(pid):
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0

def left():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return []
    mine = {os.getpid()}
    for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        if parent(pid) in mine:
            mine.add(pid)
    return sorted(mine - {os.getpid()})

deadline = time.monotonic() + 1
while left() and time.monotonic() < deadline:
    time.sleep(0.02)
found = []
for pid in left():
    argv = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(bytes(1))
    found.append(f"{pid} {b' '.join(argv).decode(errors='replace').strip()}")
while rest := left():
    for pid in rest:
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.02)
sys.stderr.write(f"left: {json.dumps(found)}\\n")
sys.exit(status if status >= 0 else 128 - status)
"""

PROGRESS = re.compile(r"^tsenv: .* \(\d+\.\d s\)$")


@dataclass(frozen=True)
class Outcome:
    """What a command said and did: its status, its words without progress, what ran on, which sessions there are."""

    status: int
    stdout: str
    stderr: str
    left: list[str]
    sessions: list[str]

    @property
    def lines(self) -> list[str]:
        """Standard error without the lines of progress."""
        return [line for line in self.stderr.splitlines() if not PROGRESS.match(line)]

    def assert_refused(self, says: str, hint: str = "", code: int = 125) -> None:
        """Assert one line of error with `says`, one of hint with `hint`, `code`, and that nothing is left."""
        shown = f"{self}\n{self.stderr}"
        assert self.status == code, shown
        assert not self.stdout, shown
        assert len(self.lines) == 2, shown
        assert re.match(r"tsenv: \S", self.lines[0]), shown
        assert re.match(r"  hint: \S", self.lines[1]), shown
        assert re.search(says, self.lines[0]), shown
        assert re.search(hint, self.lines[1]), shown
        assert len(self.lines[0]) < 250, shown
        self.assert_nothing_left()

    def assert_nothing_left(self) -> None:
        """Assert that no process runs on and no session's directory is there."""
        assert not self.left, f"{self.left}\n{self.stderr}"
        assert not self.sessions, f"{self.sessions}\n{self.stderr}"


def watched(argv: Sequence[str]) -> list[str]:
    """Argv that runs `argv` and tells what it left running."""
    return ["/usr/bin/python3", "-I", "-c", REAPER, *argv]


def split_left(text: str) -> tuple[str, list[str]]:
    """What a command said, and what the reaper said of it."""
    said, _, tail = text.rstrip().rpartition("left: ")
    found: list[str] = json.loads(tail)
    return said, found


def sessions(machine: Machine, runtime: str, *names: str) -> list[str]:
    """Those of `names` (all when none is given) that have a directory in a runtime directory."""
    there = machine.run(["ls", "-A", f"{runtime}/tsenv"]).stdout.split()
    return [name for name in there if not names or name in names]


def attempt(
    machine: Machine,
    argv: Sequence[str],
    *,
    name: str = "",
    input: str = "",  # noqa: A002 - as subprocess calls it
    env: Mapping[str, str | None] | None = None,
    user: str = "tsenv-lab",
    timeout: float = 60,
) -> Outcome:
    """Run a command that is to fail. `name`: the only session it could leave (otherwise: any)."""
    done = machine.run(watched(argv), input=input, env=env, user=user, timeout=timeout)
    said, found = split_left(done.stderr)
    runtime = (env or {}).get("XDG_RUNTIME_DIR") or "/run/user/" + machine.run(["id", "-u"]).stdout.strip()
    names = [name] if name else []
    return Outcome(done.returncode, done.stdout, said, found, sessions(machine, runtime, *names))

"""The generated `join`, in every POSIX shell there is: whom it refuses, and that the command is as without it.

Its session is a process in our own network, so that it is "already inside" and needs no namespaces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tsenv import namespace
from tsenv.scrub import SECRETS
from tsenv.session import Process, Session
from tsenv.tools import find

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHELLS = [["dash"], ["bash", "--posix"], ["bash"], ["busybox", "sh"], ["ksh"], ["zsh", "--emulate", "sh"]]
# A command name that looks like the fields after it.
NAMES = ["sleep", "a) R 1 (b", "ein name", "x\ny"]


@pytest.fixture(params=SHELLS, ids=" ".join)
def shell(request: pytest.FixtureRequest) -> list[str]:
    """One of the shells; a machine that lacks one leaves it out."""
    found: list[str] = request.param
    if not shutil.which(found[0]):
        pytest.skip(f"no {found[0]} here")
    return found


@pytest.fixture
def anchor() -> Iterator[Process]:
    """A process to join."""
    child = subprocess.Popen(["sleep", "60"])
    yield Process.of(child.pid)
    child.kill()
    child.wait()


def write(folder: Path, anchor: Process, name: str = "ci") -> Path:
    """A `join` for it."""
    path = folder / "join"
    path.write_text(namespace.join_script(Session(name, pids={"anchor": anchor, "inner": anchor}), wdns=True))
    return path


def run(shell: list[str], join: Path, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    base = {"PATH": "/usr/bin:/bin", "HOME": "/root"}
    return subprocess.run([*shell, str(join), *argv], env=base | env, capture_output=True, text=True, check=False, timeout=20)


def test_the_command_is_as_it_was_typed(shell: list[str], anchor: Process, tmp_path: Path) -> None:
    words = ["", " ", "a b", "$(echo x)", "`x`", "'", '"', "*", "\\", "-n", "--", "\n", "é", "!"]
    done = run(shell, write(tmp_path, anchor), "printf", "<%s>", *words)
    assert done.stdout == "".join(f"<{word}>" for word in words), done
    assert not done.stderr


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", -15)])
def test_its_end_is_the_commands(shell: list[str], anchor: Process, tmp_path: Path, script: str, status: int) -> None:
    assert run(shell, write(tmp_path, anchor), "sh", "-c", script).returncode == status


def test_the_environment_is_the_callers(shell: list[str], anchor: Process, tmp_path: Path) -> None:
    given = {"A": "b c", "line": "1", "rest": "2", "entry": "3", "started": "4", "IFS": "x", "EMPTY": ""}
    secrets = dict.fromkeys(SECRETS, "canary")
    activated = {"TSENV_BIN": "/x", "TSENV_DIR": "/y"}
    done = run(shell, write(tmp_path, anchor), "/usr/bin/env", "-0", **given, **secrets, **activated)
    inside = dict(entry.split("=", 1) for entry in done.stdout.split("\0") if entry)
    assert inside["TSENV_SESSION"] == "ci"
    assert "canary" not in done.stdout
    assert not activated.keys() & inside.keys()
    assert not [name for name in inside if name.startswith("__tsenv")]
    given.pop("IFS")  # every shell sets its own
    assert given.items() <= inside.items()


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/a:{shims}/ci/bin:/usr/bin:/bin", "/a:/usr/bin:/bin"),
        ("{shims}/ci/bin:/usr/bin:/bin:{shims}/other/bin", "/usr/bin:/bin"),
        ("/usr/bin:/bin:{shims}/ci/bin/more", "/usr/bin:/bin:{shims}/ci/bin/more"),
        ("/usr/bin:/bin", "/usr/bin:/bin"),
        (":/usr/bin::/bin:", ":/usr/bin::/bin:"),
        ("/usr/bin:/bin:/a b:/*", "/usr/bin:/bin:/a b:/*"),
    ],
)
def test_no_shim_runs_inside(
    shell: list[str], anchor: Process, tmp_path: Path, path: str, inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state of 'me'")
    shims = "/state of 'me'/tsenv"
    done = run(shell, write(tmp_path, anchor), "printenv", "PATH", PATH=path.format(shims=shims))
    wanted = inside.format(shims=shims)
    # An empty entry at the very end or beginning may be lost only where another empty one says the same.
    assert done.stdout.rstrip("\n").strip(":") == wanted.strip(":"), done
    assert ("" in wanted.split(":")) == ("" in done.stdout.rstrip("\n").split(":"))


@pytest.mark.parametrize("name", NAMES)
def test_any_anchors_name_is_understood(shell: list[str], tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(program), "60"])
    try:
        done = run(shell, write(tmp_path, Process.of(child.pid)), "echo", "in")
        if "\n" not in name:  # join reads one line; then it refuses, which is the safe side
            assert done.stdout == "in\n", done
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("what", ["another start time", "gone", "a zombie"])
def test_the_dead_are_not_joined(shell: list[str], tmp_path: Path, what: str) -> None:
    child = subprocess.Popen(["sleep", "60"])
    anchor = Process.of(child.pid)
    if what == "another start time":
        anchor = Process(anchor.pid, anchor.start - 1)
    else:
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        if what == "gone":
            child.wait()
    join = write(tmp_path, anchor, "it-s")
    done = run(shell, join, "echo", "in")
    child.kill()
    child.wait()
    assert done.returncode == 125, done
    assert not done.stdout
    assert done.stderr.startswith("tsenv: session 'it-s' has died")
    assert done.stderr.endswith("\n  hint: tsenv -n it-s up\n")
    assert len(done.stderr.splitlines()) == 2


def test_without_a_command(shell: list[str], anchor: Process, tmp_path: Path) -> None:
    done = run(shell, write(tmp_path, anchor))
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("tsenv: no command to run\n  hint: ")


@pytest.mark.parametrize(("word", "status"), [("no-such-command", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_be_run(shell: list[str], anchor: Process, tmp_path: Path, word: str, status: int) -> None:
    assert run(shell, write(tmp_path, anchor), word).returncode == status


@pytest.mark.parametrize("wdns", [True, False])
def test_it_is_a_clean_script(anchor: Process, tmp_path: Path, wdns: bool) -> None:
    session = Session("ci", pids={"anchor": anchor, "inner": Process(anchor.pid + 1, anchor.start)})
    text = namespace.join_script(session, wdns=wdns)
    last = text.splitlines()[-1]
    assert last.startswith(f"exec {find('nsenter')} -t {anchor.pid} -U -n -m --preserve-credentials ")
    assert f"{find('nsenter')} -t {anchor.pid + 1} -U --preserve-credentials --" in last
    assert ('--wdns="$PWD"' in last) == wdns
    assert not [word for word in text.split() if word.startswith("@") and word.endswith("@")]
    if shutil.which("shellcheck"):
        (tmp_path / "join").write_text(text)
        # -ef is in every sh there is; the words in single quotes are for another shell.
        subprocess.run(["shellcheck", "--shell=sh", "--exclude=SC3013,SC2016", str(tmp_path / "join")], check=True)


def test_it_forks_nothing_before_the_command(anchor: Process, tmp_path: Path) -> None:
    """Each process would cost a millisecond of every command."""
    if not shutil.which("strace"):
        pytest.skip("no strace here")
    trace = tmp_path / "trace"
    argv = ["strace", "-f", "-e", "trace=clone,clone3,fork,vfork,execve", "-o", str(trace), "/bin/sh"]
    done = run(argv, write(tmp_path, anchor), "/bin/true")
    assert done.returncode == 0, done
    calls = [line.split(None, 1)[1].partition("(")[0] for line in trace.read_text().splitlines() if "(" in line]
    assert calls == ["execve", "execve"]

"""What each way may load. A module that slips in costs every command, every prompt, every completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tsenv
from tsenv.session import Process, Session

ROOT = Path(tsenv.__file__).parent.parent

# Runs a command line in a bare interpreter (-I -S) and tells on descriptor 3 what was loaded beyond that.
MEASURE = f"""
import os, sys
bare = set(sys.modules)
sys.path[:0] = {[str(ROOT), *(path for path in sys.path if path.endswith("-packages"))]!r}

def tell(*_):
    os.write(3, "\\n".join(sorted(set(sys.modules) - bare)).encode())
    os._exit(0)

os.execve = tell
from tsenv.__main__ import main
try:
    main()
finally:
    sys.stdout.flush()
    tell()
"""
# Imported by the interpreter itself on some builds only.
OF_PYTHON = {"encodings.ascii", "encodings.latin_1"}
HEAVY = {"plumbum", "subprocess", "rich", "asyncio", "multiprocessing", "socket", "ssl", "http"}


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A session that looks as if it were up; its parts are this process."""
    (tmp_path / "tsenv/ci").mkdir(parents=True, mode=0o700)
    (tmp_path / "tsenv").chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    me = Process.of(os.getpid())
    made = Session("ci", pids=dict.fromkeys(("supervisor", "anchor", "inner"), me))
    made.save()
    for name in ("ready", "join"):
        (tmp_path / "tsenv/ci" / name).write_text("x")
    return "ci"


def loaded(tmp_path: Path, *words: str, **env: str) -> set[str]:
    """The modules that a command line loads beyond those of a bare interpreter."""
    reader, writer = os.pipe()
    names = ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "PATH")
    base = {name: os.environ[name] for name in names if name in os.environ} | {"HOME": str(tmp_path)} | env
    code = f"import os; os.dup2({writer}, 3)\n{MEASURE}"
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code, *words],
        env=base, cwd=tmp_path, pass_fds=(writer, *([3] if writer == 3 else [])), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(writer)
    out, err = child.communicate(timeout=30)
    with open(reader, "rb") as told:
        modules = set(told.read().decode().split("\n"))
    assert "tsenv.__main__" in modules, (out, err)
    assert not err.startswith(b"Traceback"), err
    return modules - OF_PYTHON


def tops(modules: set[str]) -> set[str]:
    """Their packages."""
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("words", [["-n", "ci", "exec", "true"], ["-nci", "exec", "--", "ls", "-l"]], ids=" ".join)
def test_exec(session: str, tmp_path: Path, words: list[str]) -> None:
    """os and sys are there already; of ours, just what finds the session."""
    found = loaded(tmp_path, *words)
    ours = {module for module in found if module.startswith("tsenv")}
    assert ours == {"tsenv", *(f"tsenv.{name}" for name in ("__main__", "errors", "execute", "paths", "scrub"))}
    # -I -S has not imported os; with site it always is. None of these is a file that is read beyond that.
    assert found - ours <= {"os", "stat", "_stat", "posixpath", "genericpath", "posix", "_collections_abc", "abc", "_abc", "_signal"}


def test_exec_finds_the_session_by_environment_as_cheaply(session: str, tmp_path: Path) -> None:
    assert loaded(tmp_path, "exec", "true", TSENV_SESSION="ci") == loaded(tmp_path, "-n", "ci", "exec", "true")


@pytest.mark.parametrize(
    "words",
    [
        ["activate", "ci", "bash"],
        ["activate", "ci", "zsh"],
        ["activate", "ci", "fish"],
        ["deactivate", "bash"],
        ["hook", "bash"],
        ["hook", "zsh"],
        ["hook", "fish"],
        ["completion", "bash"],
        ["env", "ci", "--shell", "bash"],
    ],
    ids=" ".join,
)
def test_code_for_shells(session: str, tmp_path: Path, words: list[str]) -> None:
    found = loaded(tmp_path, *words)
    assert tops(found) & HEAVY == set()
    if words[0] not in ("env", "hook"):  # once a shell and once a step; all others answer a person or a prompt
        assert not tops(found) & {"json", "dataclasses", "inspect", "pathlib", "tempfile", "tomllib", "shellingham"}


@pytest.mark.parametrize("words", [["list"], ["--version"], ["status", "--json", "ci"], ["down", "nosuch"]], ids=" ".join)
def test_verbs_that_start_nothing_load_no_plumbum(session: str, tmp_path: Path, words: list[str]) -> None:
    assert tops(loaded(tmp_path, *words)) & {"plumbum", "rich", "asyncio", "ssl", "http"} == set()


def test_the_measure_would_notice(session: str, tmp_path: Path) -> None:
    assert "argparse" in loaded(tmp_path, "list")
    assert "argparse" not in loaded(tmp_path, "-n", "ci", "exec", "true")

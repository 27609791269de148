"""What sessions leave behind, and for how long."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tsenv import paths, supervisor

if TYPE_CHECKING:
    from pathlib import Path

OLD = supervisor.KEEP_SECONDS + 60


def leave(state: Path, name: str, age: int, *files: str) -> Path:
    folder = state / "tsenv" / name
    (folder / "bin").mkdir(parents=True)
    for file in ("supervisor.log", *files):
        (folder / file).touch()
    written = time.time() - age
    os.utime(folder / "supervisor.log", (written, written))
    return folder


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("age", "files", "up", "stays"),
    [
        (OLD, ["once"], False, False),
        (60, ["once"], False, True),
        (OLD, ["once"], True, True),
        (OLD, ["once", "tailscaled.state"], False, True),
        (OLD, [], False, True),  # a shell may have its shims on PATH
    ],
)
def test_what_sessions_of_one_job_left_goes_after_a_week(
    state: Path, age: int, files: list[str], up: bool, stays: bool
) -> None:
    folder = leave(state, "deploy-0123abcd", age, *files)
    if up:
        os.makedirs(paths.session_dir(folder.name))
    supervisor.prune()
    assert folder.exists() == stays


def test_not_all_at_once(state: Path) -> None:
    for number in range(supervisor.PRUNE_MOST + 3):
        leave(state, f"run-{number}", OLD, "once")
    supervisor.prune()
    assert len(os.listdir(state / "tsenv")) == 3
    supervisor.prune()
    assert os.listdir(state / "tsenv") == []


@pytest.mark.usefixtures("state")
def test_nothing_to_look_at() -> None:
    supervisor.prune()

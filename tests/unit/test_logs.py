"""What sessions leave behind, and for how long."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tsenv import logs, paths

if TYPE_CHECKING:
    from pathlib import Path

OLD = logs.KEEP_SECONDS + 60


@pytest.mark.parametrize(
    ("name", "age", "file", "up", "stays"),
    [
        ("deploy-0123abcd", OLD, "", False, False),
        ("run-0123abcd", OLD, "", False, False),
        ("run-0123abcd", 60, "", False, True),
        ("run-0123abcd", OLD, "", True, True),
        ("run-0123abcd", OLD, "tailscaled.state", False, True),
        ("work", OLD, "", False, True),
        ("default", OLD, "", False, True),
    ],
)
def test_what_made_up_sessions_left_goes_after_a_week(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, age: int, file: str, up: bool, stays: bool
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "state/tsenv" / name
    (folder / "bin").mkdir(parents=True)
    (folder / "supervisor.log").touch()
    written = time.time() - age
    os.utime(folder / "supervisor.log", (written, written))
    if file:
        (folder / file).touch()
    if up:
        os.makedirs(paths.session_dir(name))
    logs.prune()
    assert folder.exists() == stays

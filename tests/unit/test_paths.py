"""Where sessions live, which names are names, and that nobody else's directory is used."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsenv import paths
from tsenv.errors import USAGE, TsenvError


@given(st.text(max_size=70))
def test_names_are_what_the_rule_says(name: str) -> None:
    """The check by hand (no `re` on the exec path) and the rule that is printed agree."""
    if re.fullmatch(paths.NAME_RULE, name):
        assert paths.valid_name(name) == name
        return
    with pytest.raises(TsenvError) as caught:
        paths.valid_name(name)
    assert caught.value.code == USAGE
    assert caught.value.message.isprintable()
    assert paths.NAME_RULE in caught.value.hint


@pytest.mark.parametrize("name", ["a", "A.b_c-d", "0", "x" * 63])
def test_names(name: str) -> None:
    assert paths.valid_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "_a", "a b", "a\n", "é", "x" * 64, "\x1b[2J"])
def test_no_names(name: str) -> None:
    with pytest.raises(TsenvError, match="is not a session name"):
        paths.valid_name(name)


def test_the_runtime_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/some/where")
    assert paths.runtime_base() == "/some/where/tsenv"
    assert paths.session_dir("ci") == "/some/where/tsenv/ci"


@pytest.mark.parametrize("value", ["", "relative/path"])
def test_an_unusable_variable_is_as_none(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The XDG specification: paths must be absolute, others are to be ignored."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    assert paths.runtime_base() == "/tmp/tsenv-4711"
    monkeypatch.setattr(os.path, "isdir", lambda path: path == "/run/user/4711")
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    assert paths.runtime_base() == "/run/user/4711/tsenv"
    monkeypatch.setenv("XDG_STATE_HOME", value)
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.state_dir("ci") == "/home/me/.local/state/tsenv/ci"


def test_a_private_directory_is_made_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "tsenv"
    assert paths.private_dir(str(folder)) == str(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    paths.private_dir(str(folder))
    folder.chmod(0o755)
    paths.private_dir(str(folder))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700  # the daemon's socket in it is 0666


def test_links_and_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").touch()
    with pytest.raises(TsenvError, match="is a symbolic link; refused"):
        paths.private_dir(str(tmp_path / "link"))
    with pytest.raises(TsenvError, match="is not a directory"):
        paths.private_dir(str(tmp_path / "file"))
    paths.check_private(str(tmp_path / "nothing"))


def test_another_users_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mode = tmp_path.stat().st_mode
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    with pytest.raises(TsenvError, match="belongs to another user") as caught:
        paths.check_private(str(tmp_path))
    assert "XDG_RUNTIME_DIR" in caught.value.hint
    assert tmp_path.stat().st_mode == mode


@pytest.mark.parametrize("rel", ["shell/join.sh", "shell/anchor.sh"])
def test_data_files_are_there(rel: str) -> None:
    assert Path(paths.data_file(rel)).read_text().startswith("#!/bin/sh\n")


def test_the_name_that_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    monkeypatch.delenv("TSENV_SESSION", raising=False)
    assert paths.config_file(str(inner)) is None
    assert paths.session_name(None) == "default"
    (tmp_path / ".tsenv.toml").write_text('name = "work"\n')
    assert paths.config_file() == str(tmp_path / ".tsenv.toml")
    assert paths.session_name(None) == "work"
    monkeypatch.setenv("TSENV_SESSION", "shell")
    assert paths.session_name(None) == "shell"
    assert paths.session_name("given") == "given"
    monkeypatch.setenv("TSENV_SESSION", "../../etc")
    with pytest.raises(TsenvError):
        paths.session_name(None)


def test_a_deleted_working_directory_has_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert paths.config_file() is None
    monkeypatch.chdir("/")

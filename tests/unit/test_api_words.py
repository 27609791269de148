"""The Python API, as far as it needs no tailnet: the block's end, and the program that it starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tsenv import api, session
from tsenv.commands import down
from tsenv.errors import USAGE, TsenvError
from tsenv.session import Process


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A session `ci` that looks as if it were up, by this process; what is brought down is told here."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "tsenv/ci").mkdir(parents=True, mode=0o700)
    record(Process.of(os.getpid()))
    Path(session.Session("ci").file("ready")).touch()
    names: list[str] = []
    monkeypatch.setattr(down, "end", lambda name, **_: names.append(name))
    return names


def record(supervisor: Process) -> None:
    session.Session("ci", pids={"supervisor": supervisor, "anchor": supervisor}).save()


def test_the_blocks_end_ends_it(ended: list[str]) -> None:
    with api.Session("ci", ours=True):
        assert ended == []
    assert ended == ["ci"]


def test_one_that_was_up_before_stays(ended: list[str]) -> None:
    with api.Session("ci", ours=False):
        pass
    assert ended == []


def test_one_that_is_gone_ends_in_silence(ended: list[str]) -> None:
    with pytest.raises(ZeroDivisionError), api.Session("ci", ours=True) as found:
        Path(found._record.file(session.RECORD)).unlink()
        raise ZeroDivisionError
    assert ended == []


def test_another_of_its_name_is_not_ours(ended: list[str]) -> None:
    with api.Session("ci", ours=True):
        record(Process.of(os.getppid()))
    assert ended == []


def test_what_does_not_end_is_said(ended: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, **_: object) -> None:
        raise TsenvError(f"{name} did not end")

    monkeypatch.setattr(down, "end", fail)
    with pytest.raises(TsenvError, match="ci did not end"), api.Session("ci", ours=True):
        pass


def test_the_working_directory_holds_no_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "argparse.py").write_text("raise SystemExit('taken from the working directory')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(api.__file__).parents[1]))
    with pytest.raises(TsenvError, match="'soon' is not a time") as caught:
        api.up("ci", ttl="soon")
    assert caught.value.code == USAGE

"""The record of a session, and what state the files and processes of one mean."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsenv import session
from tsenv.errors import TsenvError
from tsenv.session import Options, Process, Session


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty runtime directory of ours."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "tsenv"
    folder.mkdir(mode=0o700)
    return folder


def make(base: Path, name: str = "ci", **changes: Any) -> Session:
    """A session on disk whose parts are this very process."""
    (base / name).mkdir(mode=0o700, exist_ok=True)
    me = Process.of(os.getpid())
    made = Session(name, pids=dict.fromkeys(("supervisor", "anchor", "inner"), me), **changes)
    made.save()
    return made


# --- processes -------------------------------------------------------------------------------------------------------------


def test_a_process_is_pid_and_start_time() -> None:
    me = Process.of(os.getpid())
    assert me.alive()
    assert not dataclasses.replace(me, start=me.start + 1).alive()
    fd = me.open()
    assert fd is not None
    os.close(fd)
    assert dataclasses.replace(me, start=me.start + 1).open() is None


def test_a_zombie_does_not_run() -> None:
    child = subprocess.Popen(["sleep", "60"])
    process = Process.of(child.pid)
    assert process.alive()
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process.alive()
    assert process.open() is None
    child.wait()
    with pytest.raises(TsenvError):
        Process.of(child.pid)


@pytest.mark.parametrize("name", ["a b", "a) R 1 1 (", "((", "))) 1 2 3"])
def test_a_command_name_does_not_shift_the_fields(name: str, tmp_path: Path) -> None:
    program = tmp_path / name
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(program), "60"])
    try:
        assert f"({name[:15]})" in Path(f"/proc/{child.pid}/stat").read_text()
        assert (session.start_time(child.pid) or 0) >= (session.start_time(os.getpid()) or 0) > 0
    finally:
        child.kill()
        child.wait()


# --- options ---------------------------------------------------------------------------------------------------------------

texts = st.text(max_size=20)
options = st.builds(
    Options,
    login_server=texts,
    accept_routes=st.booleans(),
    advertise_tags=st.lists(texts, max_size=3).map(tuple),
    ephemeral=st.none() | st.booleans(),
    extra=st.lists(texts, max_size=3).map(tuple),
)


@given(options)
def test_options_survive_json(some: Options) -> None:
    assert Options.from_json(json.loads(json.dumps(dataclasses.asdict(some)))) == some


def test_options_of_a_newer_version_are_read() -> None:
    assert Options.from_json({"hostname": "a", "of_the_future": 1}) == Options(hostname="a")


def test_differences_are_named_as_they_are_typed() -> None:
    here = Options(hostname="a", ephemeral=True, publish=("127.0.0.1/80",))
    assert here.differences(here) == []
    wanted = Options(hostname="b", accept_routes=True, ephemeral=False)
    assert here.differences(wanted) == [
        "hostname: here a, asked for b",
        "accept-routes: here no, asked for yes",
        "publish: here 127.0.0.1/80, asked for none",
        "ephemeral: here yes, asked for no",
    ]
    # Not said is no difference: the next `up` has no key any more, and the session is as it was asked for.
    assert here.differences(dataclasses.replace(here, ephemeral=None)) == []


# --- the record ------------------------------------------------------------------------------------------------------------


def test_the_record_survives(base: Path) -> None:
    made = make(base, since=12.5, options=Options(advertise_tags=("tag:a",)), addresses=["100.64.0.1"], restarts={"pasta": 1})
    assert session.load("ci") == made
    assert stat.S_IMODE((base / "ci/session.json").stat().st_mode) == 0o600
    assert (base / "ci/anchor.pid").read_text() == f"{os.getpid()}\n"
    assert (base / "ci/netns").read_text() == f"/proc/{os.getpid()}/ns/net\n"
    assert sorted(p.name for p in (base / "ci").iterdir()) == ["anchor.pid", "netns", "session.json"]


def test_replace_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "file").symlink_to("target")
    session.replace(str(tmp_path / "file"), "new")
    assert (tmp_path / "target").read_text() == "old"
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pids": {"anchor": 3}, "options": {}}', "\0", '{"pids": null}'])
def test_a_broken_record(base: Path, text: str) -> None:
    (base / "ci").mkdir(mode=0o700)
    (base / "ci/session.json").write_text(text)
    with pytest.raises(TsenvError, match="cannot be read") as caught:
        session.load("ci")
    assert "down --force" in caught.value.hint


def test_a_record_of_another_session(base: Path) -> None:
    make(base)
    (base / "ci").rename(base / "other")
    with pytest.raises(TsenvError, match="another session"):
        session.load("other")


# --- states ----------------------------------------------------------------------------------------------------------------


def test_states(base: Path) -> None:
    assert session.state("ci") == "down"
    (base / "ci").mkdir(mode=0o700)
    assert session.state("ci") == "half-made"
    lock = base / "ci/lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert session.state("ci") == "starting"
        made = make(base)
        assert session.state("ci") == "starting"
    assert session.state("ci") == "stopping"
    (base / "ci/ready").touch()
    assert session.state("ci") == "up"
    assert session.usable("ci") == made
    make(base, degraded="tailscaled ended")
    assert session.state("ci") == "degraded"
    gone = Process(made.pids["anchor"].pid, 1)
    for part in ("anchor", "supervisor"):
        made.pids = {**made.pids, part: gone}
        made.save()
        assert session.state("ci") == "dead"


@pytest.mark.parametrize(
    ("prepare", "says", "hint"),
    [
        ("", "no session 'ci' is up", "tsenv -n ci up"),
        ("mkdir", "session 'ci' was never finished", "tsenv -n ci up"),
        ("record", "session 'ci' is going down", "tsenv -n ci up"),
        ("dead", "session 'ci' has died: its", "tsenv -n ci up"),
        ("rebooted", "session 'ci' has died: the machine was restarted", "tsenv -n ci up"),
    ],
)
def test_what_is_said_of_an_unusable_one(base: Path, prepare: str, says: str, hint: str) -> None:
    if prepare:
        (base / "ci").mkdir(mode=0o700)
    if prepare in ("record", "dead", "rebooted"):
        made = make(base, boot="another" if prepare == "rebooted" else session.boot_id())
        if prepare != "record":
            (base / "ci/ready").touch()
            made.pids["anchor"] = Process(os.getpid(), 1)
            made.save()
    with pytest.raises(TsenvError) as caught:
        session.usable("ci")
    assert caught.value.message.startswith(says)
    assert caught.value.hint == hint
    assert caught.value.code == 125


def test_the_default_session_needs_no_name(base: Path) -> None:
    with pytest.raises(TsenvError) as caught:
        session.usable("default")
    assert str(caught.value) == "tsenv: no session 'default' is up\n  hint: tsenv up"


def test_names_are_of_directories_with_names(base: Path) -> None:
    for name in ("b", "a", ".doctor-1", "-x"):
        (base / name).mkdir()
    (base / "file").touch()
    (base / "link").symlink_to("a")
    assert session.names() == ["a", "b"]

"""What `tsenv up` makes of its words: host names, times, keys, and where each comes from."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsenv import cli, login
from tsenv.commands import up
from tsenv.errors import USAGE, TsenvError
from tsenv.scrub import SECRETS

if TYPE_CHECKING:
    from pathlib import Path

    from tsenv.bringup import Wanted


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*SECRETS, "TS_CLIENT_ID", "TS_AUDIENCE", "TSENV_SESSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    # This process would hide from its debugger and from /proc otherwise.
    monkeypatch.setattr(up, "keep_private", lambda: None)


def wanted(*words: str, name: str = "ci") -> Wanted:
    """What `tsenv up WORDS` asks for."""
    before = list(words)
    extra = before[before.index("--") + 1 :] if "--" in before else []
    args = cli.parser("up").parse_args(["up", *before[: len(before) - len(extra) - ("--" in before)]])
    args.extra = extra
    return up.wanted_from(args, name)


# --- names and times -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("laptop", "laptop"),
        ("My Laptop.local", "my-laptop-local"),
        ("tsenv-host-a_b.c", "tsenv-host-a-b-c"),
        ("--x--", "x"),
        ("größe", "gr-e"),
        ("...", "tsenv"),
        ("", "tsenv"),
        ("x" * 80, "x" * 63),
        ("x" * 62 + "-y", "x" * 62),
    ],
)
def test_labels(text: str, label: str) -> None:
    assert up.label(text) == label


@given(st.text(max_size=90))
def test_a_label_is_always_one(text: str) -> None:
    label = up.label(text)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", label)
    assert up.label(label) == label


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("1h30", 3630), ("0", 0)],
)
def test_times(text: str, seconds: int) -> None:
    assert up._span(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "1w", "-5m", "1.5h", "1h 30m", "5 m", "1m\n", "∞"])
def test_no_times(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a time like 90m"):
        up._span(text)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e9", "soon", ""])
def test_no_seconds(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number of seconds"):
        up._seconds(text)


# --- keys ------------------------------------------------------------------------------------------------------------------


def test_no_key_is_a_login_by_url() -> None:
    found = wanted()
    assert (found.key, found.login()) == ("", ())
    assert found.options.ephemeral is None


@pytest.mark.parametrize("variable", ["TS_AUTHKEY", "TS_AUTH_KEY"])
def test_a_key_from_the_environment_leaves_it(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, f"other-{name}")
    monkeypatch.delenv("TS_AUTHKEY")
    monkeypatch.setenv(variable, " tskey-auth-1\n")
    found = wanted()
    assert found.key == "tskey-auth-1"
    assert found.login() == ("--auth-key=file:/dev/stdin",)
    assert not [name for name in SECRETS if name in os.environ]
    assert "tskey-auth-1" not in repr(found)


def test_a_key_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("\n tskey-auth-2 \n")
    monkeypatch.setenv("TS_AUTHKEY", "tskey-auth-1")
    assert wanted("--auth-key-file", "key").key == "tskey-auth-2"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wanted("--auth-key-file", "~/key").key == "tskey-auth-2"


def test_a_key_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("tskey-auth-3\n"))
    assert wanted("--auth-key-file", "-").key == "tskey-auth-3"


def test_a_key_on_the_command_line_works_and_warns(capsys: pytest.CaptureFixture[str]) -> None:
    assert wanted("--auth-key", "tskey-auth-4").key == "tskey-auth-4"
    warning = capsys.readouterr().err
    assert "--auth-key shows the key to everybody" in warning
    assert "--auth-key-file" in warning
    assert "tskey-auth-4" not in warning


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "is empty"), (" \n", "is empty"), ("two words", "more than one word"), ("a\nb", "more than one word")],
)
def test_no_key_in_a_file(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(TsenvError, match=says) as caught:
        wanted("--auth-key-file", "key")
    assert caught.value.code == USAGE


@pytest.mark.parametrize(("path", "says"), [("gone", "No such file"), (".", "Is a directory"), ("binary", "not text")])
def test_a_file_that_cannot_be_read(tmp_path: Path, path: str, says: str) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TsenvError, match=f"cannot read the auth key from {path}: {says}") as caught:
        wanted("--auth-key-file", path)
    assert caught.value.hint == f"ls -l {path}"


def test_two_keys_are_one_too_many() -> None:
    with pytest.raises(TsenvError, match="two ways to log in"):
        wanted("--auth-key", "a", "--auth-key-file", "b")


@pytest.mark.parametrize("word", ["--auth-key=tskey-x", "-authkey=tskey-x", "--authkey", "--client-secret=x", "--id-token=x"])
def test_no_secret_after_the_dashes(word: str) -> None:
    with pytest.raises(TsenvError, match="would show in ps") as caught:
        wanted("--", word)
    assert "tskey-x" not in str(caught.value)


def test_files_of_secrets_after_the_dashes_are_the_users_business() -> None:
    assert wanted("--", "--auth-key=file:/x", "--ssh").options.extra == ("--auth-key=file:/x", "--ssh")


def test_an_oauth_client_is_told_from_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_AUTHKEY", "tskey-client-kX-y")
    with pytest.raises(TsenvError, match="logs in with tags") as caught:
        wanted()
    assert caught.value.hint == "--advertise-tags tag:ci"
    monkeypatch.setenv("TS_AUTHKEY", "tskey-client-kX-y")
    found = wanted("--advertise-tags", "tag:ci")
    assert found.key == "tskey-client-kX-y?ephemeral=true&preauthorized=true"
    monkeypatch.setenv("TS_AUTHKEY", "tskey-client-kX-y?preauthorized=false")
    persistent = wanted("--advertise-tags", "tag:ci", "--persistent")
    assert persistent.key == "tskey-client-kX-y?preauthorized=false&ephemeral=false"


def test_a_credential_does_not_show_itself() -> None:
    assert "secret-word" not in repr(login.Credential("secret-word"))


# --- options ---------------------------------------------------------------------------------------------------------------


def test_defaults_are_closed() -> None:
    options = wanted().options
    assert not options.allow_incoming
    assert not options.accept_routes
    assert options.accept_dns
    assert (options.publish, options.host_port, options.exit_node, options.extra) == ((), (), "", ())
    assert re.fullmatch(r"tsenv-[a-z0-9-]+-ci", options.hostname)


def test_options() -> None:
    found = wanted(
        "--hostname", "My Node", "--advertise-tags", "tag:a,tag:b", "--publish", "80", "--publish", "53/udp",
        "--host-port", "5432", "--accept-routes", "--no-accept-dns", "--ephemeral", "--timeout", "5", "--ttl", "1h",
        "--wait-for", "a", "--wait-for", "b:22", "--with-pid", "1", "--underlay", "pasta",
    )  # fmt: skip
    options = found.options
    assert options.hostname == "my-node"
    assert options.advertise_tags == ("tag:a", "tag:b")
    assert (options.publish, options.host_port) == (("127.0.0.1/80", "127.0.0.1/53/udp"), ("5432",))
    assert (options.accept_routes, options.accept_dns, options.ephemeral) == (True, False, True)
    assert (found.timeout, found.wait_for, found.with_pid) == (5.0, ("a", "b:22"), 1)
    assert found.until is not None
    assert options.underlay == "pasta"


@pytest.mark.parametrize("url", ["headscale", "ftp://x", "http://", "//x", "https:// x"])
def test_no_urls(url: str) -> None:
    with pytest.raises(TsenvError, match="is not a URL"):
        wanted("--login-server", url)


# --- the folder's file -----------------------------------------------------------------------------------------------------


def test_the_folders_file_counts_only_when_it_was_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could send the key to a stranger's server."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    file = tmp_path / ".tsenv.toml"
    file.write_text('name = "ci"\nlogin_server = "https://folder.example"\naccept_routes = true\n')
    with pytest.raises(TsenvError, match="is not allowed") as caught:
        wanted()
    assert caught.value.hint == "read it, then: tsenv allow"
    assert wanted(name="other").options.login_server == ""

    from tsenv import config

    config.allow(file)
    assert wanted().options.login_server == "https://folder.example"
    options = wanted("--login-server", "https://typed.example", "--no-accept-routes").options
    assert (options.login_server, options.accept_routes) == ("https://typed.example", False)

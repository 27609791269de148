"""No secret among the flags that `tailscale up` gets as they are; and what a folder's file says to a job of GitHub."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tsenv import cli, config
from tsenv.commands import up
from tsenv.errors import USAGE, TsenvError
from tsenv.login import refuse_secrets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tsenv.bringup import Wanted

SECRET = "tskey-client-x"


@pytest.mark.parametrize(
    "flags",
    [
        [f"--auth-key={SECRET}"], ["--auth-key", SECRET], ["-authkey", SECRET], ["--authkey"], ["--auth-key="],
        [f"--client-secret={SECRET}"], ["--client-secret", SECRET], ["-client-secret", SECRET],
        [f"--id-token={SECRET}"], ["--id-token", SECRET], ["--ssh", "--id-token", SECRET],
        ["--id-token", "file:/x", "--client-secret", SECRET], ["--id-token=\n" + SECRET],
    ],
)  # fmt: skip
def test_refused(flags: list[str]) -> None:
    with pytest.raises(TsenvError, match=r"a (key|secret) after -- would show in ps") as caught:
        refuse_secrets(flags)
    assert caught.value.code == USAGE
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "flags",
    [
        [], ["--ssh"], ["--client-id=x"], ["--client-id", "x"], ["--id-tokens", "x"],
        ["--auth-key=file:/x"], ["--auth-key", "file:/x"], ["--client-secret", "file:/x", "--ssh"], ["-id-token", "file:/x"],
    ],
)  # fmt: skip
def test_files_and_other_flags_are_the_users_business(flags: list[str]) -> None:
    refuse_secrets(flags)


def test_the_hint_is_the_option_that_takes_it() -> None:
    with pytest.raises(TsenvError) as caught:
        refuse_secrets(["-client-secret", SECRET])
    assert caught.value.hint == "tsenv's own --client-secret-file PATH, or --client-secret=file:PATH"


# --- the folder's file -----------------------------------------------------------------------------------------------------


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Wanted]:
    """`tsenv up --github …` in a folder whose .tsenv.toml says `text`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("GITHUB_ENV", str(tmp_path / "env"))
    for name in ("TSENV_SESSION", "TS_AUTHKEY", "TS_AUTH_KEY", "TS_CLIENT_SECRET", "TS_ID_TOKEN", "TS_AUDIENCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(up, "keep_private", lambda: None)  # for this process

    def wanted(text: str, *words: str, allowed: bool = True) -> Wanted:
        file = tmp_path / config.FILE
        file.write_text(text)
        if allowed:
            config.allow(file)
        args = cli.parser(next(word for word in words if word in ("up", "run"))).parse_args(words)
        args.extra = []
        return up.wanted_from(args, "run-0123abcd" if args.verb == "run" else up.up_name(args))

    return wanted


@pytest.mark.parametrize("flags", ['"--client-secret", "tskey-client-x"', '"--id-token=x"'])
def test_no_secret_in_the_folders_file(ask: Callable[..., Wanted], flags: str) -> None:
    with pytest.raises(TsenvError, match="a secret in tailscale_up would show in ps"):
        ask(f"tailscale_up = [{flags}]", "up")
    assert ask('tailscale_up = ["--id-token", "file:/x"]', "up").options.extra == ("--id-token", "file:/x")


@pytest.mark.parametrize("named", ["", 'name = "work"\n'])
def test_a_job_of_github_takes_the_folders_file(ask: Callable[..., Wanted], named: str) -> None:
    """Its session has a name of the job's own, which no file can know."""
    text = named + "accept_routes = true\nisolated = true\n"
    options = ask(text, "up", "--github", "--no-isolated").options
    assert (options.accept_routes, options.isolated) == (True, False)


def test_one_command_takes_the_folders_file(ask: Callable[..., Wanted]) -> None:
    text = 'name = "work"\naccept_routes = true\n'
    assert ask(text, "run", "--", "true").options.accept_routes
    assert ask(text, "-n", "other", "run", "--", "true").options.accept_routes  # -n only begins its name


def test_what_is_made_for_one_job_or_command_is_known_by_it(ask: Callable[..., Wanted]) -> None:
    """So that what it leaves behind need not stay for ever."""
    assert [ask("", *words).once for words in (["run", "--", "true"], ["up", "--github"])] == [True, True]
    assert [ask("", *words).once for words in (["up"], ["up", "--github", "x"])] == [False, False]


@pytest.mark.parametrize("words", [["-n", "other", "up", "--github"], ["up", "--github", "other"]])
def test_another_name_is_another_session(ask: Callable[..., Wanted], words: list[str]) -> None:
    assert not ask('name = "work"\naccept_routes = true\n', *words).options.accept_routes
    assert ask('name = "other"\naccept_routes = true\n', *words).options.accept_routes


def test_a_name_from_the_environment_counts(ask: Callable[..., Wanted], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSENV_SESSION", "other")
    assert not ask('name = "work"\naccept_routes = true\n', "up", "--github").options.accept_routes


def test_a_file_that_is_not_allowed_stops_no_job(
    ask: Callable[..., Wanted], capsys: pytest.CaptureFixture[str]
) -> None:
    assert not ask("accept_routes = true\n", "up", "--github", allowed=False).options.accept_routes
    assert "is not allowed, and not used" in capsys.readouterr().err
    with pytest.raises(TsenvError, match="is not allowed"):
        ask("accept_routes = true\n", "up", allowed=False)

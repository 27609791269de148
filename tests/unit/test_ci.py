"""What `up --github` tells a runner, whose end it waits for, and how it calls the session."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tsenv import ci, cli
from tsenv.commands import up
from tsenv.errors import USAGE, TsenvError
from tsenv.scrub import SECRETS

CHECKOUT = Path(__file__).parents[2]
JOB = {
    "GITHUB_ENV": "/runner/_temp/set_env_1",
    "GITHUB_RUN_ID": "77",
    "GITHUB_RUN_ATTEMPT": "1",
    "GITHUB_JOB": "deploy",
    "RUNNER_NAME": "one",
    "RUNNER_TRACKING_ID": "github_1",
}

# Calls itself after a runner and starts a step's shell, which starts tsenv.
WORKER = """\
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)
ask = "from tsenv import ci; print(ci.runner_pid())"
done = subprocess.run(["sh", "-c", '"$@"; exit', "sh", sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True)
print(os.getpid(), done.stdout)
"""


@pytest.mark.parametrize("name", ci.RUNNERS)
def test_the_process_that_ends_with_the_job(name: str) -> None:
    argv = [sys.executable, "-c", WORKER, name]
    done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=20, check=True)
    runner, found = done.stdout.split()
    assert found == runner


def test_an_unknown_runner_is_what_started_the_steps_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ci, "_ancestors", lambda: iter([(30, "bash"), (20, "new-runner"), (10, "systemd")]))
    assert ci.runner_pid() == 20


def test_one_job_has_one_name_in_all_its_steps() -> None:
    name = ci.github_name(None, JOB)
    assert re.fullmatch(r"deploy-[0-9a-f]{8}", name)
    assert ci.github_name(None, {**JOB, "GITHUB_ENV": "/runner/_temp/set_env_2"}) == name


@pytest.mark.parametrize("mark", ["GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "RUNNER_NAME", "RUNNER_TRACKING_ID"])
def test_another_job_has_another(mark: str) -> None:
    assert ci.github_name(None, {**JOB, mark: "other"}) != ci.github_name(None, JOB)


def test_a_job_of_act_has_a_folder_of_its_own() -> None:
    assert ci.github_name(None, {**JOB, "GITHUB_ENV": "/act/2/envs.txt"}) != ci.github_name(
        None, {**JOB, "GITHUB_ENV": "/act/1/envs.txt"}
    )


def test_a_name_that_was_asked_for() -> None:
    assert ci.github_name("mine", JOB) == "mine"


def test_no_job_of_github() -> None:
    with pytest.raises(TsenvError, match="no GITHUB_ENV") as caught:
        ci.github_name(None, {})
    assert caught.value.code == USAGE


def test_a_group_is_closed(capsys: pytest.CaptureFixture[str]) -> None:
    with ci.group("up 100%"):
        print("inside")
    assert capsys.readouterr().out == "::group::up 100%25\ninside\n::endgroup::\n"


def test_a_failure_is_outside_of_the_group(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TsenvError), ci.group("up"):
        raise TsenvError("two\nlines", "hint")
    assert capsys.readouterr().out == "::group::up\n::endgroup::\n::error title=tsenv::two%0Alines\n"


@pytest.mark.parametrize(
    ("variable", "secret", "words", "masked"),
    [
        ("TS_AUTHKEY", "tskey-auth-1", (), ["tskey-auth-1"]),
        (
            "TS_CLIENT_SECRET",
            "tskey-client-1",
            ("--advertise-tags", "tag:ci"),
            ["tskey-client-1?ephemeral=true&preauthorized=true", "tskey-client-1"],
        ),
        ("TS_ID_TOKEN", "ey.J.x", ("--client-id", "kId", "--advertise-tags", "tag:ci"), ["ey.J.x"]),
    ],
)
def test_secrets_are_masked_first(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    secret: str,
    words: tuple[str, ...],
    masked: list[str],
) -> None:
    """With the attributes that tailscale gets it with, and without: before anything could print it."""
    for name in (*SECRETS, "TS_CLIENT_ID", "TS_AUDIENCE", "TSENV_SESSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_ENV", str(tmp_path / "env"))
    monkeypatch.setenv(variable, secret)
    monkeypatch.setattr(up, "keep_private", lambda: None)

    def refuses(*_: object) -> None:
        raise TsenvError(f"{secret} is no good", "another")

    monkeypatch.setattr(up, "bring_up", refuses)
    args = cli.parser("up").parse_args(["up", "--github", *words])
    args.extra = []
    with pytest.raises(TsenvError):
        up.main(args)
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("::group::tsenv up ")
    assert lines == [
        *(f"::add-mask::{word}" for word in masked),
        "::endgroup::",
        f"::error title=tsenv::{secret} is no good",
    ]

"""The command line: one line for what is wrong, one for what to type; the nearest word is guessed."""

from __future__ import annotations

import argparse
import os
import re
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tsenv import __main__, __version__, cli
from tsenv.errors import FAILED, USAGE, TsenvError

if TYPE_CHECKING:
    from collections.abc import Callable

Run = "Callable[..., tuple[int, str, str]]"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process: status, stdout, stderr."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")

    def main(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tsenv", *words])
        try:
            status = __main__.main()
        except SystemExit as error:  # --help and --version
            status = int(error.code or 0)
        done = capsys.readouterr()
        return status, done.out, done.err

    return main


def test_an_error_is_two_lines() -> None:
    assert str(TsenvError("no")) == "tsenv: no"
    assert str(TsenvError("no", "do\nor do")) == "tsenv: no\n  hint: do\n  hint: or do"
    assert TsenvError("no").code == FAILED


NO_PIDS = ("me", "", "0", "1.5", "4194305", "9" * 30)  # the kernel's PIDs are 2**22 at most (PID_MAX_LIMIT)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["stauts"], "no verb 'stauts'; did you mean status?"),
        (["exce", "ls"], "no verb 'exce'; did you mean exec?"),
        (["help"], "no verb 'help'; did you mean --help?"),
        (["stop"], "no verb 'stop'; did you mean down?"),
        (["up", "-n", "x"], "-n stands before the verb: tsenv -n NAME VERB"),
        (["down", "--name=x"], "-n stands before the verb: tsenv -n NAME VERB"),
        (["xyzzy"], "no verb 'xyzzy'"),
        (["status", "--jsn"], "unknown option or argument --jsn; did you mean --json?"),
        (["up", "--auth-keyfile", "x"], "unknown option or argument --auth-keyfile; did you mean --auth-key-file?"),
        (["up", "--logn-server=x"], "unknown option or argument --logn-server=x; did you mean --login-server?"),
        (["down", "a", "b"], "unknown option or argument b"),
        *((["up", "--with-pid", pid], f"argument --with-pid: '{pid}' is no process that runs") for pid in NO_PIDS),
        (["up", "--underlay", "pastta"], "argument --underlay: invalid choice: 'pastta' (choose from "),
        (["--frob"], "unknown option or argument --frob"),
        (["-n"], "argument -n/--name: expected one argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_known(run: Callable[..., tuple[int, str, str]], words: list[str], says: str) -> None:
    status, out, err = run(*words)
    assert (status, out) == (USAGE, "")
    first, second = err.splitlines()
    assert first.startswith(f"tsenv: {says}")
    assert second.startswith("  hint: tsenv ")
    assert second.endswith("--help")


def test_exec_takes_no_name(run: Callable[..., tuple[int, str, str]]) -> None:
    """Its words are the command's."""
    said = "tsenv: exec: -n stands before the verb\n  hint: tsenv -n NAME exec CMD\n"
    assert run("exec", "-n", "x", "true") == (USAGE, "", said)


@pytest.mark.parametrize(
    ("words", "end"),
    [
        (["up", "--underlay", "pastta"], "; did you mean pasta?"),
        (["up", "--underlay", "ups"], ")"),  # near a verb, and near no underlay
        (["up", "--underlay", "VERB"], ")"),
    ],
)
def test_a_choice_is_guessed_among_its_own(run: Callable[..., tuple[int, str, str]], words: list[str], end: str) -> None:
    first = run(*words)[2].splitlines()[0]
    assert f"invalid choice: '{words[-1]}' (choose from " in first
    assert first.endswith(end)


def test_a_thread_is_no_process(run: Callable[..., tuple[int, str, str]]) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    said = run("up", "--with-pid", str(thread.native_id))[2]
    stop.set()
    thread.join()
    assert f"'{thread.native_id}' is no process that runs" in said


def test_options_are_not_guessed_from_their_beginning(run: Callable[..., tuple[int, str, str]]) -> None:
    """--auth is nobody's: a later option of that beginning would change what scripts mean."""
    assert run("up", "--auth", "x")[0] == USAGE
    assert run("status", "--js")[0] == USAGE


def test_without_a_verb_the_help_is_shown(run: Callable[..., tuple[int, str, str]]) -> None:
    status, out, err = run()
    assert (status, out) == (USAGE, "")
    for verb in cli.VERBS:
        assert verb in err


# The help of tailscale is its own, and exec writes its own past sys.stdout (tests/e2e).
@pytest.mark.parametrize("verb", [verb for verb in cli.VERBS if verb not in ("tailscale", "exec")])
def test_every_verb_has_help(run: Callable[..., tuple[int, str, str]], verb: str) -> None:
    status, out, err = run(verb, "--help")
    assert (status, err) == (0, "")
    assert re.match(rf"usage: tsenv (\[-n NAME\] )?{verb}\b", out)


@pytest.mark.parametrize("verb", ["", *cli.VERBS])
def test_help_fits_a_screen(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.get_terminal_size", lambda _: os.terminal_size((80, 40)))
    parser = cli.parser()
    if verb:
        parser = next(a.choices[verb] for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    lines = parser.format_help().splitlines()
    assert len(lines) <= 40
    assert [line for line in lines if len(line) > 80] == []


def test_version(run: Callable[..., tuple[int, str, str]]) -> None:
    assert run("--version") == (0, f"tsenv {__version__}\n", "")


@pytest.mark.parametrize("verb", cli.CODE_VERBS)
def test_a_failing_verb_whose_output_is_run_prints_false(run: Callable[..., tuple[int, str, str]], verb: str) -> None:
    status, out, err = run(verb, "--no-such-option")
    assert (status, out) == (USAGE, "false\n")
    assert err.startswith("tsenv: ")


@pytest.mark.parametrize(
    ("argv", "verb"),
    [
        (["up"], "up"),
        (["-n", "exec", "down"], "down"),
        (["-nx", "status"], "status"),
        (["--name", "x", "list"], "list"),
        (["--name=x", "list"], "list"),
        (["--help", "up"], None),
        ([], None),
    ],
)
def test_the_verb_is_found(argv: list[str], verb: str | None) -> None:
    assert cli._verb(argv) == verb


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        (["exec", "curl", "-v"], (None, ["curl", "-v"])),
        (["-n", "ci", "exec", "--", "-n"], ("ci", ["--", "-n"])),
        (["-nci", "exec"], ("ci", [])),
        (["-n", "a", "-n", "b", "exec", "x"], ("b", ["x"])),
        (["status"], None),
        (["-n"], None),
        (["-n", "exec"], None),
        ([], None),
    ],
)
def test_exec_takes_the_short_way(argv: list[str], found: tuple[str | None, list[str]] | None) -> None:
    assert __main__._exec_words(argv) == found


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (KeyboardInterrupt(), 130, ""),
        (PermissionError(13, "Permission denied", "/x"), 125, "tsenv: Permission denied: /x\n  hint: "),
        (OSError(28, "No space left on device"), 125, "tsenv: No space left on device\n  hint: "),
        (TsenvError("no", "yes", 7), 7, "tsenv: no\n  hint: yes\n"),
    ],
)
def test_one_door_for_errors(
    run: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    says: str,
) -> None:
    def fail(argv: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "main", fail)
    found = run("list")
    assert found[:2] == (status, "")
    assert found[2].startswith(says)
    assert "Traceback" not in found[2]

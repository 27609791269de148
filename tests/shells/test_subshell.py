"""`tsenv shell`'s half that is about the shell: his own rc files, then `(NAME)` before his prompt."""

import re

import pexpect
import pytest
from conftest import shell_path

from tsenv.shells import subshell

RC = {
    "bash": (".bashrc", "mine=rc; PS1='mine> '"),
    "zsh": (".zshrc", "mine=rc; PS1='mine> '; unsetopt prompt_sp zle"),
    "fish": (".config/fish/config.fish", "set -g mine rc; function fish_prompt; printf '%s' $status mine '> '; end"),
    "dash": (".shrc", "mine=rc; PS1='mine> '"),
    "ksh": (".shrc", "mine=rc; PS1='mine> '"),
    "xonsh": (".xonshrc", "mine = 'rc'\n$PROMPT = 'mine> '\n$SHELL_TYPE = 'readline'"),
}


@pytest.fixture
def start(session, monkeypatch):
    children = []

    def start(shell, **environment):
        name, text = RC[shell]
        rc = session.home / name
        rc.parent.mkdir(parents=True, exist_ok=True)
        rc.write_text(text + "\n")
        if name == ".shrc":
            environment["ENV"] = "$HOME/.shrc"  # expanded by the shell
        for variable in ("ZDOTDIR", "ENV", "XONSHRC", "TSENV_DISABLE_PROMPT"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("HOME", str(session.home))
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        argv, extra = subshell(shell_path(shell), "default", session.session_dir("default"))
        child = pexpect.spawn(argv[0], argv[1:], env={**session.environment, **environment, **extra, "TSENV_SESSION": "default"}, encoding="utf-8", timeout=20, echo=False, cwd=str(session.root / "work"), dimensions=(50, 300))
        children.append(child)
        return child

    yield start
    for child in children:
        child.close(force=True)


def expect(child, pattern):
    try:
        child.expect(pattern)
    except (pexpect.TIMEOUT, pexpect.EOF):
        pytest.fail(f"no {pattern!r} on the screen:\n{re.sub(' {5,}', '    ', child.before)}")
    return child.before


@pytest.mark.parametrize("shell", RC)
def test_own_rc_files_then_the_prompt(start, shell):
    child = start(shell)
    expect(child, r"\(default\) .*mine.*> ")
    child.sendline("echo @(mine)X" if shell == "xonsh" else "echo $mine''X")
    expect(child, "rcX")
    assert "tsenv" not in child.before


def test_prompt_can_be_switched_off(start):
    child = start("bash", TSENV_DISABLE_PROMPT="1")
    assert "(default)" not in expect(child, "mine> ")


def test_zsh_gets_its_zdotdir_back(start, session):
    own = session.home / "zdot"
    own.mkdir()
    (own / ".zshenv").write_text("env_read=yes\n")
    (own / ".zshrc").write_text("PS1='own> '; unsetopt prompt_sp zle\n")
    child = start("zsh", ZDOTDIR=str(own))
    expect(child, r"\(default\) own> ")
    child.sendline('echo "<$env_read|$ZDOTDIR|${TSENV_OLD_ZDOTDIR-none}|$HISTFILE>"')
    expect(child, re.escape(f"<yes|{own}|none|"))
    child = start("zsh")
    expect(child, r"\(default\) mine> ")
    child.sendline('echo "<${ZDOTDIR-none}>"')
    expect(child, "<none>")


def test_fish_prompt_sees_the_users_status(start):
    child = start("fish")
    expect(child, r"0mine> ")
    child.sendline("sh -c 'exit 42'")
    expect(child, r"42mine> ")


def test_the_hook_in_the_rc_file_keeps_quiet_inside(start, session):
    rc = 'PS1="mine> "; eval "$(tsenv hook bash)"'
    child = start("bash")
    child.close(force=True)
    (session.home / ".bashrc").write_text(rc + "\n")
    argv, extra = subshell(shell_path("bash"), "default", session.session_dir("default"))
    child = pexpect.spawn(argv[0], argv[1:], env={**session.environment, **extra, "TSENV_SESSION": "default"}, encoding="utf-8", timeout=20, echo=False, cwd=str(session.root / "work"))
    expect(child, r"\(default\) mine> ")
    child.sendline('echo "<${TSENV_BIN-none}>"')
    assert "(default) (default)" not in expect(child, "<none>")
    child.close(force=True)


@pytest.mark.parametrize("shell", ["tcsh", "elvish"])
def test_others_start_plainly(shell, session):
    argv, extra = subshell(f"/bin/{shell}", "default", session.session_dir("default"))
    assert (argv, extra) == ([f"/bin/{shell}"], {"TSENV_PROMPT": "(default) "})

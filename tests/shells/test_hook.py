"""The hook in real interactive shells: what it does at a prompt, and that it costs nothing there."""

import os
import re
import resource
import shutil
import subprocess
import time

import pytest
from conftest import HOOKED, shell_path

RC = {
    "bash": 'PS1="$ "; eval "$(tsenv hook bash)"\n',
    "zsh": 'PS1="$ "; eval "$(tsenv hook zsh)"\n',
    "fish": "function fish_prompt; printf '$ '; end\ntsenv hook fish | source\n",
}
BRACKETED = {"bash": "bind 'set enable-bracketed-paste off'\n", "zsh": "unset zle_bracketed_paste; unsetopt zle prompt_sp prompt_cr\n", "fish": ""}


def rc(shell, before="", after=""):
    return BRACKETED[shell] + before + RC[shell] + after


@pytest.fixture(params=HOOKED)
def shell(request):
    return request.param


@pytest.fixture
def terminal(world, shell):
    opened = []

    def start(before="", after="", **environment):
        opened.append(world.terminal(shell, rc(shell, before, after), **environment))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def wait_for(terminal, command, wanted):
    """Press Enter until a prompt shows it: for what happens in the background."""
    end = time.monotonic() + 15
    while time.monotonic() < end:
        terminal.run(command)
        # The whole screen: the prompt before this one may have shown it already.
        if wanted in terminal.screen:
            return
        time.sleep(0.1)
    pytest.fail(f"no {wanted!r}\n{terminal.tail()}")


def test_activate_and_deactivate_need_no_eval(session, terminal):
    tty = terminal()
    tty.run("tsenv activate")
    assert "default 1" in tty.run("whereami 1")
    tty.run("tsenv deactivate")
    assert "outside 2" in tty.run("whereami 2")
    tty.run("tsenv deactivate")
    assert "outside 3" in tty.run("whereami 3")
    assert tty.value('"$TSENV_SESSION$TSENV_BIN$TSENV_DIR"') == ""


def test_failure_and_help_of_activate_evaluate_nothing(world, terminal):
    tty = terminal()
    assert "no session 'default' is up" in tty.run("tsenv activate")
    assert "usage: tsenv activate" in tty.run("tsenv activate --help")
    assert tty.value('"$TSENV_BIN"') == ""


def test_prompt_shows_the_name_once(session, terminal):
    tty = terminal()
    tty.run("tsenv activate")
    tty.run("tsenv activate")
    assert "(default) $ " in tty.run("true")
    assert "(default) (default)" not in tty.screen
    tty.run("tsenv deactivate")
    assert "(default)" not in tty.run("true").replace("tsenv", "")[-20:]


def test_prompt_can_be_switched_off(session, terminal):
    tty = terminal(TSENV_DISABLE_PROMPT="1")
    tty.run("tsenv activate")
    tty.run("true")
    assert "(default)" not in tty.screen
    assert tty.value('"$TSENV_PROMPT"') == "(default) "


def test_a_dead_session_is_dropped_at_the_next_prompt(session, terminal):
    tty = terminal()
    tty.run("tsenv activate")
    session.down()
    tty.run("true")
    assert "tsenv: session 'default' has ended: deactivated" in tty.screen
    assert "outside" in tty.run("whereami")
    assert tty.value('"$TSENV_BIN"') == ""


def test_a_reused_anchor_pid_is_no_live_session(session, terminal):
    tty = terminal()
    tty.run("tsenv activate")
    folder = session.session_dir("default")
    (folder / "anchor.pid").write_text(f"{os.getpid()}\n")
    tty.run("true")
    assert "has ended: deactivated" in tty.screen


def test_a_path_that_was_changed_is_put_right(session, terminal, shell):
    tty = terminal()
    tty.run("tsenv activate")
    tty.run("mkdir -p other; cp ../bin/whereami other/fresh; cp ../bin/whereami other/whereami")
    tty.run("set -x PATH $PWD/other $PATH" if shell == "fish" else 'PATH="$PWD/other:$PATH"')
    assert "default 1" in tty.run("whereami 1")
    assert "default 2" in tty.run("fresh 2")
    tty.run("set -x PATH /usr/bin /bin $PWD/../bin" if shell == "fish" else 'PATH="/usr/bin:/bin:$PWD/../bin"')
    assert "default 3" in tty.run("whereami 3")
    tty.run("tsenv deactivate")
    assert str(session.shims("default")) not in tty.value('"$PATH"')


def test_a_program_installed_meanwhile_is_led_inside(session, terminal):
    tty = terminal()
    tty.run("tsenv activate")
    time.sleep(0.02)
    tty.run("cp ../bin/whereami ../bin/fresh")
    assert "default 1" in tty.run("fresh 1")


def test_nothing_but_the_rc_files_error_of_a_missing_session(session, terminal):
    """PAINS 2.22: the hook prints nothing (powerlevel10k's instant prompt complains)."""
    tty = terminal()
    assert "tsenv" not in tty.screen.replace("END", "")


# --- folders -----------------------------------------------------------------------------------------------------


@pytest.fixture
def project(world):
    folder = world.root / "work/proj"
    (folder / "sub").mkdir(parents=True)
    (folder / ".tsenv.toml").write_text('name = "proj"\n')
    return folder


def test_a_folder_activates_only_after_allow(world, project, terminal):
    world.up("proj")
    tty = terminal()
    assert "is not allowed yet\r\n  hint: tsenv allow" in tty.run("cd proj")
    assert "outside 1" in tty.run("whereami 1")
    tty.run("tsenv allow")
    assert "proj 2" in tty.run("whereami 2")
    tty.run("cd sub")
    assert "proj 3" in tty.run("whereami 3")
    tty.run("cd ../..")
    assert "outside 4" in tty.run("whereami 4")
    tty.run("cd proj/sub")
    assert "proj 5" in tty.run("whereami 5")


def test_a_changed_file_is_asked_for_again(world, project, terminal):
    world.up("proj")
    world.tsenv("allow", "proj")
    (project / ".tsenv.toml").write_text('name = "proj"\nup = true\n')
    tty = terminal()
    assert "has changed since it was allowed" in tty.run("cd proj")
    assert "outside 1" in tty.run("whereami 1")
    tty.run("tsenv allow")
    assert "proj 2" in tty.run("whereami 2")


def test_deny_is_silent_and_withdraws(world, project, terminal):
    world.up("proj")
    tty = terminal()
    tty.run("cd proj")
    tty.run("tsenv allow")
    tty.run("tsenv deny")
    tty.run("tsenv deactivate; cd ..")
    assert "allow" not in tty.run("cd proj")
    assert "outside 1" in tty.run("whereami 1")


def test_symlinks_and_other_owners_are_refused(world, project, terminal):
    world.up("proj")
    (world.root / "work/linked").mkdir()
    (world.root / "work/linked/.tsenv.toml").symlink_to(project / ".tsenv.toml")
    world.tsenv("allow", "proj")
    done = world.tsenv("allow", "linked", check=False)
    assert (done.returncode, "is a symlink: refused" in done.stderr) == (125, True)
    tty = terminal()
    assert "is refused" in tty.run("cd linked")
    assert "outside 1" in tty.run("whereami 1")
    if os.getuid() == 0:
        os.chown(project / ".tsenv.toml", 12345, 12345)
        assert "is refused" in tty.run("cd ../proj")
        assert "outside 2" in tty.run("whereami 2")


def test_deactivate_by_hand_holds_until_the_folder_is_left(world, project, terminal):
    world.up("proj")
    world.tsenv("allow", "proj")
    tty = terminal()
    tty.run("cd proj")
    tty.run("tsenv deactivate")
    tty.run("cd sub")
    assert "outside 1" in tty.run("whereami 1")
    tty.run("cd ../..; true")
    tty.run("cd proj")
    assert "proj 2" in tty.run("whereami 2")


def test_a_session_chosen_by_hand_stays(world, project, terminal):
    world.up("proj")
    world.up("mine")
    world.tsenv("allow", "proj")
    tty = terminal()
    tty.run("tsenv activate mine")
    tty.run("cd proj")
    assert "mine 1" in tty.run("whereami 1")
    tty.run("cd ..")
    assert "mine 2" in tty.run("whereami 2")


def test_inside_a_session_no_folder_activates(world, project, terminal):
    """`tsenv shell`: TSENV_SESSION without TSENV_BIN is a shell that is inside, or a name chosen by hand."""
    world.up("proj")
    world.tsenv("allow", "proj")
    tty = terminal(TSENV_SESSION="other", TSENV_PROMPT="(other) ")
    tty.run("cd proj")
    assert tty.value('"$TSENV_BIN"') == ""
    assert "(other) $ " in tty.screen


def test_up_true_brings_the_session_up_in_the_background(world, project, terminal):
    (project / ".tsenv.toml").write_text('name = "proj"\nup = true\n')
    real = (world.bin / "tsenv").read_text()
    # `up` waits for the test: a prompt that came before proves that nothing was blocked.
    world.program("tsenv-real", real)
    world.program(
        "tsenv",
        '#!/bin/sh\nif [ "$3" = up ]; then\n  echo "$*" >"$HOME/called"; while [ ! -e "$HOME/go" ]; do sleep 0.05; done\n'
        '  exec /bin/sh "$HOME/up.sh"\nfi\nexec "${0%/*}/tsenv-real" "$@"\n',
    )
    (world.home / "up.sh").write_text('mv "$HOME/../run/tsenv/hidden" "$HOME/../run/tsenv/proj"\n')
    world.up("proj").rename(world.session_dir("hidden"))
    tty = terminal(TSENV_PROGRAM=str(world.bin / "tsenv"))
    tty.run("cd proj; tsenv allow")
    tty.run("true")
    assert "bringing up 'proj' in the background" in tty.screen
    assert "outside 1" in tty.run("whereami 1")
    (world.home / "go").touch()
    wait_for(tty, "whereami 2", "proj 2")
    assert (world.home / "called").read_text() == "-n proj up\n"


def test_a_failed_up_is_said_once(world, project, terminal):
    (project / ".tsenv.toml").write_text('name = "proj"\nup = true\n')
    real = (world.bin / "tsenv").read_text()
    world.program("tsenv-real", real)
    world.program("tsenv", '#!/bin/sh\nif [ "$3" = up ]; then exit 125; fi\nexec "${0%/*}/tsenv-real" "$@"\n')
    world.tsenv("allow", "proj")
    tty = terminal()
    tty.run("cd proj")
    wait_for(tty, "true", "the session of this folder did not come up")
    assert "did not come up" not in tty.run("true")


# --- a guest in the shell ----------------------------------------------------------------------------------------


def test_status_is_kept(session, terminal, shell):
    tty = terminal()
    tty.run("tsenv activate")
    variable = "$status" if shell == "fish" else "$?"
    tty.child.sendline("sh -c 'exit 41'")
    assert "<41>" in tty.run(f"echo '<'{variable}'>'")
    tty.child.sendline("true | sh -c 'exit 3' | true")
    pipe = {"bash": "${PIPESTATUS[*]}", "zsh": "$pipestatus", "fish": "$pipestatus"}[shell]
    assert "<0 3 0>" in tty.run(f'echo "<{pipe}>"')


@pytest.mark.parametrize("given", ["f1", "f1;", "f1 ; # comment", "(f1)", ""])
def test_prompt_command_as_string_and_array(session, given):
    """PAINS 2.10."""
    value = given.strip("()")
    before = f"f1() {{ seen=\"$? ${{PIPESTATUS[*]}}\"; }}\nPROMPT_COMMAND={given if given == '(f1)' else repr(value)}\n"
    tty = session.terminal("bash", rc("bash", before, 'eval "$(tsenv hook bash)"\n'))
    tty.run("tsenv activate")
    assert "default" in tty.run("whereami")
    assert "(default) $ " in tty.screen
    if value:
        tty.child.sendline("true | sh -c 'exit 7'")
        assert "<7 0 7>" in tty.run('echo "<$seen>"')
    assert tty.value('"$(declare -p PROMPT_COMMAND | grep -o __tsenv_prompt | wc -l)"').strip() == "1"
    tty.close()


def test_zsh_precmd_functions_before_and_after(session):
    before = "autoload -Uz add-zsh-hook; a() { seen_a=$? }; b() { seen_b=$? }; add-zsh-hook precmd a\n"
    tty = session.terminal("zsh", rc("zsh", before, 'add-zsh-hook precmd b; eval "$(tsenv hook zsh)"\n'))
    tty.run("tsenv activate")
    tty.child.sendline("sh -c 'exit 9'")
    assert "<9 9>" in tty.run('echo "<$seen_a $seen_b>"')
    assert tty.value('"${(M)#precmd_functions:#__tsenv_prompt}"') == "1"
    tty.close()


@pytest.mark.parametrize(
    "options",
    ["set -u", "set -o vi", "set -f", "set -o posix", "shopt -s extglob nocasematch nullglob failglob", "IFS=0123:/", "set -eu"],
)
def test_bash_options_are_borne(session, options):
    tty = session.terminal("bash", rc("bash", "", f"{options}\n"))
    tty.run("tsenv activate")
    assert "default" in tty.run("whereami")
    tty.run("cd ..")
    tty.run("tsenv deactivate")
    assert "outside" in tty.run("whereami")
    assert "__tsenv" not in tty.screen
    tty.close()


@pytest.mark.parametrize(
    "options",
    [
        "setopt nounset", "setopt ksh_arrays sh_word_split no_nomatch", "setopt warn_create_global warn_nested_var",
        "setopt err_return", "setopt rc_quotes glob_subst", "setopt csh_junkie_loops null_glob", "bindkey -v", "setopt posix_builtins no_clobber extended_glob ignore_braces",
    ],
)  # fmt: skip
def test_zsh_options_are_borne(session, options):
    tty = session.terminal("zsh", rc("zsh", "", f"{options}\n"))
    tty.run("tsenv activate")
    assert "default" in tty.run("whereami")
    tty.run("cd ..")
    tty.run("tsenv deactivate")
    assert "outside" in tty.run("whereami")
    assert "__tsenv" not in tty.screen
    tty.close()


@pytest.mark.parametrize("shell", HOOKED)
def test_a_prompt_forks_nothing(session, shell):
    """Counted by strace: 30 prompts cost as many processes as 10, with an activation that holds and a folder's file."""
    if not shutil.which("strace"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("strace is not installed")
    call = {"bash": "__tsenv_prompt", "zsh": "__tsenv_prompt", "fish": "emit fish_prompt"}[shell]
    (session.root / "work/.tsenv.toml").write_text('name = "proj"\n')
    session.run(shell, on_and("true", shell))

    def forks(prompts):
        calls = f"{call}\n" * prompts
        log = session.root / "trace"
        script = on_and(calls, shell)
        argv = ["strace", "-f", "-qq", "-e", "trace=fork,vfork,clone,clone3,execve", "-o", log, shell_path(shell), "-c", script]
        done = subprocess.run(argv, env=session.environment, cwd=session.root / "work", capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done
        # fish starts a thread or two of its own as it likes: those share memory and are no forks.
        return len([line for line in log.read_text().splitlines() if re.search(r"\b(v?fork|clone3?|execve)\(", line) and "CLONE_THREAD" not in line])

    assert forks(30) == forks(10)


def on_and(script, shell):
    start = {"fish": "tsenv hook fish | source\ntsenv -n default activate\n"}.get(shell, f'eval "$(tsenv hook {shell})"\ntsenv -n default activate\n')
    return start + {"fish": "emit fish_prompt\n"}.get(shell, "__tsenv_prompt\n") + script + "\n"


def test_a_prompt_costs_less_than_half_a_millisecond(session, shell):
    call = {"bash": "__tsenv_prompt", "zsh": "__tsenv_prompt", "fish": "emit fish_prompt"}[shell]
    loop = {"fish": "for i in (seq 1000); %s; end"}.get(shell, "i=0; while [ $i -lt 1000 ]; do %s; i=$((i+1)); done")

    def seconds(what):
        """CPU time: the machine may have other work."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        session.run(shell, on_and(loop % what, shell))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Twice the promise, for a machine whose two CPUs share a core; benchmarks/ holds the figure.
    assert min(seconds(call) for _ in range(2)) - min(seconds("true") for _ in range(2)) < 1.0

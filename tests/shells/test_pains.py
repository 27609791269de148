"""The 24 lines of PAINS.md 2, each a test named after it: what users of comparable tools suffer, and what is done here."""

import re
import shutil
import subprocess
import sys
import tempfile
import time

import pytest
from conftest import HOOKED, POSIX, REPOSITORY, shell_path
from test_activate import ALL, on
from test_hook import on_and, rc


def test_pain_01_command_injection_in_activate(session):
    """The quoting itself is tested in test_quoting.py; here a hostile NAME, from every side a name comes from."""
    for name in ["$(touch hacked)", "'; touch hacked; '", "a\nb", "-x", "../x", "a/b", "", "ä"]:
        for words in (["activate", "--", name], [f"--name={name}", "activate"]):
            done = session.tsenv(*words, "--shell", "sh", check=False) if words[0] != "activate" else session.tsenv("activate", "--shell", "sh", "--", name, check=False)
            assert done.stdout == "false\n" or name == "", (words, done)
        if name:
            assert session.run("bash", f"{on('bash')}", check=False, TSENV_SESSION=name).returncode != 0


@pytest.mark.parametrize("shell", POSIX)
def test_pain_02_set_u(session, shell):
    done = session.run(shell, f"set -u; unset PS1; {on(shell)}; tsenv_deactivate; tsenv_deactivate; unset TSENV_DIR; export TSENV_BIN=x; tsenv_deactivate")
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_pain_03_set_e_with_hashing_off(session, shell):
    off = {"bash": "set +h", "zsh": "setopt no_hash_cmds no_hash_dirs"}[shell]
    assert session.run(shell, f"set -e; {off}; {on(shell)}; whereami 1; tsenv_deactivate; whereami 2").stdout == "default 1\noutside 2\n"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_pain_04_ps1_is_never_exported(session, shell):
    tty = session.terminal(shell, rc(shell))
    tty.run("tsenv activate")
    assert "(default) $ " in tty.run("true")
    assert "PS1" not in tty.run("env")
    assert "PROMPT=(d" not in tty.run("env | grep -v ^TSENV_PROMPT")
    tty.close()


@pytest.mark.parametrize("shell", ALL)
def test_pain_05_empty_is_not_unset(session, shell):
    off = "eval (tsenv deactivate | slurp)" if shell == "elvish" else "tsenv_deactivate"
    done = session.run(shell, f"{on(shell)}\n{off}\nenv\n", TSENV_SESSION="")
    assert "\nTSENV_SESSION=\n" in f"\n{done.stdout}"
    assert "TSENV_SESSION" not in session.run(shell, f"{on(shell)}\n{off}\nenv\n").stdout


@pytest.mark.parametrize("shell", POSIX)
def test_pain_06_path_edits_survive_deactivate(session, shell):
    script = f'{on(shell)}\nPATH=/first:$PATH:/last\ntsenv_deactivate\nprintf %s "$PATH"'
    assert session.run(shell, script).stdout == f"/first:{session.environment['PATH']}:/last"


@pytest.mark.parametrize("shell", POSIX)
def test_pain_07_no_duplicates_in_path(session, shell):
    count = 'printf %s "$PATH" | tr ":" "\\n" | grep -c "tsenv/.*/bin$"'
    assert session.run(shell, f"{on(shell)}\n{on(shell)}\n{count}").stdout == "1\n"
    nested = f"/bin/{'bash' if shell == 'busybox' else shell} -c '{on(shell)}; {count}'"
    assert session.run(shell, f"{on(shell)}\n{nested}").stdout == "1\n"


@pytest.mark.parametrize("shell", POSIX)
def test_pain_08_deactivate_from_the_environment_alone(session, shell):
    """A subshell that only inherited the variables (by an absolute path: `bash` itself would run inside)."""
    child = "/bin/sh -c 'whereami 1; eval \"$(tsenv deactivate --shell sh)\"; whereami 2; env | grep ^TSENV'"
    done = session.run(shell, f"{on(shell)}\n{child}\nwhereami 3", check=False)
    assert done.stdout == "default 1\noutside 2\ndefault 3\n"


def test_pain_08_exec_shell_and_tmux_keep_or_show_it(session):
    tty = session.terminal("bash", rc("bash"))
    tty.run("tsenv activate")
    tty.run("exec /bin/bash -i")
    assert "default 1" in tty.run("whereami 1")
    assert "(default) $ " in tty.run("true")
    tty.run("tsenv deactivate")
    assert "outside 2" in tty.run("whereami 2")
    tty.run("tsenv activate")
    if shutil.which("tmux"):
        # tmux is led inside like any program: all its windows are, without shims in their PATH.
        socket = tempfile.mkdtemp(prefix="tsenv-tmux-")  # a socket's path may have 107 letters
        shown = tty.run(f"TMUX_TMPDIR={socket} tmux new-session -d 'env > ~/in-tmux'; for i in 1 2 3 4 5 6 7 8 9; do [ -s ~/in-tmux ] || sleep 0.2; done")
        inside = (session.home / "in-tmux").read_text()
        assert "TSENV_TEST_JOINED=default" in inside, (socket, shown)
        assert "TSENV_BIN" not in inside
    tty.close()


def test_pain_09_fish_builtins_shadowed(session):
    # Not `emit fish_prompt`: fish's own functions cannot bear it.
    shadows = "".join(f"function {name}; builtin echo shadowed >&2; false; end\n" for name in (".", "echo", "printf", "math"))
    # fish reads its own functions by the function `source`, too.
    shadows += "function source; string match -q '*/fish/functions/*' -- $argv; or builtin echo shadowed >&2; builtin source $argv; end\n"
    done = session.run("fish", f"{shadows}\ntsenv activate | builtin source\ntsenv_deactivate\ntsenv hook fish | builtin source\ntsenv activate; __tsenv_on_prompt; whereami 1")
    assert "shadowed" not in done.stderr
    assert re.sub(r"\x1b\[\?2004.", "", done.stdout) == "default 1\n"


@pytest.mark.parametrize("version", ["string", "array"])
def test_pain_10_prompt_command_arrays(session, version):
    """More of it in test_hook.py."""
    value = "other" if version == "string" else "(other)"
    done = session.run("bash", f'PROMPT_COMMAND={value}; eval "$(tsenv hook bash)"; declare -p PROMPT_COMMAND')
    wanted = {"string": "declare -- PROMPT_COMMAND=$'other\\n__tsenv_prompt'", "array": 'declare -a PROMPT_COMMAND=([0]="other" [1]="__tsenv_prompt")'}
    assert done.stdout.strip() in {wanted[version], wanted[version].replace("$'other\\n", '"other\n').replace("'", '"')}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_pain_11_the_hook_keeps_the_status(session, shell):
    """$? as seen by the hook after ours; PIPESTATUS and the user's own are in test_hook.py."""
    script = on_and("(exit 41); __tsenv_prompt; echo $?\n(exit 0); __tsenv_prompt; echo $?\nwait", shell)
    assert session.run(shell, script).stdout == "41\n0\n"


def test_pain_12_hook_order_does_not_matter(session):
    for before, after in (("PROMPT_COMMAND=draw;", ""), ("", "PROMPT_COMMAND+=$'\\n'draw")):
        # As starship does it: the prompt is drawn anew each time.
        draw = "draw() { PS1='drawn> '; }; "
        tty = session.terminal("bash", rc("bash", draw + before, after + "\n"))
        tty.run("tsenv activate")
        assert "default" in tty.run("whereami")
        # Drawn by another after us, the prompt is his; TSENV_PROMPT is there for him.
        assert ("(default) drawn> " in tty.screen) == bool(before)
        assert tty.value('"$TSENV_PROMPT"') == "(default) "
        tty.close()


@pytest.mark.parametrize("shell", HOOKED)
def test_pain_13_slow_hooks(session, shell):
    """No Python at a prompt where nothing changed (forks are counted in test_hook.py), once where something did."""
    session.program("tsenv-real", (session.bin / "tsenv").read_text())
    session.program("tsenv", '#!/bin/sh\necho "$*" >>"$HOME/calls"\nexec "${0%/*}/tsenv-real" "$@"\n')
    call = {"fish": "emit fish_prompt\n"}.get(shell, "__tsenv_prompt\n")
    session.run(shell, on_and('/bin/cp /dev/null "$HOME/calls"\n' + call * 5, shell))
    assert (session.home / "calls").read_text() == ""
    session.run(shell, on_and('/bin/cp /dev/null "$HOME/calls"\nsleep 0.02; touch "$HOME/../bin/new"\n' + call * 5, shell))
    assert (session.home / "calls").read_text() == "rehash\n"


def test_pain_14_slow_shims_and_recursion(session):
    """A shim costs one sh more than what it runs, and no shim finds a shim (more in test_activate.py)."""
    pyenv = '#!/bin/sh\nPATH=${PATH#"$HOME/shims:"}; export PATH\nexec whereami "pyenv $*"\n'
    (session.home / "shims").mkdir()
    (session.home / "shims/whereami").write_text(pyenv)
    (session.home / "shims/whereami").chmod(0o755)
    script = f'PATH=$HOME/shims:$PATH; {on("bash")}; whereami 1; PATH=$TSENV_BIN:$TSENV_BIN:$PATH:$TSENV_BIN; whereami 2'
    assert session.run("bash", script).stdout == "default pyenv 1\ndefault pyenv 2\n"
    log = session.home / "log"
    argv = ["strace", "-f", "-qq", "-e", "trace=fork,vfork,clone,execve", "-o", log, session.shims("default") / "whereami"]
    subprocess.run(argv, env=session.environment, check=True, capture_output=True)
    # the shim, then the command itself: nothing in between, no fork.
    calls = [line for line in log.read_text().splitlines() if " = 0" in line or "clone" in line]
    assert len(calls) == 2, calls


@pytest.mark.parametrize("shell", ALL)
def test_pain_15_scripts_need_no_hook(session, shell):
    file = session.root / "work/script"
    file.write_text(f"{on(shell)}\nwhereami 1\n")
    argv = [shell_path(shell), *(["sh"] if shell == "busybox" else []), str(file)]
    done = subprocess.run(argv, env=session.environment, cwd=session.root / "work", capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "default 1\n", done


@pytest.mark.parametrize("shell", ALL)
def test_pain_16_another_session_is_a_clean_switch(session, shell):
    session.up("other")
    off = "eval (tsenv deactivate | slurp)" if shell == "elvish" else "tsenv_deactivate"
    other = on(shell).replace("activate", "activate other")
    done = session.run(shell, f"{on(shell)}\nwhereami 1\n{other}\nwhereami 2\n{off}\nwhereami 3\nenv | grep -c 'tsenv/.*/bin'\n", check=False)
    assert done.stdout == "default 1\nother 2\noutside 3\n0\n"


def test_pain_17_activate_without_eval_explains_itself(session):
    tty = session.terminal("zsh", "unsetopt zle prompt_sp; PS1='$ '")
    assert 'to run it, type:\r\n  eval "$(tsenv activate)"' in tty.run("tsenv activate")
    assert 'eval "$(tsenv deactivate)"' in tty.run("tsenv deactivate")
    tty.close()


def test_pain_18_posix_sh_only(session):
    code = session.tsenv("activate", "--shell", "sh").stdout + session.tsenv("deactivate", "--shell", "sh").stdout
    done = subprocess.run([shutil.which("shellcheck") or "true", "-s", "sh", "-e", "SC2034,SC2154,SC3044", "-"], input=code, text=True, capture_output=True, check=False)
    assert "In POSIX sh" not in done.stdout


def test_pain_19_the_shell_that_asks_not_the_login_shell(session):
    session.program("bash-lookalike", "#!/bin/sh\n")
    assert "set -gx" in session.run("fish", "tsenv activate", SHELL="/bin/bash").stdout
    assert "export" in session.run("bash", "tsenv activate; true", SHELL="/usr/bin/fish").stdout
    assert "set -gx" in session.run("bash", "tsenv activate --shell fish; true").stdout
    assert "set -gx" in session.run("bash", "tsenv activate; true", TSENV_SHELL="fish").stdout
    assert "set -gx" in session.run("bash", "TSENV_SHELL=bash tsenv activate default fish; true").stdout
    refused = session.tsenv("activate", "--shell", "nu", check=False)
    assert (refused.returncode, refused.stdout) == (2, "false\n")
    assert "no code for the shell 'nu'" in refused.stderr


def test_pain_20_trust_of_project_files(session):
    """The hook's side is in test_hook.py, the store's in tests/shells/test_config.py."""
    (session.root / "work/.tsenv.toml").write_text('name = "default"\n[wrap]\nskip = ["whereami"]\n')
    assert session.run("bash", f"{on('bash')}; whereami").stdout == "default \n"
    refused = session.tsenv("activate", "--auto", str(session.root / "work/.tsenv.toml"), "--shell", "sh", check=False)
    assert (refused.returncode, refused.stdout) == (125, "false\n")


@pytest.mark.parametrize("shell", ALL)
def test_pain_21_prompt_for_programs(session, shell):
    assert session.run(shell, f"{on(shell)}\nprintenv TSENV_PROMPT\n").stdout == "(default) \n"


def test_pain_22_zsh_before_compinit_and_silent(session):
    done = session.run("zsh", 'eval "$(tsenv completion zsh)"; eval "$(tsenv hook zsh)"; __tsenv_prompt', "-f")
    assert done.stdout + done.stderr == ""


def test_pain_23_bash_completion_is_not_needed():
    text = (REPOSITORY / "completions/tsenv.bash").read_text()
    assert "COMP_WORDS" in text
    assert not re.search(r"_init_completion|_get_comp_words_by_ref|_comp_initialize", text)


def test_pain_24_other_shells(session):
    """tcsh, xonsh and elvish are in every test of test_activate.py; for nushell and the rest there is `exec`."""
    assert session.tsenv("activate", "--shell", "nu", check=False).stderr.endswith("tsenv exec and tsenv shell work from any\n")


# --- neighbours ---------------------------------------------------------------------------------------------------


@pytest.fixture
def venv(session):
    # Its own activate of Python 3.11 cannot bear the hostile name (CVE-2024-9287).
    folder = session.root.parent / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, capture_output=True)
    (folder / "bin/in-venv").write_text('#!/bin/sh\necho "${TSENV_TEST_JOINED-outside} venv"\n')
    (folder / "bin/in-venv").chmod(0o755)
    session.extra["VENV"] = str(folder)
    return session


def test_a_virtualenv_before_activate(venv):
    script = f'. "$VENV/bin/activate"; {on("bash")}; in-venv; python -c "import sys; print(sys.prefix)"; deactivate; whereami 1; tsenv_deactivate; printf "%s\\n" "$PATH"'
    assert venv.run("bash", script).stdout == f"default venv\n{venv.extra['VENV']}\ndefault 1\n{venv.environment['PATH']}\n"


def test_a_virtualenv_after_activate_without_the_hook(venv):
    """What cannot be caught, and docs/shells.md says so: its own programs come first, until the next activate."""
    script = f'{on("bash")}; . "$VENV/bin/activate"; in-venv; whereami 1; {on("bash")}; in-venv; tsenv_deactivate; in-venv'
    assert venv.run("bash", script).stdout == "outside venv\ndefault 1\ndefault venv\noutside venv\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_virtualenv_after_activate_with_the_hook(venv, shell):
    tty = venv.terminal(shell, rc(shell))
    tty.run("tsenv activate")
    source = "source $VENV/bin/activate" + (".fish" if shell == "fish" else "")
    tty.run(source)
    assert "default venv" in tty.run("in-venv")
    tty.run("deactivate")
    assert "default 1" in tty.run("whereami 1")
    tty.run(source)
    tty.run("tsenv deactivate")
    assert "outside venv" in tty.run("in-venv")
    tty.run("deactivate")
    assert "outside 2" in tty.run("whereami 2")
    tail = tty.run("true")
    assert "(default)" not in tail
    assert "(venv)" not in tail
    tty.close()


@pytest.mark.parametrize("first", ["direnv", "tsenv"])
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_direnv(session, tmp_path_factory, shell, first):
    """Whichever hook is loaded first: direnv's folders come and go, and no command leaves the session meanwhile."""
    (session.bin / "direnv").symlink_to(shell_path("direnv"))
    plain = tmp_path_factory.mktemp("direnv")  # direnv itself executes the names of folders that are hostile enough
    project = plain / "project"
    (project / "own").mkdir(parents=True)
    (project / ".envrc").write_text("PATH_add own\nexport IN_PROJECT=yes\n")
    (project / "own/in-project").write_text('#!/bin/sh\necho "${TSENV_TEST_JOINED-outside} project"\n')
    (project / "own/in-project").chmod(0o755)
    load = "direnv hook fish | source" if shell == "fish" else f'eval "$(direnv hook {shell})"'
    both = f"{load}\n{rc(shell)}" if first == "direnv" else f"{rc(shell)}\n{load}\n"
    tty = session.terminal(shell, both, XDG_DATA_HOME=str(plain), DIRENV_LOG_FORMAT="")
    tty.run(f"cd {plain}; direnv allow project/.envrc")
    tty.run("tsenv activate")
    tty.run("cd project")
    assert tty.value('"$IN_PROJECT"') == "yes"
    assert "default project" in tty.run("in-project")
    assert "default 1" in tty.run("whereami 1")
    tty.run("cd ..")
    assert tty.value('"$IN_PROJECT"') == ""
    assert "default 2" in tty.run("whereami 2")
    tty.run("tsenv deactivate")
    assert "outside 3" in tty.run("whereami 3")
    assert tty.value('"$PATH"').replace(" ", ":") == session.environment["PATH"].replace(" ", ":")
    tty.close()


def test_direnv_like_edits_at_the_prompt(session):
    before = 'PROMPT_COMMAND=\'[ "$PWD" != /usr ] || PATH=/direnv:$(printf %s "$PATH" | sed s,/direnv:,,)\';'
    tty = session.terminal("bash", rc("bash", before))
    tty.run("tsenv activate")
    tty.run("cd /usr")
    assert "default 1" in tty.run("whereami 1")
    tty.run("cd /; tsenv deactivate")
    assert tty.value('"$PATH"') == "/direnv:" + session.environment["PATH"]
    tty.close()


def test_jobs_signals_and_the_terminal_are_the_commands_own(session):
    tty = session.terminal("bash", rc("bash"))
    tty.run("tsenv activate")
    assert "50 400\r\n" in tty.run("env stty size")
    tty.child.sendline("python3 -c 'import time; print(\"sta\" + \"rted\", flush=True); time.sleep(60)'")
    tty.child.expect("started")
    tty.child.sendintr()
    assert "<130>" in tty.run('echo "<$?>"')
    tty.child.sendline("python3 -c 'import time; print(\"sta\" + \"rted\", flush=True); time.sleep(1); print(\"do\" + \"ne\")'")
    tty.child.expect("started")
    tty.child.send("\x1a")
    tty.child.expect("Stopped")
    started = time.monotonic()
    tty.child.sendline("fg")
    tty.child.expect("done")
    assert time.monotonic() - started < 10
    tty.close()

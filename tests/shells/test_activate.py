"""activate and deactivate in real shells, non-interactive. One line of PAINS 2 names each of the pain tests."""

import os
import shutil

import pytest
from conftest import BASE_PATH, POSIX, REPOSITORY

EVAL = {
    "fish": "tsenv activate --shell fish | source",
    "tcsh": 'eval "`tsenv activate --shell tcsh`"',
    "xonsh": "execx($(tsenv activate --shell xonsh))",
    "elvish": "eval (tsenv activate --shell elvish | slurp)",
}
OFF = {"xonsh": "tsenv_deactivate", "elvish": "eval (tsenv deactivate --shell elvish | slurp)"}
ALL = [*POSIX, *EVAL]


def on(shell):
    return EVAL.get(shell, 'eval "$(tsenv activate)"')


def off(shell):
    return OFF.get(shell, "tsenv_deactivate")


@pytest.mark.parametrize("shell", ALL)
def test_commands_run_in_the_session_until_deactivate(session, shell):
    script = f"whereami 0\n{on(shell)}\nwhereami 1\nenv whereami 2\n{off(shell)}\nwhereami 3\n"
    done = session.run(shell, script)
    assert done.stdout.splitlines() == ["outside 0", "default 1", "default 2", "outside 3"], done
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ALL)
def test_the_shell_is_found_without_being_named(session, shell):
    script = f"{on(shell).replace(f' --shell {shell}', '')}\nwhereami\n"
    assert session.run(shell, script, SHELL="/bin/nonsense").stdout == "default \n"


@pytest.mark.parametrize("shell", ALL)
def test_environment_is_as_if_tsenv_had_never_been_there(session, shell):
    before = session.run(shell, "env -0").stdout
    after = session.run(shell, f"{on(shell)}\n{off(shell)}\nenv -0\n").stdout

    def clean(text):
        # SHLVL and _ are the shell's own business, and each xonsh run has its own numbers.
        ours = sorted(item for item in text.split("\0") if item)
        return [item for item in ours if not item.startswith(("_=", "SHLVL=", "XONSH"))]

    assert clean(after) == clean(before)


@pytest.mark.parametrize("shell", ALL)
def test_exit_codes_and_arguments_pass(session, shell):
    session.program("code", '#!/bin/sh\nprintf "<%s>" "$@"\nexit "$1"\n')
    script = {
        "fish": "code 41 'a b' '' '*'; echo $status",
        "tcsh": "code 41 'a b' '' '*'; echo $status",
        "xonsh": "r = ![code 41 'a b' '' '*']\necho @(r.returncode)",
        "elvish": "try { code 41 'a b' '' '*' } catch e { echo $e[reason][exit-status] }",
    }.get(shell, "code 41 'a b' '' '*'; echo $?")
    assert session.run(shell, f"{on(shell)}\n{script}", check=False).stdout == "<41><a b><><*>41\n"


@pytest.mark.parametrize("shell", POSIX)
def test_children_of_every_kind_are_inside(session, shell):
    session.program("Makefile", "all:\n\t@whereami make\n")
    script = f"""{on(shell)}
        f() {{ whereami function; }}
        f
        (whereami subshell)
        whereami pipeline | cat
        echo xargs | xargs whereami
        whereami background & wait
        sh -c 'whereami child'
        command whereami command
        python3 -c 'import os; os.system("whereami python")'
        env whereami env
        nice whereami nice
        find /dev/null -exec whereami find ';'
        make -f "$HOME/../bin/Makefile" 2>/dev/null
        """
    words = "function subshell pipeline xargs background child command python env nice find"
    wanted = [f"default {word}" for word in words.split()] + (["default make"] if shutil.which("make") else [])
    got = [line.replace("find /dev/null", "find") for line in session.run(shell, script).stdout.splitlines()]
    assert got == wanted


def test_type_shows_where_a_command_goes(session):
    assert session.run("bash", f"{on('bash')}\ntype -P whereami").stdout.rstrip("\n") == f"{session.shims('default')}/whereami"


@pytest.mark.parametrize("shell", POSIX)
def test_local_tools_and_setuid_programs_stay_outside(session, shell):
    tool = session.program("setuid-tool", "#!/bin/sh\n")
    tool.chmod(0o4755)
    names = session.run(shell, f"{on(shell)}\nfor x in ls setuid-tool whereami ssh; do command -v $x; done", check=False)
    # ksh quotes what it prints, hence only the end of the folder.
    assert ["/default/bin/" in line for line in names.stdout.splitlines()] == [False, False, True, True]


def test_wrap_of_an_allowed_file_only(session):
    (session.root / "work/.tsenv.toml").write_text('[wrap]\nskip = ["whereami"]\n')
    done = session.run("bash", f"{on('bash')}\nwhereami")
    assert done.stdout == "default \n"
    assert "not used before: tsenv allow" in done.stderr
    session.tsenv("allow")
    # A skipped program is outside, unless something that is inside starts it.
    assert session.run("bash", f"{on('bash')}\nwhereami; env whereami").stdout == "outside \ndefault \n"
    # A rehash from another folder keeps it.
    assert session.run("bash", f"{on('bash')}\ncd /; tsenv rehash; whereami").stdout == "outside \n"
    (session.root / "work/.tsenv.toml").write_text('[wrap]\nonly = ["whereami"]\n')
    session.tsenv("allow")
    assert session.run("bash", f"{on('bash')}\nwhereami; type -P ssh env").stdout.startswith("default \n/usr/bin/")


def test_a_new_program_is_led_inside_after_rehash(session):
    script = f"""{on("bash")}
        cp "$HOME/../bin/whereami" "$HOME/../bin/fresh"
        fresh 1; tsenv rehash; hash -r; fresh 2; rm "$HOME/../bin/fresh"; fresh 3; tsenv rehash; hash -r; fresh 4"""
    done = session.run("bash", script, check=False)
    assert done.stdout.splitlines() == ["outside 1", "default 2"]
    assert "tsenv: fresh: not found on PATH\n  hint: tsenv rehash" in done.stderr
    assert "fresh: command not found" in done.stderr
    assert done.returncode == 127


@pytest.mark.parametrize("shell", ALL)
def test_a_session_that_went_down_is_refused_never_run_outside(session, shell):
    session.program("go-down", '#!/bin/sh\nrm -rf "$XDG_RUNTIME_DIR/tsenv/default"\n')
    last = "try { whereami 1 } catch e { echo $e[reason][exit-status] }" if shell == "elvish" else "whereami 1"
    done = session.run(shell, f'{on(shell)}\n/bin/sh "$HOME/../bin/go-down"\n{last}\n'.replace('"$HOME', '$E:HOME"' if shell == "elvish" else '"$HOME'), check=False)
    assert "outside" not in done.stdout
    assert "tsenv: session 'default' is not up: whereami was not run\n  hint: tsenv up default, or tsenv deactivate" in done.stderr
    # elvish shows it (as an exception), xonsh goes on.
    assert done.returncode == {"elvish": 0, "xonsh": done.returncode}.get(shell, 125)


@pytest.mark.parametrize("shell", ALL)
def test_failure_evaluates_to_failure(world, shell):
    """STYLE 1: `eval "$(failing)"` is status 0 in every shell, hence the `false`."""
    asked = "fish" if shell == "fish" else shell
    done = world.tsenv("activate", "nosuch", "--shell", "sh" if shell in {"dash", "ksh", "busybox"} else asked, check=False)
    assert done.returncode == 125
    assert done.stdout in {"false\n", "/bin/false\n", "![false]\n", "fail tsenv\n"}
    assert done.stderr == "tsenv: no session 'nosuch' is up\n  hint: tsenv up nosuch\n"
    script = {"elvish": on(shell), "xonsh": "$RAISE_SUBPROC_ERROR = False\n" + on(shell) + "\nimport sys; sys.exit(__xonsh__.last.returncode)"}.get(shell, on(shell))
    assert world.run(shell, script, check=False).returncode != 0


def test_a_program_shadowed_by_a_shim_of_another_session_is_not_found_twice(session):
    session.up("other")
    script = f"{on('bash')}\nPATH=$TSENV_BIN:${{TSENV_BIN%/default/bin}}/other/bin:$TSENV_BIN:$PATH\nwhereami"
    session.run("bash", 'eval "$(tsenv activate other)"')
    assert session.run("bash", script).stdout == "default \n"


def test_a_link_to_a_shim_does_not_call_itself(session):
    script = f'{on("bash")}\nmkdir l; ln -s "$TSENV_BIN/whereami" l/whereami; PATH=$PWD/l:$PATH; whereami; rm -r l'
    assert session.run("bash", script).stdout == "default \n"


def test_variables_of_the_caller_reach_the_command_unchanged(session):
    names = "name rest dir kept real line entry clean started IFS".split()
    session.program("show", "#!/bin/sh\nprintenv " + " ".join(names[:-1]) + "\n")
    exports = "".join(f"export {name}=mine\n" for name in names[:-1])
    assert session.run("bash", f"{on('bash')}\n{exports}show").stdout == "mine\n" * (len(names) - 1)


def test_inside_there_are_no_shims(session):
    session.program("show", "#!/bin/sh\nenv | grep -e ^TSENV -e ^PATH\n")
    shown = dict(line.split("=", 1) for line in session.run("bash", f"{on('bash')}\nshow").stdout.splitlines())
    assert shown == {
        "PATH": session.environment["PATH"],
        "TSENV_SESSION": "default",
        "TSENV_TEST_JOINED": "default",
        "TSENV_PROMPT": "(default) ",
    }


@pytest.mark.parametrize("shell", ALL)
def test_an_earlier_TSENV_SESSION_comes_back(session, shell):  # noqa: N802
    session.up("other")
    command = on(shell).replace("activate", "activate other")
    done = session.run(shell, f"{command}\nwhereami 1\n{off(shell)}\nprintenv TSENV_SESSION\n", TSENV_SESSION="default")
    assert done.stdout == "other 1\ndefault\n"


@pytest.mark.parametrize("shell", POSIX)
def test_a_name_changed_meanwhile_stays(session, shell):
    assert session.run(shell, f"{on(shell)}\nexport TSENV_SESSION=mine\ntsenv_deactivate\nprintenv TSENV_SESSION").stdout == "mine\n"


def test_import_budget(session):
    """STYLE 7: activate, hook and completion stay small."""
    for verb in (["activate"], ["hook", "bash"], ["completion", "bash"], ["deactivate"], ["rehash", "-h"]):
        code = f"import sys; sys.argv = ['tsenv', *{verb!r}]; from tsenv.__main__ import main\ntry: main()\nexcept SystemExit: pass\nprint('\\n' + ' '.join(sys.modules), file=sys.stderr)"
        script = 'python3 -X utf8 -c "$CODE" >/dev/null'
        done = session.run("bash", script, CODE=code, PYTHONPATH=str(REPOSITORY))
        loaded = set(done.stderr.splitlines()[-1].split())
        assert "tsenv.cli" in loaded
        heavy = {"plumbum", "subprocess", "rich", "json", "tomllib", "shellingham", "segno"}
        assert not loaded & heavy, (verb, loaded & heavy)


def test_activation_on_a_terminal_says_what_to_type(session):
    terminal = session.terminal("bash")
    shown = terminal.run("tsenv activate")
    assert 'tsenv: this only prints code; to run it, type:\r\n  eval "$(tsenv activate)"' in shown
    terminal.close()


def test_path_with_empty_entries_is_kept(session):
    script = f'{on("bash")}\ntsenv_deactivate\nprintf %s "$PATH"'
    for path in (f"{session.bin}::{BASE_PATH}:", f":{session.bin}:{BASE_PATH}", f"{session.bin}:{BASE_PATH}:{session.bin}"):
        assert session.run("bash", script, PATH=path).stdout == path


def test_another_user_planted_the_runtime_directory(world):
    world.up()
    os.chown(world.session_dir("default"), 12345, 12345) if os.getuid() == 0 else pytest.skip("needs root")
    done = world.tsenv("activate", "--shell", "sh", check=False)
    assert (done.returncode, done.stdout) == (125, "false\n")
    assert "belongs to another user" in done.stderr

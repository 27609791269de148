"""Any string comes back as exactly itself from each shell's parser; templates lint and can be read twice."""

import os
import re
import shutil
import subprocess

import pytest
from conftest import POSIX, REPOSITORY, shell_path

from tsenv.shells import quote, render

STRINGS = [
    "", " ", "a b", "-n", "--", "'", '"', "''", '"\'"', "\\", "\\\\", "\\'", "'\\", "\\n", "a\\", "$HOME", "${x}", "$(touch hacked)",
    "`touch hacked`", "!", "!!", "a!b", "*", "?", "[a]", "{a,b}", "~", "~root", "#x", "a#b", "%", "%s", "a;b", "a&b", "a|b", "(x)", "<>",
    "^", "=ls", "@BIN@", "é", "日本", "😀", "\t", "a\nb", "\n", "a\n\nb\n", "\x01", "\x7f", "'; touch hacked; '", '" ; touch hacked; "',
    "');touch hacked;('", "\\');touch hacked#", "a\rb", "\udcff\udcfe", "caf\udce9", "\\\n", "\\!", "'!'",
]  # fmt: skip
QUOTES = {"fish": quote.fish, "tcsh": quote.tcsh, "xonsh": quote.xonsh, "elvish": quote.elvish} | dict.fromkeys(POSIX, quote.posix)


@pytest.mark.parametrize("shell", QUOTES)
def test_round_trip(world, shell):
    world.program("show-words", '#!/bin/sh\nfor x in "$@"; do printf "%s\\0" "$x"; done\n')
    strings = [text for text in STRINGS if possible(shell, text)]
    words = " ".join(QUOTES[shell](text) for text in strings)
    if shell == "xonsh":
        script = "show-words " + " ".join(f"@({quote.xonsh(text)})" for text in strings)
    else:
        script = f"show-words {words}"
    script_file = world.root / "script"
    script_file.write_bytes((script + "\n").encode("utf-8", "surrogateescape"))
    argv = [shell_path(shell), *(["sh"] if shell == "busybox" else []), str(script_file)]
    done = subprocess.run(argv, env=world.environment, cwd=world.root / "work", capture_output=True, timeout=60, check=False)
    assert [item.decode("utf-8", "surrogateescape") for item in done.stdout.split(b"\0")[:-1]] == strings, done.stderr


def possible(shell, text):
    # elvish and xonsh hold text, not bytes; tcsh drops what is no letter of the locale.
    return not (re.search("[\udc80-\udcff]", text) and shell in {"elvish", "tcsh", "xonsh"})


@pytest.mark.parametrize("shell", ["fish", "tcsh"])
def test_round_trip_through_eval_of_a_substitution(world, shell):
    """As `activate` is read: fish joins lines by spaces, tcsh's backquotes too."""
    (world.root / "work/code").mkdir()
    for number, text in enumerate(text for text in STRINGS if possible(shell, text) and not (shell == "tcsh" and "\n" in text)):
        file = world.root / f"work/code/{number}"
        line = f"set -gx VALUE {quote.fish(text)}; " if shell == "fish" else f"setenv VALUE {quote.tcsh(text)}; "
        file.write_bytes(line.encode("utf-8", "surrogateescape"))
        script = f"eval (cat code/{number})" if shell == "fish" else f'eval "`cat code/{number}`"'
        done = world.run(shell, f"{script}\nprintenv VALUE", check=False)
        assert done.stdout == text + "\n", (text, done)


def test_values_are_never_scanned_again():
    code = render.fill("bash", ["activate.sh"], dict.fromkeys(["NAME", "SESSION", "BIN", "PROMPT", "AUTO"], "@BIN@'@NAME@"))
    assert code.count("'@BIN@'\\''@NAME@'") == 7


@pytest.mark.parametrize("hostile", ["new\nline", "-dash", "%n $(x) `x`", "a'b\"c\\d!e"])
@pytest.mark.parametrize("shell", [*POSIX, "fish", "xonsh", "elvish"])
def test_activation_below_a_hostile_home(world, shell, hostile):
    home = world.root / hostile
    home.mkdir()
    world.extra = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    made = world.up()
    shutil.copytree(made, home / "tsenv/default")
    (home / "tsenv").chmod(0o700)
    on = {
        "fish": "tsenv activate | source",
        "xonsh": "execx($(tsenv activate))",
        "elvish": "eval (tsenv activate | slurp)",
    }.get(shell, 'eval "$(tsenv activate)"')
    done = world.run(shell, f"{on}\nwhereami 1\nprintenv TSENV_DIR\n")
    assert done.stdout == f"default 1\n{home}/tsenv/default\n"


def test_fish_reads_it_by_eval_too(session):
    assert session.run("fish", "eval (tsenv activate)\nwhereami 1").stdout == "default 1\n"


# --- templates ---------------------------------------------------------------------------------------------------

SH_FILES = [
    *(file for file in sorted((REPOSITORY / "shell").glob("*.sh")) if file.name not in {"anchor.sh", "join.sh"}),  # tests/lint
    *sorted((REPOSITORY / "shell").glob("*.bash")),
    REPOSITORY / "completions/tsenv.bash",
]
STRICT = {"bash": "set -eu -o pipefail", "zsh": "setopt err_exit no_unset pipe_fail", "dash": "set -eu", "ksh": "set -eu -o pipefail", "busybox": "set -eu -o pipefail", "fish": "", "xonsh": "$RAISE_SUBPROC_ERROR = True", "elvish": "", "tcsh": ""}


@pytest.mark.parametrize("shell", STRICT)
def test_read_twice_under_the_strictest_flags_with_no_output(session, shell):
    on = {
        "fish": "tsenv activate | source",
        "tcsh": 'eval "`tsenv activate --shell tcsh`"',
        "xonsh": "execx($(tsenv activate))",
        "elvish": "eval (tsenv activate | slurp)",
    }.get(shell, 'eval "$(tsenv activate)"')
    off = "eval (tsenv deactivate | slurp)" if shell == "elvish" else "tsenv_deactivate"
    done = session.run(shell, f"{STRICT[shell]}\n{on}\n{on}\n{off}\n{on}\n{off}\n")
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_hook_read_twice_under_the_strictest_flags_with_no_output(session, shell):
    hook = "tsenv hook fish | source" if shell == "fish" else f'eval "$(tsenv hook {shell})"'
    call = "emit fish_prompt" if shell == "fish" else "__tsenv_prompt"
    done = session.run(shell, f"{STRICT[shell]}\n{hook}\n{hook}\n{call}\ntsenv activate\n{call}\n{call}\ntsenv deactivate\n{call}\n")
    # fish's own handlers of the event switch the terminal's bracketed paste and, since 4.0, tell it the folder.
    assert (re.sub(r"\x1b\[\?2004.|\x1b\]7;.*?\x07", "", done.stdout), done.stderr) == ("", "")


@pytest.mark.parametrize("file", SH_FILES, ids=lambda file: file.name)
def test_shellcheck(file):
    done = subprocess.run([tool("shellcheck"), "-e", "SC3013,SC1091", file], capture_output=True, text=True, check=False)
    assert done.stdout == ""


@pytest.mark.parametrize("file", [*(REPOSITORY / "shell").glob("*.fish"), REPOSITORY / "completions/tsenv.fish"], ids=lambda file: file.name)
def test_fish_indent(file):
    assert subprocess.run([tool("fish_indent"), "--check", file], check=False).returncode == 0


@pytest.mark.parametrize("file", [*(REPOSITORY / "shell").glob("*.zsh*"), REPOSITORY / "completions/_tsenv"], ids=lambda file: file.name)
def test_zsh_n(file):
    assert subprocess.run([shell_path("zsh"), "-n", file], check=False).returncode == 0


def tool(name):
    found = shutil.which(name)
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed")
    return found

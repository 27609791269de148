"""A plan as code: one small entry a shell (how it quotes, which templates it takes), one pass over the templates."""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from tsenv.errors import USAGE, TsenvError
from tsenv.paths import data_file, state_base
from tsenv.shells import quote
from tsenv.shells.plan import Plan


class Shell(NamedTuple):
    """One shell: its quoting, and the files of shell/ that make each piece of code."""

    quote: Callable[[str], str]
    define: tuple[str, ...]
    """Defines tsenv_deactivate, which works from the environment alone."""
    enter: tuple[str, ...]
    leave: str
    """The line that calls it."""
    how: str
    """What the user types (PAINS 2.17)."""
    one_line: bool = False
    fail: str = "false"


_POSIX = Shell(
    quote.posix,
    ("deactivate.sh",),
    ("activate.sh",),
    'tsenv_deactivate; [ -n "${__tsenv_hook-}" ] || \\unset -f tsenv_deactivate __tsenv_without',
    'eval "$({command})"',
)
SHELLS: Mapping[str, Shell] = {
    "bash": _POSIX,
    "zsh": _POSIX,
    "sh": _POSIX,
    "fish": Shell(
        quote.fish, ("activate.fish",), ("enter.fish",), "tsenv_deactivate", "{command} | source", one_line=True
    ),
    "tcsh": Shell(
        quote.tcsh, (), ("activate.tcsh",), "", 'eval "`{command}`"', one_line=True, fail="/bin/false"
    ),
    "xonsh": Shell(
        quote.xonsh,
        ("activate.xonsh",),
        ("enter.xonsh",),
        "_tsenv_deactivate()\naliases.pop('tsenv_deactivate', None)",
        "execx($({command}))",
        fail="![false]",
    ),
    "elvish": Shell(
        quote.elvish, ("activate.elvish",), ("enter.elvish",), "", "eval ({command} | slurp)", fail="fail tsenv"
    ),
}


def activate(shell: str, plan: Plan) -> str:
    """Return the code that carries out an activation."""
    how = SHELLS[shell]
    values = {
        "NAME": plan.set["TSENV_SESSION"],
        "SESSION": plan.set["TSENV_DIR"],
        "BIN": plan.set["TSENV_BIN"],
        "PROMPT": plan.set["TSENV_PROMPT"],
        "AUTO": plan.set["TSENV_AUTO"],
        "PATH": plan.path,
        "DEACTIVATE": 'eval "`tsenv deactivate --shell tcsh`"',
    }
    files = (*how.define, *how.enter)
    code = fill(shell, files, values)
    # tcsh has no functions: what the other shells work out by themselves is said by the plan.
    return _tcsh({"TSENV_OLD_SESSION": plan.set.get("TSENV_OLD_SESSION")}) + code if shell == "tcsh" else code


def deactivate(shell: str, plan: Plan) -> str:
    """Return the code that undoes an activation, also in a shell that only inherited its variables."""
    if shell == "tcsh":
        changes: dict[str, str | None] = dict(plan.set) | dict.fromkeys(plan.unset)
        # PATH only where it changes: an empty plan must be harmless.
        return (_tcsh(changes | {"PATH": plan.path}) + "unalias tsenv_deactivate; rehash\n") if changes else ""
    how = SHELLS[shell]
    return fill(shell, how.define, {}) + how.leave + "\n"


def pending(shell: str, name: str, directory: str, log: str) -> str:
    """Return the line that makes the hook wait for a session, and with a LOG bring it up in the background."""
    quoted = SHELLS[shell].quote
    return f"__tsenv_pending {quoted(name)} {quoted(directory)} {quoted(log)}\n"


def hook(shell: str, program: str) -> str:
    """Return the code for the rc file. PROGRAM is how the hook calls tsenv: a path, as PATH may lose it."""
    files = {
        "bash": ("deactivate.sh", "hook.sh", "hook.bash"),
        "zsh": ("deactivate.sh", "hook.sh", "hook.zsh"),
        "fish": ("activate.fish", "hook.fish"),
    }
    if shell not in files:
        works = SHELLS[shell].how.format(command="tsenv activate")
        raise TsenvError(f"no hook for {shell}", f"bash, zsh and fish have one; {works} works", USAGE)
    from tsenv import config

    values = {"TSENV": program, "SHELL": shell, "ROOT": state_base(), "ALLOW": str(config.allow_store())}
    return fill(shell, files[shell], values)


def fill(shell: str, files: Iterable[str], values: Mapping[str, str]) -> str:
    """Fill the marks of the templates, each value quoted for SHELL, in one pass: values are never scanned again."""
    how = SHELLS[shell]
    quoted = {name: how.quote(value) for name, value in values.items()}
    code = ""
    for name in files:
        with open(data_file(f"shell/{name}"), encoding="utf-8") as file:
            text = file.read()
        code += _short(text, one_line=how.one_line, keep=shell == "xonsh")
    return re.sub(r"@([A-Z_]+)@", lambda hit: quoted[hit[1]], code)


def write(code: str) -> None:
    """Write code to stdout. Bytes that are no UTF-8 leave as they came."""
    sys.stdout.buffer.write(code.encode("utf-8", "surrogateescape"))
    sys.stdout.flush()


def _short(text: str, *, one_line: bool, keep: bool) -> str:
    """Drop comment lines, and for shells whose eval joins lines by spaces the lines, too."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if one_line:
        return "".join(f"{line.strip()}; " for line in lines)
    return "".join(f"{line if keep else line.lstrip()}\n" for line in lines)


def _tcsh(changes: Mapping[str, str | None]) -> str:
    return "".join(
        f"unsetenv {name}; " if value is None else f"setenv {name} {quote.tcsh(value)}; "
        for name, value in changes.items()
    )

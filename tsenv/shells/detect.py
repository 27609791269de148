"""Which shell asks: --shell, else TSENV_SHELL, else the process that started us, else $SHELL (PAINS 2.19)."""

import os

from tsenv.errors import USAGE, TsenvError

# What the program is called → which of our shells it speaks. POSIX sh code serves every sh.
KNOWN = {
    "bash": "bash",
    "zsh": "zsh",
    "fish": "fish",
    "sh": "sh",
    "dash": "sh",
    "ash": "sh",
    "busybox": "sh",
    "ksh": "sh",
    "ksh93": "sh",
    "mksh": "sh",
    "yash": "sh",
    "tcsh": "tcsh",
    "csh": "tcsh",
    "xonsh": "xonsh",
    "elvish": "elvish",
}
_STEPS = 4  # python, a version manager's wrapper, a subshell: the shell is not further up


def shell(given: str | None) -> str:
    """Return one of our shells' names. Raises TsenvError (2) for a shell that we do not speak."""
    asked = given or os.environ.get("TSENV_SHELL")
    if asked:
        return known(asked)
    found = parent() or _shellingham()
    return found or known(os.environ.get("SHELL") or "sh")


def known(name: str) -> str:
    """Return our name for the shell NAME (a name or a path)."""
    word = os.path.basename(name).lstrip("-")
    if word not in KNOWN:
        shown = ascii(word)[1:-1]
        raise TsenvError(
            f"no code for the shell '{shown}'",
            f"--shell takes {', '.join(sorted(KNOWN))}; tsenv exec and tsenv shell work from any",
            USAGE,
        )
    return KNOWN[word]


def parent() -> str | None:
    """Return the nearest shell among the processes above us, read from /proc: shellingham's import costs 10 ms."""
    pid = os.getppid()
    for _ in range(_STEPS):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                # PID (COMM) STATE PPID …; the command may hold spaces and parentheses.
                text, _, rest = file.read().rpartition(")")
        except OSError:
            return None
        # xonsh names itself with its arguments.
        name = (text.partition("(")[2].split() or [""])[0]
        if name in KNOWN:
            return KNOWN[name]
        pid = int(rest.split()[1])
    return None


def _shellingham() -> str | None:
    try:
        import shellingham

        name, _ = shellingham.detect_shell()
    except Exception:  # noqa: BLE001 - it runs ps, reads /proc and may not be installed: a guess may not fail
        return None
    return KNOWN.get(name)

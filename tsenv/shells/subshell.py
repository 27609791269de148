"""The interactive shell of ``tsenv shell``: the user's own, with ``(NAME)`` in front of the prompt he made himself.

Each shell is given a way to read one more small file *after* the user's own rc files. The files lie in
SESSION_DIR/rc/, are written anew each time (they are a few lines) and hold no path: the session's name is the only
value in them, and it is ``[A-Za-z0-9._-]`` only, so it needs no quoting in any prompt language.
"""

import os

from tsenv.paths import data_file

# What xonsh reads when XONSHRC is not set (xonsh.environ.default_xonshrc, xonshrcdir).
_XONSH_RC = ("/etc/xonsh/xonshrc", "~/.config/xonsh/rc.xsh", "~/.xonshrc")


def subshell(shell_path: str, name: str, session_dir: str | os.PathLike[str]) -> tuple[list[str], dict[str, str]]:
    """Return argv and extra environment for the user's interactive shell inside session NAME.

    A shell without a way in (tcsh, elvish, an unknown one) is started plainly; it still has TSENV_PROMPT.
    """
    kind = os.path.basename(shell_path).lstrip("-")
    prompt = "" if os.environ.get("TSENV_DISABLE_PROMPT") else f"({name}) "
    environment = {"TSENV_PROMPT": f"({name}) "}
    folder = os.path.join(session_dir, "rc")
    if kind == "bash":
        return [shell_path, "--rcfile", _write(f"{folder}/bashrc", "bash", prompt)], environment
    if kind == "zsh":
        _write(f"{folder}/zsh/.zshenv", "zshenv", prompt)
        _write(f"{folder}/zsh/.zshrc", "zshrc", prompt)
        return [shell_path], environment | _moved("ZDOTDIR", f"{folder}/zsh") | {"TSENV_RC": f"{folder}/zsh"}
    if kind == "fish":
        return [shell_path, "-C", _text("fish", prompt)], environment
    if kind in {"sh", "dash", "ash", "ksh", "ksh93", "mksh"}:
        rc = _write(f"{folder}/shrc", "sh", prompt)
        # $ENV is expanded by the shell that reads it: the path itself in it could be executed.
        return [shell_path], environment | _moved("ENV", "$TSENV_RC") | {"TSENV_RC": rc}
    if kind == "xonsh":
        files = [*_xonsh_files(), _write(f"{folder}/xonshrc", "xonsh", prompt)]
        return [shell_path], environment | {"XONSHRC": os.pathsep.join(files)}
    return [shell_path], environment


def _moved(variable: str, value: str) -> dict[str, str]:
    """VARIABLE=VALUE, and what it was in TSENV_OLD_VARIABLE, so that the file can put it back."""
    old = os.environ.get(variable)
    # Unset, not merely overwritten, must come back as unset: no TSENV_OLD_ variable then.
    return {variable: value} | ({} if old is None else {f"TSENV_OLD_{variable}": old})


def _xonsh_files() -> list[str]:
    if given := os.environ.get("XONSHRC"):
        return given.split(os.pathsep)
    return [path for path in map(os.path.expanduser, _XONSH_RC) if os.path.exists(path)]


def _text(kind: str, prompt: str) -> str:
    with open(data_file(f"shell/subshell.{kind}")) as file:
        return file.read().replace("@PROMPT@", f"'{prompt}'")


def _write(path: str, kind: str, prompt: str) -> str:
    """Write the file by rename: another `tsenv shell` may be reading the old one."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    draft = f"{path}.{os.getpid()}"
    with open(draft, "w") as file:
        file.write(_text(kind, prompt))
    os.replace(draft, path)
    return path

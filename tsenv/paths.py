"""Where a session lives, and that nobody else has put something there.

    $XDG_RUNTIME_DIR/tsenv/NAME/   (else /run/user/UID/tsenv, else /tmp/tsenv-UID)   the running session
    $XDG_STATE_HOME/tsenv/NAME/    logs, and the node of a persistent session

Imported on the exec path: only os, stat and builtins here.
"""

import os
import stat

from tsenv.errors import USAGE, TsenvError

_FIRST = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_REST = _FIRST + "._-"
NAME_RULE = "[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
CONFIG_NAME = ".tsenv.toml"


def valid_name(name: str) -> str:
    """`name` itself; TsenvError (2) when it is no session name. No `re`: it costs more than the check."""
    if not 1 <= len(name) <= 63 or name[0] not in _FIRST or any(c not in _REST for c in name):  # noqa: PLR2004
        shown = name if name.isprintable() and len(name) < 80 else ascii(name)[:80]  # noqa: PLR2004
        raise TsenvError(
            f"'{shown}' is not a session name", f"names match {NAME_RULE}", USAGE
        )
    return name


def data_file(rel: str) -> str:
    """Path of a file of ours such as "shell/join.sh": in the wheel inside the package, else beside it."""
    here = os.path.dirname(os.path.abspath(__file__))
    inside = os.path.join(here, rel)
    return inside if os.path.exists(inside) else os.path.join(os.path.dirname(here), rel)


def runtime_base() -> str:
    """The directory that holds this user's sessions; it need not exist yet."""
    xdg = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(xdg):
        return os.path.join(xdg, "tsenv")
    run_user = f"/run/user/{os.getuid()}"
    if os.path.isdir(run_user) and os.access(run_user, os.W_OK):
        return os.path.join(run_user, "tsenv")
    return f"/tmp/tsenv-{os.getuid()}"  # noqa: S108 - owner and mode are checked by private_dir


def session_dir(name: str) -> str:
    """The directory of session `name`; it need not exist."""
    return os.path.join(runtime_base(), name)


def state_base() -> str:
    """The directory under which each session has its state directory."""
    xdg = os.environ.get("XDG_STATE_HOME", "")
    return os.path.join(xdg if os.path.isabs(xdg) else os.path.expanduser("~/.local/state"), "tsenv")


def state_dir(name: str) -> str:
    """Where logs, shims and the node of a persistent session outlive the session."""
    return os.path.join(state_base(), name)


def without_shims(path: str) -> str:
    """A PATH without the folders of shims, by which an activated shell would lead us into a session."""
    base = f"{state_base()}/"
    return ":".join(folder for folder in path.split(":") if not (folder.startswith(base) and folder.endswith("/bin")))


def check_private(path: str, variable: str = "XDG_RUNTIME_DIR") -> None:
    """TsenvError unless `path` is a directory of ours that nobody else can enter: no link, our own, 0700."""
    try:
        st = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        trouble = f"cannot use {path}: {error.strerror}"
        raise TsenvError(trouble, f"set {variable} to a directory of yours") from None
    if stat.S_ISLNK(st.st_mode):
        raise TsenvError(f"{path} is a symbolic link; refused", f"look who made it, then: rm {path}")
    if not stat.S_ISDIR(st.st_mode):
        raise TsenvError(f"{path} is not a directory", f"look what it is, then: rm {path}")
    if st.st_uid != os.getuid():
        raise TsenvError(
            f"{path} belongs to another user (uid {st.st_uid}); refused",
            f"set {variable} to a directory of yours",
        )
    if st.st_mode & 0o077:
        os.chmod(path, 0o700)


def private_dir(path: str, variable: str = "XDG_RUNTIME_DIR") -> str:
    """`path`, made with mode 0700 where missing, after check_private."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise TsenvError(
            f"cannot make {path}: {error.strerror}", f"set {variable} to a writable directory of yours"
        ) from None
    check_private(path, variable)
    return path


def config_file(start: str | None = None) -> str | None:
    """The nearest .tsenv.toml, from `start` (default: the working directory) upwards, or None."""
    try:
        folder = start or os.getcwd()
    except FileNotFoundError:
        return None
    while True:
        candidate = os.path.join(folder, CONFIG_NAME)
        if os.path.lexists(candidate):  # a dangling link is refused by name, not passed over
            return candidate
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


def session_name(given: str | None) -> str:
    """The session that is meant: -n, else TSENV_SESSION, else the nearest .tsenv.toml, else "default"."""
    name = given or os.environ.get("TSENV_SESSION")
    if not name and (path := config_file()):
        from tsenv import config  # tomllib only where a file exists

        name = config.load(path).name
    return valid_name(name or "default")

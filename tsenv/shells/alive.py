"""Whether a session is up, cheaply: without json and dataclasses, as `activate` and the hook need it."""

import os

from tsenv.errors import TsenvError
from tsenv.paths import check_private, runtime_base, session_dir


def is_up(name: str) -> bool:
    """Say whether the session is ready and its anchor is still the process it was (a pid may be reused)."""
    folder = session_dir(name)
    # Below /tmp somebody else may have put a folder there, with a `join` of his own.
    check_private(runtime_base())
    check_private(folder)
    try:
        if not os.path.exists(f"{folder}/ready"):
            return False
        with open(f"{folder}/anchor.pid", encoding="ascii") as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        with open(f"{folder}/session.json", encoding="utf-8") as file:
            # The hook does the same by a shell pattern; json's import would cost as much as the rest.
            return f'"start": {fields[19]}\n' in file.read().replace("}", "\n").replace(",", "\n")
    except (OSError, ValueError, IndexError):
        return False


def require(name: str) -> None:
    """Raise TsenvError unless the session is up."""
    if not is_up(name):
        raise TsenvError(f"no session '{name}' is up", f"tsenv up {name}")


def inside() -> str | None:
    """Return the name of the session that this process itself is inside of, or None."""
    name = os.environ.get("TSENV_SESSION")
    if not name or os.environ.get("TSENV_BIN"):
        return None
    try:
        with open(f"{session_dir(name)}/session.json", encoding="utf-8") as file:
            return name if f'"netns": {os.stat("/proc/self/ns/net").st_ino}' in file.read() else None
    except OSError:
        return None

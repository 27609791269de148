"""Logs that outlive their session, capped in size: $XDG_STATE_HOME/tsenv/NAME/PART.log and, before it, PART.log.1."""

import os
import time

from tsenv import paths

PARTS = ("supervisor", "tailscaled", "pasta")
MOST_BYTES = 2 << 20


class Log:
    """Appends to one log; at MOST_BYTES the file becomes .1 and a new one begins."""

    def __init__(self, name: str, part: str) -> None:
        paths.private_dir(paths.state_base(), "XDG_STATE_HOME")  # its entries are the sessions' names
        os.makedirs(paths.state_dir(name), mode=0o700, exist_ok=True)
        self._path = path(name, part)
        self._fd = self._open()

    def _open(self) -> int:
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(fd).st_size
        return fd

    def fileno(self) -> int:
        """The open file; children may write to it."""
        return self._fd

    def write_bytes(self, data: bytes) -> None:
        """Append; what the disk does not take is lost rather than the session."""
        try:
            if self._size > MOST_BYTES:
                os.rename(self._path, self._path + ".1")
                fresh = self._open()
                os.dup2(fresh, self._fd, inheritable=False)
                os.close(fresh)
            self._size += os.write(self._fd, data)
        except OSError:
            pass

    def write(self, text: str) -> None:
        """Append text."""
        self.write_bytes(text.encode(errors="replace"))

    def event(self, text: str) -> None:
        """Append one line with the time (UTC)."""
        self.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")

    def close(self) -> None:
        """No more."""
        os.close(self._fd)

    @staticmethod
    def tail(name: str, part: str, count: int, since: int = 0) -> str:
        """The last `count` lines, empty where there are none. `since`: only what was written after that many bytes."""
        try:
            with open(path(name, part), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(size - 8192, since if since <= size else 0))  # a smaller one was begun anew
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-count:])


def size(name: str, part: str) -> int:
    """How many bytes the log of `part` of session `name` has."""
    try:
        return os.path.getsize(path(name, part))
    except OSError:
        return 0


def path(name: str, part: str) -> str:
    """Where the log of `part` of session `name` is."""
    return os.path.join(paths.state_dir(name), f"{part}.log")

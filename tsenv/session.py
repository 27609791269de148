"""The record of a session: what `up` writes down and every other verb reads.

`session.json` is written by temp file and rename. A process is known by pid *and* start time: a reused pid is never
taken for ours.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import select
import signal
from dataclasses import dataclass, field
from typing import Any

from tsenv import paths
from tsenv.errors import TsenvError

NS_GET_PARENT = 0xB702  # ioctl (linux/nsfs.h)
VERSION = 1
RECORD = "session.json"
READY = "ready"
NOT_LOGGED_OUT = "could not log out"  # begins the line of the supervisor's log that says so
TOLD_TO_END = "told to end"


@dataclass(frozen=True)
class Process:
    """A process that stays itself: `start` is its start time in clock ticks after boot (proc(5), stat field 22)."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> "Process":
        """The process that now has `pid`; TsenvError when there is none."""
        start = start_time(pid)
        if start is None:
            raise TsenvError(f"process {pid} is gone")
        return cls(pid, start)

    def alive(self) -> bool:
        """Whether it still runs: same pid, same start time, no zombie."""
        return start_time(self.pid) == self.start

    def open(self) -> int | None:
        """A pidfd of it, or None when it has ended. The start time is checked *after* the open, so no race."""
        try:
            fd = os.pidfd_open(self.pid)
        except (OSError, OverflowError):  # a damaged record may say anything
            return None
        if self.alive():
            return fd
        os.close(fd)
        return None

    def wait(self, seconds: float, number: int | None = None) -> bool:
        """Send it signal `number`, if one is given, then wait at most `seconds`; whether it has ended."""
        fd = self.open()
        if fd is None:
            return True
        try:
            if number is not None:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(fd, number)
            return bool(select.select([fd], [], [], max(0.0, seconds))[0])
        finally:
            os.close(fd)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: the command's name before may hold spaces and parentheses."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def start_time(pid: int) -> int | None:
    """Start time of `pid` in clock ticks after boot; None when it does not run (a zombie does not)."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


@dataclass(frozen=True)
class Options:
    """What shapes a session: `up` on a running session compares these, field by field.

    Ports are pasta's forms as `namespace.port_spec` made them; `extra` are flags for `tailscale up`, as given.
    """

    login_server: str = ""
    hostname: str = ""
    exit_node: str = ""
    accept_routes: bool = False
    accept_dns: bool = True
    advertise_tags: tuple[str, ...] = ()
    allow_incoming: bool = False
    publish: tuple[str, ...] = ()
    host_port: tuple[str, ...] = ()
    ephemeral: bool | None = None
    underlay: str = "auto"
    isolated: bool = False
    extra: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Options":
        """The inverse of dataclasses.asdict after a trip through JSON; unknown keys are dropped."""
        known = {f.name for f in dataclasses.fields(cls)}
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known}
        return cls(**values)

    def differences(self, wanted: "Options") -> list[str]:
        """What `wanted` has otherwise, as "name: here X, asked for Y". An unset `ephemeral` is no difference."""
        found = []
        for f in dataclasses.fields(self):
            here, asked = getattr(self, f.name), getattr(wanted, f.name)
            if here != asked and not (f.name == "ephemeral" and asked is None):
                found.append(f"{f.name.replace('_', '-')}: here {_shown(here)}, asked for {_shown(asked)}")
        return found


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) or "none"


def boot_id() -> str:
    """Another with each start of the machine, which the clock, that may jump, does not tell; empty where not known."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


@dataclass
class Session:
    """session.json, field by field. Times are Unix seconds; `netns`/`userns` are inode numbers."""

    name: str
    since: float = 0.0
    options: Options = field(default_factory=Options)
    pids: dict[str, Process] = field(default_factory=dict)
    netns: int = 0
    userns: int = 0
    underlay: str = ""
    underlay_reason: str = ""
    etc: str = ""
    port: int = 0
    addresses: list[str] = field(default_factory=list)
    dns_name: str = ""
    until: float | None = None
    with_pid: int | None = None
    degraded: str = ""
    restarts: dict[str, int] = field(default_factory=dict)
    boot: str = ""
    once: bool = False
    version: int = VERSION

    @property
    def dir(self) -> str:
        """The session directory."""
        return paths.session_dir(self.name)

    def file(self, name: str) -> str:
        """A file of the session directory."""
        return os.path.join(self.dir, name)

    def save(self) -> None:
        """Write session.json, anchor.pid and netns, each by rename."""
        replace(self.file(RECORD), json.dumps(dataclasses.asdict(self), indent=1) + "\n")
        if anchor := self.pids.get("anchor"):
            replace(self.file("anchor.pid"), f"{anchor.pid}\n")
            replace(self.file("netns"), f"/proc/{anchor.pid}/ns/net\n")

    def alive(self, part: str) -> bool:
        """Whether `part` (supervisor, anchor, …) runs."""
        process = self.pids.get(part)
        return process is not None and process.alive()


def replace(path: str, text: str, mode: int = 0o600) -> None:
    """Write `text` to `path` by temp file and rename: a reader sees the old or the new, never a half."""
    temp = f"{path}.{os.getpid()}"
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(temp, path)


def load(name: str) -> Session | None:
    """The record of session `name`, or None when there is none; TsenvError when the file is not ours to read."""
    folder = paths.session_dir(name)
    for path in (os.path.dirname(folder), folder):
        paths.check_private(path)
    try:
        with open(os.path.join(folder, RECORD), encoding="utf-8") as file:
            data = json.load(file)
        data["pids"] = {part: Process(int(p["pid"]), int(p["start"])) for part, p in data["pids"].items()}
        data["options"] = Options.from_json(data["options"])
        known = {f.name for f in dataclasses.fields(Session)}
        session = Session(**{k: v for k, v in data.items() if k in known})
        _check_kinds(session)
        _check_kinds(session.options)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, OSError) as error:
        raise TsenvError(
            f"{folder}/{RECORD} cannot be read: {error}", f"tsenv -n {name} down --force   removes it"
        ) from None
    if session.name != name:
        raise TsenvError(f"{folder}/{RECORD} speaks of another session", f"tsenv -n {name} down --force   removes it")
    return session


# What may stand where a default is None, and what the collections hold.
_KINDS: dict[str, tuple[type, ...]] = {
    "until": (int, float, type(None)),
    "with_pid": (int, type(None)),
    "ephemeral": (bool, type(None)),
    "since": (int, float),
}
_HOLDS: dict[str, type] = {"pids": Process, "restarts": int}


def _check_kinds(record: Any) -> None:
    """TypeError unless every field holds what its default is: a record that was damaged is refused here, once."""
    for f in dataclasses.fields(record):
        value = getattr(record, f.name)
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        kinds = _KINDS.get(f.name) or (str if default is dataclasses.MISSING else type(default),)
        items = list(value.values()) if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else []
        # bool is an int in Python, and NaN is a float.
        whole = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
        whole = whole and value == value  # noqa: PLR0124
        if not whole or not all(isinstance(item, _HOLDS.get(f.name, str)) for item in items):
            raise TypeError(f"{f.name} cannot be {value!r:.40}")


def look(name: str) -> tuple[str, Session | None]:
    """What `name` is, as `state` says it, and its record where there is one: of a session that is up there is."""
    folder = paths.session_dir(name)
    if not os.path.isdir(folder):
        return "down", None
    ready = os.path.exists(os.path.join(folder, READY))  # before the record, which is written first
    session = load(name)
    if session is None:
        now = "starting" if is_locked(folder) else "half-made"
    elif not session.alive("supervisor") or not session.alive("anchor"):
        now = "starting" if is_locked(folder) and not ready else "dead"
    elif not ready:
        now = "starting" if is_locked(folder) else "stopping"
    else:
        now = "degraded" if session.degraded else "up"
    return now, session


def state(name: str) -> str:
    """What `name` is: "up", "degraded", "starting", "stopping", "dead" (left over), "half-made" or "down"."""
    return look(name)[0]


def is_locked(folder: str) -> bool:
    """Whether somebody is going up or down in `folder`."""
    try:
        fd = os.open(os.path.join(folder, "lock"), os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def usable(name: str) -> Session:
    """The running session `name`; TsenvError that says what it is instead, and what to type."""
    now, session = look(name)
    if session is not None and now in ("up", "degraded"):
        return session
    raise TsenvError(
        {
            "down": f"no session '{name}' is up{last_end(name)}",
            "starting": f"session '{name}' is still going up",
            "stopping": f"session '{name}' is going down",
            "dead": f"session '{name}' has died: {cause_of_death(name)}",
            "half-made": f"session '{name}' was never finished",
        }.get(now, f"no session '{name}' is up"),
        up_again(name),
    )


def up_again(name: str) -> str:
    """What to type to bring session `name` up."""
    return "tsenv up" if name == "default" else f"tsenv -n {name} up"


def last_end(name: str) -> str:
    """How the last session of that name ended, in parentheses; empty when it was ended by a user, or not known."""
    from tsenv.logs import Log

    for line in reversed(Log.tail(name, "supervisor", 40).splitlines()):
        when, _, what = line.partition(" ")
        if what.startswith("going down: "):
            why = what.removeprefix("going down: ")
            return "" if why == TOLD_TO_END else f" (it ended at {when[11:19]} UTC: {why})"
        if what.startswith("up: "):
            break
    return ""


def cause_of_death(name: str) -> str:
    """What ended a session that left its directory behind."""
    found = load(name)
    if found is None:
        return "its record is gone"
    if found.boot != boot_id():
        return "the machine was restarted"
    return f"its {'anchor' if found.alive('supervisor') else 'supervisor'} was killed"


def names() -> list[str]:
    """The names of all session directories of this user, sorted."""
    base = paths.runtime_base()
    paths.check_private(base)
    try:
        found = [entry.name for entry in os.scandir(base) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return sorted(name for name in found if is_name(name))


def is_name(name: str) -> bool:
    """Whether `name` could name a session."""
    try:
        paths.valid_name(name)
    except TsenvError:
        return False
    return True


def processes_inside(session: Session) -> list[tuple[int, str]]:
    """(pid, command line) of the processes in the session that are not its own parts, also in namespaces they made."""
    own = {process.pid for process in session.pids.values()}
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) in own:
            continue
        try:
            if os.stat(f"/proc/{entry.name}/ns/net").st_ino != session.netns and not _descends(
                f"/proc/{entry.name}/ns/user", session.userns
            ):
                continue
            with open(f"/proc/{entry.name}/cmdline", "rb") as file:
                argv = file.read().rstrip(b"\0").split(b"\0")
        except OSError:
            continue  # another user's, or it has ended
        if not own.intersection(_ancestors(int(entry.name))):
            found.append((int(entry.name), b" ".join(argv).decode(errors="replace")))
    return sorted(found)


def _descends(namespace: str, ancestor: int) -> bool:
    """Whether a user namespace, or one around it, is the one of that inode number."""
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while os.fstat(fd).st_ino != ancestor:
            parent = fcntl.ioctl(fd, NS_GET_PARENT)
            os.close(fd)
            fd = parent
    except OSError:
        return False  # there is none around it that we may know
    finally:
        os.close(fd)
    return True


def _ancestors(pid: int) -> list[int]:
    """The parents of `pid`: what tailscaled and pasta start for themselves is theirs."""
    found: list[int] = []
    while pid > 1 and len(found) < 64:  # noqa: PLR2004 - a reused pid could make a circle
        fields = _stat(pid)
        if not fields:
            break
        pid = int(fields[1])
        found.append(pid)
    # The supervisor is an ancestor of all it started, and a command can be started by it only as a part.
    return found

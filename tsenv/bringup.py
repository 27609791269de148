"""Going up: from options to a session that is ready.

    lock ─▶ directory ─▶ supervisor (namespace, daemon) ─▶ tailscale up ─▶ Running, address, names ─▶ ready

The one who calls (`tsenv up`, `tsenv run`, the Python API) drives; the supervisor owns the processes. Until the commit
the session hangs on our end of the channel: whatever ends us takes it down too.
"""

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

from tsenv import daemon, doctor, hostnet, namespace, paths, session, supervisor
from tsenv.errors import TsenvError
from tsenv.session import Options, Session
from tsenv.tools import Tools, bound, start

AF_UNIX_MOST = 107  # sun_path (linux/un.h) less its final 0
ROOM_BYTES = 1 << 20  # a session takes about 100 KiB when it goes up
ASK_SECONDS = 2.0  # after the time was over, one question of our own
RENAME_SECONDS = 3.0  # then the node's name is asked for again
LEAVE_SECONDS = 25.0  # what a supervisor may need to log out and end


class Progress(Protocol):
    """Where going up says how far it is."""

    def phase(self, text: str) -> None:
        """A new phase begins."""

    def note(self, text: str) -> None:
        """Something to know, a line or more."""


@dataclass(frozen=True)
class Wanted:
    """What `up` was asked for, beside what shapes the session."""

    options: Options
    key: str = field(default="", repr=False)  # no traceback and no log may show it
    login_words: tuple[str, ...] = ()  # the flags of `tailscale up` for it; none: it is an auth key (tsenv/login.py)
    timeout: float = 60.0
    wait_for: tuple[str, ...] = ()
    until: float | None = None
    with_pid: int | None = None
    once: bool = False  # its name is made up: nobody will come back to it

    def login(self) -> tuple[str, ...]:
        """The flags of `tailscale up` that say how the node proves itself."""
        return self.login_words or (("--auth-key=file:/dev/stdin",) if self.key else ())


def bring_up(name: str, wanted: Wanted, progress: Progress) -> tuple[Session, bool]:
    """The session `name`, up; and whether it was made now (False: it was up already, with the same options)."""
    if os.geteuid() == 0:
        raise doctor.user().error()
    deadline = time.monotonic() + wanted.timeout
    paths.private_dir(paths.runtime_base())
    _await_end(name, deadline, progress)
    with lock(name, deadline, progress):
        existing = _existing(name, wanted)
        if existing is not None:
            return existing, False
        try:
            return _make(name, wanted, deadline, progress), True
        except BaseException as error:
            full = isinstance(error, TsenvError) and _no_room(paths.runtime_base())
            supervisor.remove(paths.session_dir(name))
            if full:
                raise full from None
            if isinstance(error, TsenvError):
                raise doctor.explained(error) from None
            raise


def _await_end(name: str, deadline: float, progress: Progress) -> None:
    """A session that goes down by itself (--ttl, --with-pid) holds no lock, and must not be disturbed at its logout."""
    now, found = session.look(name)
    if found is not None and now == "stopping":
        progress.phase(f"waiting for the end of the last '{name}'")
        found.pids["supervisor"].wait(deadline - time.monotonic())


def _existing(name: str, wanted: Wanted) -> Session | None:
    """The running session if it is as wanted; None when there is none, after what is left of a dead one was removed."""
    now, found = session.look(name)
    if found is not None and now in ("up", "degraded"):
        differences = found.options.differences(wanted.options)
        if differences:
            raise TsenvError(
                f"session '{name}' is up with other options: {'; '.join(differences)}",
                f"tsenv -n {name} down   and up again, or another name: tsenv -n OTHER up …",
            )
        return found
    clear(name)
    return None


def _left_inside(found: Session) -> list[int]:
    """Commands that outlived their session, since anchor and supervisor were killed at once.

    The number of a namespace that is gone is given to another one: only what says that it is ours is.
    """
    left = []
    for pid, _ in session.processes_inside(found) if found.netns else ():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            if f"TSENV_SESSION={found.name}".encode() in file.read().split(b"\0"):
                left.append(pid)
    return left


def clear(name: str) -> None:
    """End what still runs of a session whose supervisor is gone, and empty its directory."""
    folder = paths.session_dir(name)
    with contextlib.suppress(TsenvError):
        found = session.load(name)
        for pid in _left_inside(found) if found else ():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for process in found.pids.values() if found else ():
            process.wait(2.0, signal.SIGKILL)
    # The lock stays: we hold it, and it says that the directory is being made anew.
    for entry in os.listdir(folder) if os.path.isdir(folder) else []:
        if entry != "lock":
            path = os.path.join(folder, entry)
            if os.path.isdir(path) and not os.path.islink(path):
                supervisor.remove(path)
            else:
                os.unlink(path)


@contextlib.contextmanager
def lock(name: str, deadline: float, progress: Progress | None = None) -> Iterator[None]:
    """Hold the lock of session `name`: nobody else goes up or down. It lies in the directory, and may go with it."""
    folder = paths.session_dir(name)
    path = os.path.join(folder, "lock")
    while True:
        paths.private_dir(folder)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # its last holder just removed the directory
        try:
            _flock(fd, name, deadline, progress)
            if _is_still(fd, path):  # else it was removed while we waited
                yield
                return
        finally:
            os.close(fd)


def _is_still(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _flock(fd: int, name: str, deadline: float, progress: Progress | None) -> None:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    if progress is not None:
        progress.phase(f"waiting for another tsenv that has '{name}' in hand")

    def late(*_: object) -> None:
        raise TsenvError(f"another tsenv has had session '{name}' in hand for too long", f"tsenv -n {name} status")

    # flock has no deadline of its own; an alarm ends it.
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, max(0.01, deadline - time.monotonic()))
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _make(name: str, wanted: Wanted, deadline: float, progress: Progress) -> Session:
    """A new session in an empty directory."""
    folder = paths.session_dir(name)
    if len(os.fsencode(os.path.join(folder, daemon.SOCKET))) > AF_UNIX_MOST:
        raise TsenvError(f"{folder} is too long a path for a socket", "set XDG_RUNTIME_DIR to a shorter one")
    doctor.refuse()
    if full := _no_room(folder):
        raise full
    tools = Tools.find()
    resolvers = namespace.resolvers()
    if wanted.options.isolated:
        resolvers = resolvers.isolated(wanted.options.login_server)
    namespace.prepare(folder, resolvers)
    options = wanted.options
    if options.ephemeral is None:
        options = replace(options, ephemeral=bool(wanted.login()))
    record = Session(
        name=name,
        options=options,
        underlay="" if wanted.options.underlay == "auto" else wanted.options.underlay,
        port=_free_port(),
        until=wanted.until,
        with_pid=wanted.with_pid,
        boot=session.boot_id(),
        once=wanted.once,
    )
    import plumbum.machines.local  # noqa: F401 - before the fork: once for both sides

    with Channel(supervisor.fork(record, tools, resolvers)) as channel:
        channel.until_running(deadline, progress)
        Login(folder, wanted, tools, deadline, progress).run()
        found = _await_names(folder, wanted, tools, deadline, progress)
        if options.accept_routes:
            for said in hostnet.overlaps([(peer.name, route) for peer in found.peers for route in peer.routes]):
                progress.note(said)
        channel.commit(found, deadline)
    return session.usable(name)


def _no_room(folder: str) -> TsenvError | None:
    """What to say when the disk is full: whatever then fails first says it in no words that anybody understands."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    free = disk.f_bavail * disk.f_frsize
    if not disk.f_blocks or free >= ROOM_BYTES:  # a tmpfs without a limit counts no blocks
        return None
    return TsenvError(f"no space left in {folder}: {free >> 10} KiB free, {ROOM_BYTES >> 10} needed", f"df -h {folder}")


def _free_port() -> int:
    """A UDP port that is free on the host now: tailscaled keeps it for the session's life."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
        trial.bind(("", 0))
        return int(trial.getsockname()[1])


class Channel:
    """Our end of the wire to the supervisor."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """After a failure the supervisor is left to take everything down, and we wait for it: nothing runs on.

        Should it have been the cause, it has said so, and what failed here was only a consequence.
        """
        told: dict[str, Any] = {}
        if kind is not None:
            with contextlib.suppress(OSError):
                self._connection.setblocking(False)
                while data := self._connection.recv(1 << 16):
                    told |= json.loads(data)
            with contextlib.suppress(OSError):
                if isinstance(error, TsenvError):  # the next command tells it
                    self._connection.send(json.dumps({"failed": error.message[:1000]}).encode())
                self._connection.shutdown(socket.SHUT_WR)
                self._connection.settimeout(LEAVE_SECONDS)
                while self._connection.recv(1 << 16):
                    pass
        self._connection.close()
        if kind is TsenvError and "error" in told:
            raise TsenvError(told["error"], told["hint"]) from None

    def _receive(self, deadline: float, what: str) -> dict[str, Any]:
        self._connection.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            data = self._connection.recv(1 << 16)
        except TimeoutError:
            raise TsenvError(f"no answer in time: {what}", "tsenv logs --supervisor") from None
        if not data:
            raise TsenvError(f"the supervisor ended unexpectedly: {what}", "tsenv logs --supervisor")
        message: dict[str, Any] = json.loads(data)
        if "error" in message:
            raise TsenvError(message["error"], message["hint"])
        return message

    def until_running(self, deadline: float, progress: Progress) -> None:
        """Until namespaces and daemon are there."""
        message: dict[str, Any] = {}
        while "running" not in message:
            message = self._receive(deadline, "waiting for namespace and daemon")
            if "phase" in message:
                progress.phase(message["phase"])
        if message["reason"]:
            progress.note(f"underlay: pasta, slower than host ({message['reason']})")

    def commit(self, found: daemon.Status, deadline: float) -> None:
        """The session is as it should be: from now on it lives without us."""
        text = {"commit": {"addresses": found.addresses, "dns_name": found.dns_name}}
        self._connection.send(json.dumps(text).encode())
        self._receive(deadline, "waiting for the ready mark")


class Login:
    """`tailscale up`, and what the daemon says meanwhile."""

    def __init__(self, folder: str, wanted: Wanted, tools: Tools, deadline: float, progress: Progress) -> None:
        self._api = daemon.LocalAPI(folder)
        self._folder = folder
        self._wanted = wanted
        self._tools = tools
        self._deadline = deadline
        self._progress = progress
        self._state = ""
        self._shown = ""
        self._trouble = ""
        self._said = ""

    def run(self) -> None:
        """Until the daemon runs, or TsenvError with the reason."""
        self._progress.phase("login")
        child = self._start()
        exited, words = os.pidfd_open(child.pid), child.stderr.fileno()
        bus = self._api.watch()
        watched = {bus.fileno(), exited, words}
        try:
            while child.returncode != 0 or self._state != "Running":
                left = self._deadline - time.monotonic()
                if left <= 0:
                    raise self._late()
                ready = select.select(watched, [], [], left)[0]
                if bus.fileno() in ready and not bus.read(self._news):
                    raise TsenvError("tailscaled ended while logging in", "tsenv logs --tailscaled")
                if words in ready and not self._hear(words):
                    watched.discard(words)
                elif exited in ready:
                    watched.discard(exited)
                    if child.wait() != 0:
                        raise self._refused()
        finally:
            if child.returncode is None:
                child.kill()
                child.wait()
            os.close(exited)
            bus.close()
            child.stderr.close()
        if self._wanted.options.exit_node:
            self._set_exit_node()

    def _start(self) -> Any:
        """The key goes through a pipe: it is in no file, no argv and no environment."""
        words = daemon.up_words(
            self._wanted.options, login=self._wanted.login(), timeout=max(1.0, self._deadline - time.monotonic())
        )
        argv = daemon.tailscale_argv(self._tools.tailscale, self._folder, *words)
        child = start(argv, stdin=-1, stdout=-3, stderr=-1, preexec_fn=bound())
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(self._wanted.key.encode())
            child.stdin.close()
        return child

    def _hear(self, fd: int) -> bool:
        """What `tailscale up` says; False at its end. The bus tells the URL of a login to nobody but it."""
        data = os.read(fd, 1 << 16)
        self._said += data.decode(errors="replace")
        hit = re.search(r"To authenticate, visit:\s+(\S+)\s", self._said)
        if hit and self._shown != (url := daemon.clean(hit[1])):
            self._shown = url
            self._progress.note(f"to log in, visit:\n\n  {url}\n\n{qr(url)}")
            self._progress.phase("waiting for the login in the browser")
        return bool(data)

    def _news(self, notice: dict[str, Any]) -> None:
        self._state = daemon.state_name(notice.get("State")) or self._state
        if self._state == "NeedsMachineAuth" and self._shown != self._state:
            self._shown = self._state
            self._progress.phase("waiting for the approval of this machine by an admin")
        warnings = notice.get("Health") if isinstance(notice.get("Health"), dict) else {}
        found = (warnings.get("Warnings") or {}).get("login-state") if warnings else None
        if isinstance(found, dict):
            self._trouble = daemon.clean(found.get("Text"))
        if "fetch control key: 404" in self._trouble:
            raise self._late()  # tailscaled would ask for ever, many times a second

    def _late(self) -> TsenvError:
        """Why it is not up in time, as far as the daemon knows."""
        return login_error(self._state, self._shown, self._trouble, self._wanted)

    def _refused(self) -> TsenvError:
        """`tailscale up` gave up: its own last line says why, unless it was only the time."""
        lines = [daemon.clean(line.strip()) for line in self._said.splitlines() if line.strip()]
        if "USAGE" in lines:
            lines = lines[:1]  # a flag it does not know, or a value: what follows is all of its help
        if lines and lines[-1].startswith("Response: "):
            lines = [" ".join(lines[-2:])]  # what an OAuth server answered stands after the error
        last = lines[-1] if lines else "tailscale up failed"
        if "timeout waiting" in last:
            return self._late()
        return refusal(last)

    def _set_exit_node(self) -> None:
        """After login: only now the daemon knows its peers' names."""
        argv = daemon.tailscale_argv(
            self._tools.tailscale, self._folder, "set", f"--exit-node={self._wanted.options.exit_node}"
        )
        child = start(argv, stdin=-3, stdout=-3, stderr=-1)
        words = child.communicate(timeout=max(1.0, self._deadline - time.monotonic()))[1].decode(errors="replace")
        if child.returncode:
            raise TsenvError(
                f"exit node {self._wanted.options.exit_node!r}: {daemon.clean(words.strip().splitlines()[-1])}",
                "tsenv tailscale exit-node list   (in a session without one) shows those there are",
            )


# What tailscale and control servers say, and what to do about it: (a pattern in the message, ours, the hint).
# Certificates come first: what could not be fetched for their sake stands before them in the message.
REFUSALS = (
    (
        "not yet valid: current time .* is before",
        "the clock of this machine is wrong: it is behind",
        "set it: sudo timedatectl set-ntp true",
    ),
    (
        "not yet valid: current time .* is after",
        "the server's certificate has expired, or the clock of this machine is ahead",
        "date   if that is wrong: sudo timedatectl set-ntp true",
    ),
    ("oauth2: cannot fetch token", "the OAuth client's secret was refused", "check the secret, or make a new client"),
    ("/api/v2/oauth/token", "the OAuth client's secret could not be exchanged", "curl -v https://api.tailscale.com/"),
    ("token exchange failed", "the identity token was refused", "check its subject, audience, age and client"),
    ("require --id-token", "no identity token is to be had here", "GitHub: permissions: id-token: write"),
    ("invalid key: unable to validate API key", "the auth key is not valid", "check the key, or make a new one"),
    ("authkey expired", "the auth key has expired", "make a new one"),
    ("authkey already used", "the auth key was used already, and is for one use", "make a new one, or a reusable one"),
    ("failed to parse auth-key", "the auth key is not valid", "check the key, or make a new one"),
    ("invalid authkey", "the auth key is not valid", "check the key, or make a new one"),
    ("invalid pre auth key", "the auth key is not valid", "check the key, or make a new one"),
    ("API key does not exist", "the auth key is not valid", "check the key, or make a new one"),
    ("not permitted", "the tags are not permitted for this key", "check --advertise-tags and the policy's tagOwners"),
    ("requested tags", "the tags are not permitted for this key", "check --advertise-tags and the policy's tagOwners"),
    ("flag provided but not defined", "tailscale up does not know a flag", "see: tailscale up --help"),
)
LOCKED_OUT = "this node is locked out"  # tailscale.com/health/healthmsg: it is no refusal, the node is Running


def _known(words: str) -> TsenvError | None:
    for pattern, ours, hint in REFUSALS:
        if re.search(pattern, words, re.IGNORECASE):
            return TsenvError(f"{ours} ({words})", hint)
    return None


def refusal(words: str) -> TsenvError:
    """A TsenvError for what `tailscale up` or the control server said; the original words are in it."""
    return _known(words) or TsenvError(f"login failed: {words}", "tsenv logs --tailscaled")


def locked_out(lock: dict[str, Any]) -> str:
    """What to know about a node that tailnet lock keeps out; `lock`: the daemon's tka/status."""
    keys = " ".join(daemon.clean(lock.get(key)) for key in ("NodeKey", "PublicKey"))
    return (
        "warning: the tailnet is locked and this node is not signed: until it is, it reaches nobody\n"
        f"  hint: on a node that may sign: tailscale lock sign {keys}"
    )


def login_error(state: str, shown: str, trouble: str, wanted: Wanted) -> TsenvError:
    """Why the daemon was not Running in time."""
    server = wanted.options.login_server or daemon.DEFAULT_SERVER
    limit = f"within {wanted.timeout:g} s"
    if state == "NeedsMachineAuth":
        return TsenvError(f"this machine was not approved {limit}", "ask an admin of the tailnet, then: tsenv up")
    if shown.startswith("http"):
        return TsenvError(f"nobody logged in {limit}", "tsenv up --timeout SECONDS, or use an auth key")
    if known := _known(trouble):
        return known
    found = doctor.control(server, ASK_SECONDS)[0]
    if found.state == doctor.FAIL:
        return TsenvError(found.says, found.fix)  # tailscaled tries for ever and does not say why
    if trouble:
        return TsenvError(f"{server} did not let us in {limit}: {trouble}", "tsenv logs --tailscaled")
    return TsenvError(f"{server} answers, but did not let us in {limit}", "try again, or: tsenv logs --tailscaled")


def qr(url: str) -> str:
    """The QR code of `url` for a terminal."""
    import io

    import segno

    out = io.StringIO()
    segno.make(url, error="l").terminal(out, compact=True)
    return out.getvalue()


def _await_names(folder: str, wanted: Wanted, tools: Tools, deadline: float, progress: Progress) -> daemon.Status:
    """Until this node's own name resolves inside, and each peer of --wait-for answers."""
    progress.phase("names")
    api = daemon.LocalAPI(folder)
    status = api.status()
    if any(LOCKED_OUT in text for text in status.health):
        with contextlib.suppress(OSError, ValueError, TsenvError):
            progress.note(locked_out(api.get("tka/status")))  # it can be signed only while it is up
    join = ["/bin/sh", os.path.join(folder, "join")]
    while wanted.options.accept_dns and status.magic_dns and status.dns_name:
        # The prober asks again and again; it takes 15 ms to start, and mostly the first answer is yes.
        if _resolves(join, status.dns_name, deadline):
            break
        soon = min(deadline, time.monotonic() + RENAME_SECONDS)
        trouble = f"its own name {status.dns_name} does not resolve"
        try:
            _probe([*join, *prober(), "lookup", status.dns_name], soon, trouble)
            break
        except TsenvError as error:
            if soon == deadline or time.monotonic() < soon - 1:  # it failed by itself, not for lack of time
                raise
            try:
                status = api.status()  # a control server may have given the node another name
            except OSError:
                raise error from None
    for target in wanted.wait_for:
        progress.phase(f"waiting for {target}")
        host, port = split_target(target)
        words = ["connect", host, port] if port else ["ping", host, tools.tailscale]
        _probe([*join, *prober(), *words], deadline, f"{target} does not answer")
    return status


def _resolves(join: list[str], name: str, deadline: float) -> bool:
    """Whether `name` resolves inside now, by the same library that every program uses."""
    child = start([*join, "getent", "ahosts", name], stdin=-3, stderr=-3)
    try:
        child.communicate(timeout=max(0.1, min(2.0, deadline - time.monotonic())))
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
    return bool(child.returncode == 0)


def prober() -> list[str]:
    """The program that looks from inside (tsenv/probe.py): no site, no environment."""
    import sys

    return [sys.executable, "-I", "-S", os.path.join(os.path.dirname(os.path.abspath(__file__)), "probe.py")]


def split_target(target: str) -> tuple[str, str]:
    """HOST and PORT of HOST[:PORT]; an IPv6 address with a port stands in brackets."""
    if target.startswith("["):
        host, _, port = target[1:].partition("]")
        return host, port.removeprefix(":")
    host, colon, port = target.rpartition(":")
    return (host, port) if colon and ":" not in host else (target, "")


def _probe(argv: list[str], deadline: float, trouble: str) -> None:
    left = max(0.1, deadline - time.monotonic())
    child = start([*argv, f"{left:.1f}"], stdin=-3, stdout=-3, stderr=-1)
    try:
        words = child.communicate(timeout=left + 2)[1].decode(errors="replace").strip()
    except BaseException as error:
        child.kill()
        child.communicate()
        if type(error).__name__ != "TimeoutExpired":
            raise
        words = ""
    if child.returncode != 0:
        reason = f" ({words.splitlines()[-1]})" if words else ""
        raise TsenvError(f"{trouble}{reason}", "is the name right, the peer up, and does the policy let you in?")

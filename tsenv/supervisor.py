"""The supervisor: parent of everything that a session runs, one event loop, no threads, no polling.

    tsenv up ──fork──▶ supervisor ─┬─ pasta ── holder      (holder: pasta's child, owns the namespaces at the start)
                                   ├─ anchor ── inner      (see shell/anchor.sh)
                                   └─ tailscaled

It talks to the `tsenv up` that forked it over one SOCK_SEQPACKET, JSON messages: it sends {"phase": TEXT}, then
{"running": true} or {"error": TEXT, "hint": TEXT}; `up` logs in and sends {"commit": {…}}, which is answered by
{"ready": true}. If `up` goes away before that, the session is taken down again: nothing half-made stays.

All children hold the read end of one pipe, the lifeline: should the supervisor be killed, they end by themselves.
"""

import array
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from tsenv import daemon, hostnet, logs, namespace, paths, scrub, session, tools, underlay
from tsenv.errors import TsenvError
from tsenv.logs import Log
from tsenv.loop import Loop, Timer
from tsenv.session import Process, Session

START_SECONDS = 10.0  # for pasta, for the anchor and for tailscaled's socket, each
LOGOUT_SECONDS = 10.0
HURRIED_LOGOUT_SECONDS = 0.5
ONLINE_SECONDS = 3.0
YOUNG_SECONDS = 10.0  # since the daemon's start: it may not be logged in again
ATTACH_SECONDS = 2.0
SWEEPS = 20  # over what runs inside at the end
SETTLE_SECONDS = 1.0  # a network that changes does so in several steps
END_SECONDS = 5.0
PRUNE_SECONDS = 5.0  # after all else that `up` starts
ONCE = "once"  # in the state directory of a session whose name was made up, for one job or one command
KEEP_SECONDS = 7 * 86400
PRUNE_MOST = 20  # at a time: the session waits meanwhile
BACKOFF_FIRST, BACKOFF_MOST, BACKOFF_RESET = 0.1, 5.0, 60.0


@dataclass
class Part:
    """One child that is started again when it ends: its process and its backoff."""

    name: str
    start: Callable[[], None]
    pid: int = 0
    began: float = 0.0
    wait: float = BACKOFF_FIRST
    ended: bool = True
    timer: Timer | None = field(default=None)


def fork(record: Session, found: tools.Tools, resolvers: namespace.Resolvers) -> socket.socket:
    """Fork the supervisor of `record`; returns our end of the channel. It inherits no file and no terminal."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            if os.fork() == 0:  # the parent ends, so that init adopts it and `up` has no child to wait for
                _become(record, found, resolvers, theirs)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    theirs.close()
    return ours


def _become(record: Session, found: tools.Tools, resolvers: namespace.Resolvers, channel: socket.socket) -> None:
    """In the grandchild: leave everything of `up` behind, then supervise until the session ends."""
    fd = os.dup2(channel.detach(), 3, inheritable=False)
    null = os.open(os.devnull, os.O_RDWR)
    log = Log(record.name, "supervisor")
    for number in (0, 1):
        os.dup2(null, number)
    os.dup2(log.fileno(), 2)
    # A CI step waits for every pipe that it handed out: none may stay open (PAINS 1.21).
    keep = log.fileno()
    for number in (int(name) for name in os.listdir("/proc/self/fd")):
        if number > fd and number != keep:
            with contextlib.suppress(OSError):
                os.close(number)
    os.chdir("/")
    os.umask(0o077)
    scrub.no_core()
    scrub.keep_private()
    scrub.rename_process(f"tsenv-supervisor {record.name}")
    for name in scrub.TRACKERS:
        os.environ.pop(name, None)
    try:
        Supervisor(record, found, resolvers, socket.socket(fileno=fd), log).run()
    except Exception:  # noqa: BLE001 - the last door: nobody else could tell
        import traceback

        log.write(traceback.format_exc())
    finally:
        os._exit(0)


class Supervisor:
    """Starts the parts, starts them again, ends them."""

    def __init__(
        self, record: Session, found: tools.Tools, resolvers: namespace.Resolvers, channel: socket.socket, log: Log
    ) -> None:
        self.session = record
        self.tools = found
        self.resolvers = resolvers
        self.channel: socket.socket | None = channel
        self.log = log
        self.loop = Loop()
        self.lifeline, self._lifeline_end = os.pipe()
        self.state = os.path.join(record.dir, "state") if record.options.ephemeral else paths.state_dir(record.name)
        self.pasta = Part("pasta", self._attach_pasta)
        self.tailscaled = Part("tailscaled", self._start_tailscaled)
        # What is in the logs of earlier sessions explains nothing.
        self.began_at = {part: logs.size(record.name, part) for part in logs.PARTS}
        self.wdns = False
        self.no_swap: str | None = None  # why sockets cannot be swapped here
        self.launcher: socket.socket | None = None  # of tailscaled, before the session's namespaces are there
        self.swap: underlay.SocketSwap | None = None
        self.bus: daemon.Bus | None = None
        self.refresh: Timer | None = None
        self.host = hostnet.watch()
        self.rebind: Timer | None = None
        self.guard = Watcher(record.dir, Watcher.GONE)
        self.guard.add(os.path.dirname(record.dir), Watcher.SELF_GONE)
        self.socket: int | None = None  # tailscaled's, as a file of ours: it serves also when its name is gone
        self.troubles: dict[str, str] = {}
        self.watcher: Any = None
        self.stopping = False
        self.ready = False
        self.daemon_state = ""  # of tailscaled, as it told
        self.outlived = ""  # why the session is to end as soon as it is logged in

    # --- going up ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """From nothing to a session, and until its end."""
        self.loop.signals(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, call=lambda: self.stop(session.TOLD_TO_END))
        assert self.channel is not None  # noqa: S101 - for the type
        self.loop.watch(self.channel.fileno(), self._message)
        self.loop.watch(self.host.fileno(), self._network_changed)
        self.loop.watch(self.guard.fileno(), self._look_after_directory)
        self.session.pids["supervisor"] = Process.of(os.getpid())
        self._save()  # should `up` be killed, the next one must know whom it waits for, or ends
        try:
            if self.session.with_pid:
                self._bind_to(self.session.with_pid)
            self._tell(phase="namespace")
            self._start_pasta()
            self._tell(phase="daemon")
            self._start_tailscaled()
            self._await_daemon()
            self._save()
            self._tell(running=True, underlay=self.session.underlay, reason=self.session.underlay_reason)
        except (TsenvError, OSError) as error:
            hint = getattr(error, "hint", "")
            self.log.event(f"cannot go up: {error}")
            self._tell(error=getattr(error, "message", str(error)), hint=hint)
            self.stop("it could not go up")
        self.loop.run()

    def _start_pasta(self) -> None:
        """Pasta makes user and network namespace around a holder; then the anchor moves in and holds them."""
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        argv = [*self._pasta_argv(), "--", *namespace.holder_argv()]
        # pasta starts its command when interfaces and routes are there, so the holder's word means both.
        self._spawn(self.pasta, argv, stdin=self.lifeline, stdout=theirs.fileno())
        theirs.close()
        # Pasta takes 30 ms: time to ask what others would wait for later.
        self.wdns = _has_wdns(self.tools.nsenter)
        self.no_swap = "not asked for" if self.session.underlay == "pasta" else underlay.probe()
        if not self.no_swap:
            self._start_launcher()
        holder = sender(ours) if self._heard_from(ours.fileno()) else 0
        ours.close()
        if not holder:
            raise pasta_trouble(self._tail("pasta"))
        self.session.pids["holder"] = Process.of(holder)
        self._start_anchor(holder)

    def _heard_from(self, fd: int) -> bool:
        """Wait until `fd` is readable; False when it does not get so in time. TsenvError when `up` goes away."""
        assert self.channel is not None  # noqa: S101 - for the type
        ready = select.select([fd, self.channel.fileno()], [], [], START_SECONDS)[0]
        if self.channel.fileno() in ready:
            raise TsenvError("`tsenv up` went away")
        return bool(ready)

    def _pasta_argv(self) -> list[str]:
        options = self.session.options
        return namespace.pasta_argv(
            options.publish, options.host_port, dns_forward=self.resolvers.forward, pasta=self.tools.pasta
        )

    def _start_anchor(self, holder: int) -> None:
        firewall = namespace.firewall_words() if self.session.options.isolated else []
        state = paths.state_dir(self.session.name)
        argv = namespace.anchor_argv(holder, self.session.dir, state, self.tools.tailscale, firewall)
        reader, writer = os.pipe()
        child = tools.start(argv, stdin=self.lifeline, stdout=writer, stderr=self.log.fileno(), cwd="/")
        os.close(writer)
        words = line_from(reader, START_SECONDS).split() if self._heard_from(reader) else []
        os.close(reader)
        os.unlink(self.session.file(namespace.INNER_MADE))
        if words[:1] != ["ready"]:
            child.kill()  # it may wait for an inner process that never was
            why = " ".join(words[1:]) or self._tail("supervisor") or "no answer"
            raise TsenvError(f"the session's namespaces cannot be set up: {why}", "tsenv doctor")
        self.session.pids |= {"anchor": Process.of(child.pid), "inner": Process.of(int(words[1]))}
        self.session.etc = words[2]
        self.session.netns = os.stat(f"/proc/{child.pid}/ns/net").st_ino
        self.session.userns = os.stat(f"/proc/{child.pid}/ns/user").st_ino
        self.loop.child(child, lambda status: self._lost("anchor", status))
        script = namespace.join_script(self.session, wdns=self.wdns)
        session.replace(self.session.file("join"), script, 0o700)

    def _start_tailscaled(self) -> None:
        """The daemon, in the anchor's namespaces; under the underlay's filter where that is wanted and works."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.session.file(daemon.SOCKET))  # a killed one's; its successor's is to be waited for
        os.makedirs(self.state, mode=0o700, exist_ok=True)
        if self.session.underlay != "pasta":
            try:
                self._start_with_swap()
            except underlay.UnderlayUnavailable as error:
                if self.session.options.underlay == "host":
                    raise TsenvError(f"the host underlay does not work here: {error}", "--underlay auto") from None
                self.session.underlay, self.session.underlay_reason = "pasta", str(error)
                self.log.event(f"falling back to the pasta underlay: {error}")
            else:
                self.session.underlay = "host"
                return
        anchor = self.session.pids["anchor"].pid
        self._spawn(self.tailscaled, namespace.enter_argv(anchor) + self._daemon_argv(), **self._daemon_files())

    def _daemon_argv(self) -> list[str]:
        return daemon.tailscaled_argv(self.tools.tailscaled, self.session.dir, self.state, self.session.port)

    def _start_launcher(self) -> None:
        """What takes on the filter and becomes tailscaled. It waits for the session's namespaces, and may be early."""
        self.launcher, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [sys.executable, "-I", "-S", underlay.__file__, "--socket", str(theirs.fileno()), "--enter", "--"]
        files = self._daemon_files()
        files["pass_fds"] = (*files["pass_fds"], theirs.fileno())
        self._spawn(self.tailscaled, [*argv, *self._daemon_argv()], **files)
        theirs.close()

    def _start_with_swap(self) -> None:
        if self.no_swap:
            raise underlay.UnderlayUnavailable(self.no_swap)
        if self.launcher is None:
            self._start_launcher()
        launcher, self.launcher = self.launcher, None
        assert launcher is not None  # noqa: S101 - for the type
        try:
            underlay.send_namespaces(launcher, self.session.pids["anchor"].pid)
            listener = underlay.receive_listener(launcher, time.monotonic() + START_SECONDS)
            self.swap = underlay.SocketSwap(listener, self.tailscaled.pid, self.log.event)
            self.loop.watch(self.swap.fileno(), self._serve_swap)
        except underlay.UnderlayUnavailable:
            self.tailscaled.ended = True  # the launcher ends by itself; its end is no loss
            raise
        finally:
            launcher.close()

    def _daemon_files(self) -> dict[str, Any]:
        """The daemon ends when the lifeline does; its home is the state directory, not $HOME (PAINS 1.24)."""
        return {
            "stdin": -3,  # DEVNULL
            "pass_fds": (self.lifeline,),
            "env": {
                "TS_PARENT_DEATH_FD": str(self.lifeline),
                "XDG_CACHE_HOME": self.state,
                "STATE_DIRECTORY": self.state,
            },
        }

    def _serve_swap(self) -> None:
        if self.swap is not None:
            self.swap.handle()
            if self.swap.closed:
                self._drop_swap()

    def _drop_swap(self) -> None:
        if self.swap is not None:
            self.loop.unwatch(self.swap.fileno())
            self.swap.close()
            self.swap = None

    def _await_daemon(self) -> None:
        """Until tailscaled's socket answers. The loop runs meanwhile: the daemon needs its sockets swapped for it."""
        deadline = time.monotonic() + START_SECONDS
        with Watcher(self.session.dir) as watcher:
            self.loop.watch(watcher.fileno(), watcher.drain)
            try:
                while not self._open_bus():
                    if self.tailscaled.ended or time.monotonic() > deadline:
                        why = self._tail("tailscaled") or "tsenv logs --tailscaled"
                        raise TsenvError("tailscaled did not start", why)
                    # Between bind and listen the socket refuses: then there is no event to wait for.
                    self.loop.step(0.01 if os.path.exists(self.session.file(daemon.SOCKET)) else 1.0)
            finally:
                self.loop.unwatch(watcher.fileno())

    def _spawn(self, part: Part, argv: list[str], **kwargs: Any) -> None:
        """Start `part`; its output goes to its log, its end to `_ended`."""
        log = Log(self.session.name, part.name)
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        kwargs.setdefault("stdout", writer)
        child = tools.start(argv, stderr=writer, cwd="/", **kwargs)
        os.close(writer)
        part.pid, part.began, part.ended = child.pid, time.monotonic(), False
        # One that has ended already has no start time any more: 0 is nobody's.
        self.session.pids[part.name] = Process(child.pid, session.start_time(child.pid) or 0)

        def output() -> None:
            with contextlib.suppress(BlockingIOError):
                if data := os.read(reader, 1 << 16):
                    log.write_bytes(data)
                    return
                self.loop.unwatch(reader)
                os.close(reader)
                log.close()

        self.loop.watch(reader, output)
        pid = child.pid
        self.loop.child(child, lambda status: self._ended(part, pid, status))

    # --- up ---------------------------------------------------------------------------------------------------------

    def _message(self) -> None:
        """From `up`: the commit, or its end."""
        assert self.channel is not None  # noqa: S101 - for the type
        try:
            data = self.channel.recv(1 << 16)
        except OSError:
            data = b""
        if data:
            said = json.loads(data)
            if "failed" in said:
                self.stop(f"it could not go up: {daemon.clean(said['failed'])}")
            elif not self.stopping:
                self._commit(said["commit"])
            return
        if self.ready:
            self._hang_up()
            return
        # Not yet closed: `up` waits for that, and it comes when everything has ended.
        self.loop.unwatch(self.channel.fileno())
        self.stop("`tsenv up` went away")

    def _commit(self, found: dict[str, Any]) -> None:
        self.session.addresses = found["addresses"]
        self.session.dns_name = found["dns_name"]
        self.session.since = time.time()
        self.ready = True
        if self.session.until is not None:
            self.loop.at(self.session.until - time.time(), lambda: self.stop("its time is over"))
        self._refresh_peers()
        self._save()
        session.replace(self.session.file(session.READY), f"{self.session.since:.0f}\n")
        self.log.event(f"up: {' '.join(self.session.addresses)} {self.session.dns_name}")
        self._tell(ready=True)
        if self.session.once:
            with contextlib.suppress(OSError):
                session.replace(os.path.join(paths.state_dir(self.session.name), ONCE), "")
        self.loop.after(PRUNE_SECONDS, prune)

    def _bind_to(self, pid: int) -> None:
        """End when process `pid`, which need not be a child, ends."""
        why = f"process {pid} has ended"
        try:
            fd = os.pidfd_open(pid)
        except (OSError, OverflowError):
            raise TsenvError(why, "--with-pid wants one that runs") from None

        def ended() -> None:
            self.loop.unwatch(fd)
            os.close(fd)
            if not self.ready:
                self._tell(error=why, hint="--with-pid wants one that runs")
            if self.ready or self.daemon_state == "Running":
                self.stop(why)
            else:
                self.outlived = why  # a logout in the middle of a login gets lost
                self.loop.after(ONLINE_SECONDS, lambda: self.stop(why))

        self.loop.watch(fd, ended)

    def _open_bus(self) -> bool:
        """Listen to tailscaled; False while it does not answer."""
        if self.bus is not None:
            return True
        try:
            self.bus = daemon.LocalAPI(self.session.dir).watch()
        except OSError:
            return False
        self.loop.watch(self.bus.fileno(), self._news)
        self._let_go_of_socket()
        self.socket = os.open(self.session.file(daemon.SOCKET), os.O_PATH | os.O_CLOEXEC)
        return True

    def _let_go_of_socket(self) -> None:
        if self.socket is not None:
            os.close(self.socket)
            self.socket = None

    def _close_bus(self) -> None:
        if self.bus is not None:
            self.loop.unwatch(self.bus.fileno())
            self.bus.close()
            self.bus = None

    def _news(self) -> None:
        if self.bus is not None and not self.bus.read(self._notified):
            self._close_bus()

    def _notified(self, notice: dict[str, Any]) -> None:
        """A change of state shows in `degraded`; peers that came or went, in the file that completions read."""
        state = daemon.state_name(notice.get("State"))
        self.daemon_state = state or self.daemon_state
        if self.outlived and state == "Running":
            self.stop(self.outlived)
        # A daemon that was started again goes through these before it is what it was.
        passing = state in ("NoState", "Starting") and self.troubles.get("tailscaled")
        if state and self.ready and not self.stopping and not passing:
            self._trouble("tailscaled", "" if state == "Running" else self._meaning(state))
        if self.ready and self.refresh is None and (notice.get("NetMap") or notice.get("PeersChanged")):
            self.refresh = self.loop.after(0.5, self._refresh_peers)

    def _ask(self, method: str, path: str, then: Callable[[bytes], None] = lambda _: None) -> None:
        """A request to tailscaled, answered later: it may need a socket of us before it can answer."""
        try:
            answer = daemon.LocalAPI(self.session.dir).ask(method, path)
        except OSError:
            return  # it has died, and will be started again

        def read() -> None:
            body: bytes | None = b""
            with contextlib.suppress(OSError, TsenvError):
                body = answer.read()
            if body is None:
                return
            self.loop.unwatch(answer.fileno())
            answer.close()
            if body:
                then(body)

        self.loop.watch(answer.fileno(), read)

    def _network_changed(self) -> None:
        """The host has other addresses or routes. tailscaled sees only the session's, so it is told to look anew."""
        hostnet.drain(self.host)
        if self.rebind is None and self.ready and not self.stopping:
            self.rebind = self.loop.after(SETTLE_SECONDS, self._rebind)

    def _rebind(self) -> None:
        self.rebind = None
        self.log.event("the host's network has changed: tailscaled looks for its way anew")
        for action in ("rebind", "restun", "break-tcp-conns"):  # the last: control and DERP
            self._ask("POST", f"debug?action={action}")

    def _refresh_peers(self) -> None:
        self.refresh = None
        self._ask("GET", "status", self._write_peers)

    def _write_peers(self, body: bytes) -> None:
        try:
            status = daemon.Status.parse(json.loads(body))
        except ValueError:
            return
        # Only what may stand in a host name: this file is read by completions (PAINS 2.1).
        hosts = {name for peer in status.peers for name in (peer.name, peer.dns_name) if is_host(name)}
        with contextlib.suppress(OSError):  # a full disk; the directory is being removed
            session.replace(self.session.file("peers"), "".join(f"{host}\n" for host in sorted(hosts)))

    def _meaning(self, state: str) -> str:
        """A state of tailscaled, and what to do about it."""
        again = f"tsenv -n {self.session.name}"
        return {
            "NeedsLogin": "the node is logged out (its key has expired, or the control server has forgotten it): "
            f"{again} down, then up with a new key",
            "NeedsMachineAuth": "the node waits for the approval of an admin",
            "Stopped": f"tailscale was told to stop: {again} tailscale up",
        }.get(state, f"tailscaled is in state {state}")

    def _trouble(self, about: str, why: str) -> None:
        """Something is wrong, or with an empty `why` right again; all that is wrong makes `degraded`."""
        self.troubles[about] = why
        now = "; ".join(filter(None, self.troubles.values()))
        if now != self.session.degraded:
            self.session.degraded = now
            self.log.event(now or "all is well again")
            self._save()

    def _save(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: the session itself goes on
            if not self.stopping:
                self.session.save()

    def _look_after_directory(self) -> None:
        """Something was removed from the session directory. Without it nobody can join, or end, the session."""
        self.guard.drain()
        if self.ready and not self.stopping and not self._is_whole():
            self.stop("its directory was removed", hurry=True)

    def _is_whole(self) -> bool:
        return all(os.path.exists(self.session.file(name)) for name in (session.RECORD, session.READY, "join"))

    def _is_ours(self) -> bool:
        """Whether the directory is (still) this session's: since it was removed another may have been made there."""
        try:
            found = session.load(self.session.name)
        except TsenvError:
            return False
        if found is None:
            return not session.is_locked(self.session.dir)
        return found.pids.get("supervisor") == self.session.pids["supervisor"]

    # --- faults -----------------------------------------------------------------------------------------------------

    def _ended(self, part: Part, pid: int, status: int) -> None:
        """A part has ended. While the session is up it is started again, at longer and longer intervals."""
        if pid != part.pid or part.ended:
            return
        part.ended = True
        if part is self.tailscaled:
            self._close_bus()
            self._drop_swap()
        else:
            self._end_pastas_own()
        if self.stopping or not self.ready:
            return
        if time.monotonic() - part.began > BACKOFF_RESET:
            part.wait = BACKOFF_FIRST
        self.session.restarts[part.name] = self.session.restarts.get(part.name, 0) + 1
        self._trouble(part.name, f"{part.name} ended ({how(status)}), again in {part.wait:.1f} s")
        part.timer = self.loop.after(part.wait, lambda: self._restart(part))
        part.wait = min(part.wait * 2, BACKOFF_MOST)

    def _restart(self, part: Part) -> None:
        if self.stopping:
            return
        mine = part.timer
        try:
            part.start()
            if part is self.tailscaled:
                self._await_daemon()
        except (TsenvError, OSError, underlay.UnderlayUnavailable) as error:
            self.log.event(f"{part.name}: {error}")
            self._signal(part, signal.SIGKILL)  # it runs but does not answer: its end starts another
            # One that ended while it was waited for has its next start set already.
            if part.ended and not self.stopping and part.timer is mine:
                part.timer = self.loop.after(part.wait, lambda: self._restart(part))
            return
        if part.ended or self.stopping:
            return
        self.log.event(f"{part.name} runs again")
        if part is self.pasta:
            self._trouble(part.name, "")
        self._save()

    def _end_pastas_own(self) -> None:
        """With a pasta goes its watcher, or the first one's holder, on whose namespaces the anchor has its hands."""
        if self.watcher is not None:
            self.watcher.kill()
        if holder := self.session.pids.pop("holder", None):
            holder.wait(0, signal.SIGKILL)

    def _attach_pasta(self) -> None:
        """A new pasta works in the anchor's namespaces. It does not end with them by itself, so it gets a watcher."""
        pasta = [*self._pasta_argv(), *namespace.attach_argv(self.session.pids["anchor"].pid)]
        # A shell waits for the watcher to be there, then becomes pasta: should we be killed meanwhile, none is left.
        argv = ["/bin/sh", "-c", 'read -r _ && exec "$@" </dev/null', "sh", *pasta]
        reader, writer = os.pipe()
        with open(reader, "rb"), open(writer, "wb", buffering=0) as go:
            self._spawn(self.pasta, argv, stdin=reader)
            self._watch_pasta()
            go.write(b"\n")
        deadline = time.monotonic() + ATTACH_SECONDS  # a host that has no network gives none
        while not (self.pasta.ended or namespace.has_way_out(self.session) or time.monotonic() > deadline):
            self.loop.step(0.01)  # pasta in the foreground tells nobody when it is done
        argv = namespace.uplink_argv(self.session.pids["anchor"].pid)
        self.loop.child(tools.start(argv, stdin=-3, stdout=-3, stderr=-3, cwd="/"), lambda _: None)

    def _watch_pasta(self) -> None:
        """A process that ends pasta when the lifeline does. Should it be killed itself, there is another at once."""
        pasta = self.session.pids["pasta"]
        self.watcher = tools.start(namespace.watcher_argv(pasta), stdin=self.lifeline, stdout=-3, stderr=-3, cwd="/")

        def ended(_: int) -> None:
            self.watcher = None
            if not self.stopping and not self.pasta.ended and self.session.pids["pasta"] == pasta:
                self._watch_pasta()

        self.loop.child(self.watcher, ended)

    def _lost(self, name: str, status: int) -> None:
        if not self.stopping:
            self.log.event(f"{name} ended ({how(status)}): the session is over")
            self.stop(f"its {name} ended", hurry=True)

    # --- going down -------------------------------------------------------------------------------------------------

    def stop(self, why: str, *, hurry: bool = False) -> None:
        """End the session: log out when ephemeral, then end all parts, then remove its directory.

        `hurry`: the session is broken; within a second nothing of it may run.
        """
        if self.stopping:
            return
        self.stopping = True
        self.log.event(f"going down: {why}")
        if self._is_ours():
            with contextlib.suppress(OSError):
                os.unlink(self.session.file(session.READY))
        self._end_inside()
        if self.session.options.ephemeral and not hurry:
            self._revive()
        if not self.session.options.ephemeral or self.tailscaled.ended or self.socket is None:
            self._end_parts(hurry=hurry)
            return
        argv = [self.tools.tailscale, f"--socket=/proc/self/fd/{self.socket}", "logout"]
        files = {"stdin": -3, "stdout": self.log.fileno(), "stderr": self.log.fileno(), "pass_fds": (self.socket,)}
        try:
            child = tools.start(argv, cwd="/", **files)
        except OSError as error:  # it was removed meanwhile
            self.log.event(f"{session.NOT_LOGGED_OUT}: {error}")
            self._end_parts(hurry=hurry)
            return
        patience = HURRIED_LOGOUT_SECONDS if hurry else LOGOUT_SECONDS
        slow = self.loop.after(patience, lambda: os.kill(child.pid, signal.SIGKILL))

        def logged_out(status: int) -> None:
            slow.cancel()
            if status:
                stays = "the node stays in the control server's list until that drops it"
                self.log.event(f"{session.NOT_LOGGED_OUT}: {stays}")
            self._end_parts(hurry=hurry)

        self.loop.child(child, logged_out)

    def _revive(self) -> None:
        """A daemon that is being started again must be there to log out, and one that has just logged in be done."""
        young = time.monotonic() - self.tailscaled.began < YOUNG_SECONDS
        if self.rebind is not None:  # now, not in the middle of the logout, whose connection it would break
            self.rebind.cancel()
            self._rebind()
            young = True
        if (self.ready and self.bus is not None and young) or (not self.ready and self.daemon_state == "Running"):
            self._await_online()
        if self.ready and self.bus is None:
            try:
                if self.tailscaled.ended:
                    self._start_tailscaled()
                self._await_daemon()
                self._await_online()
            except (TsenvError, OSError, underlay.UnderlayUnavailable) as error:
                self.log.event(f"tailscaled: {error}")

    def _await_online(self) -> None:
        """Until the control server has answered the daemon: a logout in the middle of its login gets lost."""
        deadline = time.monotonic() + ONLINE_SECONDS
        online: list[bool] = []

        def look(body: bytes) -> None:
            with contextlib.suppress(ValueError):
                online.append(daemon.Status.parse(json.loads(body)).online)

        while not any(online) and not self.tailscaled.ended and time.monotonic() < deadline:
            self._ask("GET", "status?peers=false", look)
            self.loop.step(0.1)

    def _end_inside(self) -> None:
        """What still runs inside would only hold the namespaces. Twice and more: some may be forking."""
        told: dict[int, str] = {}
        for _ in range(SWEEPS):
            found = session.processes_inside(self.session) if self.session.netns else []
            told |= found
            for pid, _command in found:
                for number in (signal.SIGTERM, signal.SIGCONT, signal.SIGKILL):
                    with contextlib.suppress(OSError):
                        os.kill(pid, number)
            if not found:
                break
        if told:
            some = ", ".join(f"{pid} {daemon.clean(command)[:60]}" for pid, command in list(told.items())[:5])
            self.log.event(f"ended {len(told)} inside: {some}")

    def _end_parts(self, *, hurry: bool) -> None:
        """Tailscaled first, so that it can say goodbye; then the lifeline lets go of all others."""
        self._signal(self.tailscaled, signal.SIGKILL if hurry else signal.SIGTERM)
        deadline = self.loop.after(END_SECONDS, lambda: self._signal(self.tailscaled, signal.SIGKILL))
        while not self.tailscaled.ended:
            self.loop.step()
        deadline.cancel()
        os.close(self._lifeline_end)
        self._signal(self.pasta, signal.SIGTERM)
        deadline = self.loop.after(END_SECONDS, lambda: self._signal(self.pasta, signal.SIGKILL))
        while not self.pasta.ended:
            self.loop.step()
        deadline.cancel()
        self._await_end("inner", "anchor")
        if self._is_ours():
            remove(self.session.dir)
        self.log.event("down")
        self._hang_up()
        self.loop.stop()

    def _await_end(self, *parts: str) -> None:
        for part in parts:
            process = self.session.pids.get(part)
            # One is a child and one is not: a pidfd tells the end of both.
            if process is not None and not process.wait(END_SECONDS):
                process.wait(0, signal.SIGKILL)

    @staticmethod
    def _signal(part: Part, number: signal.Signals) -> None:
        if not part.ended:
            with contextlib.suppress(OSError):
                os.kill(part.pid, number)

    # --- words ------------------------------------------------------------------------------------------------------

    def _tell(self, **message: Any) -> None:
        if self.channel is not None:
            with contextlib.suppress(OSError):
                self.channel.send(json.dumps(message).encode())

    def _hang_up(self) -> None:
        if self.channel is not None:
            with contextlib.suppress(KeyError):  # after the end of `up` it is not watched any more
                self.loop.unwatch(self.channel.fileno())
            self.channel.close()
            self.channel = None

    def _tail(self, part: str) -> str:
        """The last lines of a part's log, after what it may still have to say."""
        for _ in range(3):
            self.loop.step(0.05)
        return Log.tail(self.session.name, part, 5, self.began_at[part])


def pasta_trouble(words: str) -> TsenvError:
    """What `words`, the end of pasta's log, mean for whoever typed `tsenv up`."""
    taken = [line for line in words.splitlines() if "Failed to bind" in line]
    if taken:
        return TsenvError(
            f"--publish: the port cannot be opened on the host ({taken[-1].removesuffix(', exiting')})",
            "ss -ltunp   shows who has it; ports below 1024 are root's",
        )
    return TsenvError("pasta could not make a network namespace", words or "tsenv doctor")


class Watcher:
    """inotify on one directory: readable when a file was made in it or moved there, or as EVENTS say."""

    MADE = 0x100 | 0x80  # IN_CREATE | IN_MOVED_TO (linux/inotify.h)
    SELF_GONE = 0x400 | 0x800  # IN_DELETE_SELF | IN_MOVE_SELF
    GONE = 0x200 | 0x40 | SELF_GONE  # IN_DELETE | IN_MOVED_FROM

    def __init__(self, folder: str, events: int = MADE) -> None:
        import ctypes

        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        self.add(folder, events)

    def add(self, folder: str, events: int) -> None:
        """Watch that one, too."""
        import ctypes

        if self._fd < 0 or self._libc.inotify_add_watch(self._fd, os.fsencode(folder), events) < 0:
            raise OSError(ctypes.get_errno(), f"cannot watch {folder}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def fileno(self) -> int:
        """For select."""
        return self._fd

    def drain(self) -> None:
        """Forget what was told."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 1 << 14)


def how(status: int) -> str:
    """An exit status (negative: a signal) in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def remove(folder: str) -> None:
    """Remove a session directory. The overlay leaves a work directory that not even its owner may list."""

    def open_up(call: Callable[[str], object], path: str, _: object) -> None:
        with contextlib.suppress(OSError):
            os.chmod(path, 0o700)
            if call in (os.rmdir, os.unlink):
                call(path)
            else:
                shutil.rmtree(path, ignore_errors=True)

    shutil.rmtree(folder, onerror=open_up)
    shutil.rmtree(folder, ignore_errors=True)


def prune() -> None:
    """Remove what some sessions of one job or command left behind a week ago: a runner has thousands in a month.

    Others' shims stay for as long as a shell may have them on PATH.
    """
    gone = 0
    with contextlib.suppress(OSError), os.scandir(paths.state_base()) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                old = time.time() - os.stat(os.path.join(entry.path, "supervisor.log")).st_mtime > KEEP_SECONDS
                left = old and os.path.exists(os.path.join(entry.path, ONCE))
                # The node of a persistent session is never ours to remove.
                node = os.path.join(entry.path, "tailscaled.state")
                if left and not os.path.exists(node) and not os.path.exists(paths.session_dir(entry.name)):
                    remove(entry.path)
                    gone += 1
            if gone == PRUNE_MOST:
                return


def is_host(name: str) -> bool:
    """Whether a peer's name may stand where a shell completes words: nothing but a host name, and no option."""
    letters = name.replace("-", "").replace(".", "")
    return name[:1].isalnum() and len(name) < 254 and name.isascii() and letters.isalnum()  # noqa: PLR2004


def sender(channel: socket.socket) -> int:
    """The pid, as we see it, of who has written to `channel`; 0 where that was nobody. The kernel fills it in."""
    channel.setblocking(False)
    try:
        data, ancillary, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(12))
    except OSError:
        return 0
    for level, kind, value in ancillary:
        if data and level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return int(struct.unpack("3i", value[: 3 * array.array("i").itemsize])[0])
    return 0


def line_from(fd: int, seconds: float) -> str:
    """One line from `fd`, or what came before it was closed or `seconds` were over."""
    deadline, data = time.monotonic() + seconds, b""
    while not data.endswith(b"\n") and select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
        chunk = os.read(fd, 4096)
        if not chunk:
            break
        data += chunk
    return data.decode(errors="replace")


def _has_wdns(nsenter: str) -> bool:
    """Whether nsenter has --wdns (util-linux 2.38)."""
    child = tools.start([nsenter, "--help"], stdin=-3, stderr=-3)
    return b"--wdns" in child.communicate()[0]

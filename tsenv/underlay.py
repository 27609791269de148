"""The host underlay: tailscaled's outer sockets live on the host, without any privilege there.

WireGuard's packets leave a rootless session through pasta's tap, which costs most of their speed. But
tailscaled itself says which sockets ought not to be in the session. Each socket that must not be routed back
into the tailnet (WireGuard's UDP, the control server, DERP, upstream DNS) gets, before anything else is done
with it,

    setsockopt(fd, SOL_SOCKET, SO_MARK, 0x80000)

That one call is answered here. A seccomp filter stops tailscaled in it, and the supervisor, who lives in the
host's network namespace, puts a socket of the same kind, made there, over the caller's file descriptor:

    tailscaled (session)                 kernel                     supervisor (host)
    fd = socket()
    setsockopt(fd, SO_MARK) ───stops───▶ filter ──notification───▶  pidfd_getfd(fd): what is it?
                                                                    socket(same family, type, protocol)
    fd is the host's now  ◀──────────────────────────────ADDFD────  over the caller's fd
    0  ◀─────────────────────────────────────────────────SEND─────  answer 0
    bind(fd), connect(fd), epoll_ctl(fd) …                          (no packet ever passes here)

Why this moment: Go runs the hook that marks a socket after socket() and its default options, before bind,
connect and epoll. A fresh socket has no state but its options, so a twin can stand in for it; an fd that were
in an epoll set already would go on reporting the old socket.

Why it is allowed, with no privilege:

- The *launcher* is fake root in the session's user namespace. Its CAP_SYS_ADMIN there is what a filter needs,
  so no_new_privs stays off, and tailscaled's own children (Tailscale SSH's login) are not crippled by it.
- The *supervisor* owns that user namespace (same uid, made by its child, in the supervisor's own namespace),
  so it has every capability over it, CAP_SYS_PTRACE among them. That satisfies pidfd_getfd and /proc/PID/mem,
  also under Yama's ptrace_scope 1 and 2. (For 1, being tailscaled's parent would do.) Scope 3 forbids it to
  all.

What nobody gains: a marked socket is one that this user could open outside the session anyway. A command *in*
the session must nevertheless not reach the host that way (`--isolated`), so only tailscaled runs under the
filter, and of the processes under it (children inherit it) only tailscaled itself is served.

In all doubtful cases the kernel answers: SECCOMP_USER_NOTIF_FLAG_CONTINUE carries out the call as if there
were no filter. The manual warns that arguments may have changed since we looked at them. That matters to a
filter that forbids something; this one forbids nothing, and the worst that a caller can achieve is a mark on
its own socket.

This file is also a program, run by path in the session (so it imports nothing of this package, and little at
all: the supervisor stays resident with what it imports):

    python3 -I -S underlay.py --socket FD [--enter] -- CMD [ARG…]

With --enter it joins the namespaces that the supervisor sends it (send_namespaces): it may be started, and be through
with Python's own start, while these are still being made.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable  # noqa: TC003 -- loaded by os; `typing` to hide it is not

# ── Kernel constants, by header ─────────────────────────────────────────────────────────────────────────────
SOL_SOCKET = 1  # asm-generic/socket.h
SO_MARK = 36  # asm-generic/socket.h
SIOCGSKNS = 0x894C  # linux/sockios.h: the network namespace of a socket, as an fd
IPV6_V6ONLY = 26  # linux/in6.h

SECCOMP_SET_MODE_FILTER = 1  # linux/seccomp.h, as all SECCOMP_* here
SECCOMP_GET_NOTIF_SIZES = 3
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1 << 0
SECCOMP_ADDFD_FLAG_SETFD = 1 << 0

# struct seccomp_notif: id, pid, flags; data: nr, arch, instruction pointer, args[6]
NOTIF = struct.Struct("=QIIiIQ6Q")
# struct seccomp_notif_resp: id, val, error, flags
RESPONSE = struct.Struct("=QqiI")
# struct seccomp_notif_addfd: id, flags, srcfd, newfd, newfd_flags
ADDFD = struct.Struct("=QIIII")


def _ioc(direction: int, number: int, size: int) -> int:
    """Be _IOC of asm-generic/ioctl.h, for seccomp's `!` (SECCOMP_IOC_MAGIC); 1 writes, 3 does both."""
    return direction << 30 | size << 16 | ord("!") << 8 | number


SECCOMP_IOCTL_NOTIF_RECV = _ioc(3, 0, NOTIF.size)
SECCOMP_IOCTL_NOTIF_SEND = _ioc(3, 1, RESPONSE.size)
SECCOMP_IOCTL_NOTIF_ID_VALID = _ioc(1, 2, 8)
SECCOMP_IOCTL_NOTIF_ADDFD = _ioc(1, 3, ADDFD.size)

BPF_LOAD_WORD = 0x20  # linux/bpf_common.h: BPF_LD | BPF_W | BPF_ABS
BPF_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
BPF_RETURN = 0x06  # BPF_RET | BPF_K
# linux/filter.h, struct sock_filter: code, jump if true, jump if false, k; struct sock_fprog: length, pointer
INSTRUCTION = struct.Struct("=HBBI")
PROGRAM = struct.Struct("@HP")

# linux/seccomp.h, struct seccomp_data: where its fields lie. An argument is 64 bits wide, low half first.
DATA_NUMBER, DATA_ARCH, DATA_ARGS = 0, 4, 16

PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38  # linux/prctl.h
CLONE_NEWUSER = 0x10000000  # linux/sched.h
SYS_PIDFD_GETFD = 438  # asm-generic/unistd.h: one number for all architectures

# tailscaled's bypass mark, and the bits of the mark that are Tailscale's (tsconst/linuxfw.go)
BYPASS_MARK, MARK_MASK = 0x80000, 0xFF0000

# ── Both sides ──────────────────────────────────────────────────────────────────────────────────────────────
EXIT_UNAVAILABLE = 69  # sysexits.h, EX_UNAVAILABLE: the filter cannot be had; nothing was started
LISTENER_FOLLOWS = b"\0"  # what the launcher says with the listener; a reason is text, so never this
NAMESPACES_FOLLOW = b"N"
NAMESPACES = ("user", "net", "mnt")  # in the order in which they are joined
TRIAL_SECONDS = 2.0


class UnderlayUnavailable(Exception):  # noqa: N818 -- a state to fall back from, not an error
    """Sockets cannot be swapped here; str() is the reason, one line."""


class Arch:
    """What one architecture calls things: AUDIT_ARCH_* (linux/audit.h) and its syscalls (asm/unistd.h)."""

    __slots__ = ("audit", "seccomp", "setsockopt")

    def __init__(self, audit: int, setsockopt: int, seccomp: int) -> None:
        """Take the kernel's numbers."""
        self.audit = audit
        self.setsockopt = setsockopt
        self.seccomp = seccomp


ARCHES = {
    "x86_64": Arch(audit=0xC000003E, setsockopt=54, seccomp=317),
    "aarch64": Arch(audit=0xC00000B7, setsockopt=208, seccomp=277),
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _syscall(name: str, number: int, *arguments: int | bytes) -> int:
    """Call the kernel; OSError names the call.

    Integers go as longs: ints in a variadic call would leave the registers' upper halves unset.
    """
    wide = (a if isinstance(a, bytes) else ctypes.c_long(a) for a in (number, *arguments))
    result = int(_libc.syscall(*wide))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def describe(error: OSError) -> str:
    """Say what failed, in one line and without the number."""
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)


def native_arch() -> Arch:
    """Return this machine's numbers; UnderlayUnavailable where the filter is not known to be right."""
    machine = os.uname().machine
    bits = 8 * struct.calcsize("P")  # a 32-bit Python on a 64-bit kernel has another table of syscalls
    if machine not in ARCHES or bits != 64 or sys.byteorder != "little":  # noqa: PLR2004
        reason = f"no socket swap for this architecture ({machine}, {bits} bit)"
        raise UnderlayUnavailable(reason)
    return ARCHES[machine]


def _ioctl(fd: int, request: int, argument: bytearray) -> int:
    """Call ioctl, again after a signal (Python's handlers interrupt it): seccomp's are then undone."""
    while True:
        try:
            return int(fcntl.ioctl(fd, request, argument))
        except InterruptedError:
            continue


# ── The launcher's side ─────────────────────────────────────────────────────────────────────────────────────
def filter_program(arch: Arch) -> bytes:
    """Build the BPF program: notify of setsockopt(_, SOL_SOCKET, SO_MARK, …), allow all else.

    Only the native ABI is looked at. Calls of another (i386: its own audit arch; x32: bit 30 set in the
    number, so never equal) are allowed, which means no more than that such a program's sockets stay in the
    session. Level and name are C ints: the kernel ignores the upper half of these arguments, and so must we.
    """
    conditions = (
        (DATA_ARCH, arch.audit),
        (DATA_NUMBER, arch.setsockopt),
        (DATA_ARGS + 8, SOL_SOCKET),
        (DATA_ARGS + 16, SO_MARK),
    )
    code = b""
    for index, (offset, wanted) in enumerate(conditions):
        # Over the conditions left, of two instructions each, and the notification.
        to_allow = 2 * (len(conditions) - index) - 1
        code += INSTRUCTION.pack(BPF_LOAD_WORD, 0, 0, offset)
        code += INSTRUCTION.pack(BPF_JUMP_EQUAL, 0, to_allow, wanted)
    code += INSTRUCTION.pack(BPF_RETURN, 0, 0, SECCOMP_RET_USER_NOTIF)
    code += INSTRUCTION.pack(BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW)
    return code


def install_filter() -> int:
    """Put the filter on this thread, for good, and return its listener (close-on-exec)."""
    arch = native_arch()
    code = filter_program(arch)
    buffer = ctypes.create_string_buffer(code, len(code))  # must outlive the call: the program points to it
    program = PROGRAM.pack(len(code) // INSTRUCTION.size, ctypes.addressof(buffer))
    flags = SECCOMP_FILTER_FLAG_NEW_LISTENER
    try:
        return _syscall("seccomp", arch.seccomp, SECCOMP_SET_MODE_FILTER, flags, program)
    except OSError as error:
        # EINVAL: a kernel before 5.0. EPERM, ENOSYS: a sandbox. EBUSY: a sandbox that has a listener itself.
        raise UnderlayUnavailable(error.strerror) from error


def hand_over(supervisor: socket.socket) -> bool:
    """Install the filter and send its listener (or the reason why not); True when the supervisor has it.

    The acknowledgement is waited for: without a listener every SO_MARK would fail with ENOSYS.
    """
    try:
        listener = install_filter()
    except UnderlayUnavailable as reason:
        supervisor.send(str(reason).encode())
        return False
    socket.send_fds(supervisor, [LISTENER_FOLLOWS], [listener])
    os.close(listener)  # else the filter's end would never show as a hang-up on the supervisor's copy
    return supervisor.recv(1) != b""


def enter(supervisor: socket.socket) -> None:
    """Join the namespaces that come over the socket, as `nsenter --preserve-credentials` does; OSError if refused.

    The user namespace is first: joining it gives the capabilities that joining the others takes.
    """
    _, namespaces, _, _ = socket.recv_fds(supervisor, 16, len(NAMESPACES))
    if len(namespaces) != len(NAMESPACES):
        raise OSError(errno.EPIPE, "the supervisor is gone")
    libc = ctypes.CDLL(None, use_errno=True)
    for namespace in namespaces:
        if libc.setns(namespace, 0):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(namespace)
    os.chdir("/")


def launch(arguments: list[str]) -> int:
    """Be the program: take on the filter and become CMD. Returns an exit status only where that fails."""
    entering = arguments[2:3] == ["--enter"]
    match arguments[:2] + arguments[2 + entering :]:
        case ["--socket", number, "--", *command] if number.isdecimal() and command:
            pass
        case _:
            sys.stderr.write("usage: underlay.py --socket FD [--enter] -- CMD [ARG...]\n")
            return 2
    with socket.socket(fileno=int(number)) as supervisor:
        try:
            if entering:
                enter(supervisor)
            if not hand_over(supervisor):
                return EXIT_UNAVAILABLE
        except OSError:  # the supervisor died meanwhile; its session goes with it
            return EXIT_UNAVAILABLE
    return become(command)


def become(command: list[str]) -> int:
    """Exec the command with the signals as they were; 127 or 126 where it cannot be."""
    import signal  # only the launcher needs it

    # Python ignores these two at start, and what is ignored stays so across exec.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"tsenv: cannot run {command[0]}: {error.strerror}\n")
        return 127 if error.errno == errno.ENOENT else 126


# ── The supervisor's side ───────────────────────────────────────────────────────────────────────────────────
def send_namespaces(launcher: socket.socket, pid: int) -> None:
    """Let a launcher that was started with --enter join the namespaces of process `pid`."""
    namespaces = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in NAMESPACES]
    try:
        socket.send_fds(launcher, [NAMESPACES_FOLLOW], namespaces, socket.MSG_NOSIGNAL)
    except OSError as error:
        raise UnderlayUnavailable("the launcher ended too early") from error
    finally:
        for namespace in namespaces:
            os.close(namespace)


def receive_listener(launcher: socket.socket, deadline: float) -> int:
    """Take the listener from the launcher and let it go on. The listener is the caller's to close.

    `deadline` is an instant of time.monotonic(). UnderlayUnavailable carries the launcher's reason, or that
    it ended or said nothing in time. A late one waits for our answer: close the socket, and it exits.
    """
    poll = select.poll()
    poll.register(launcher, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise UnderlayUnavailable("the launcher sent no seccomp listener in time")
    try:
        message, fds, _, _ = socket.recv_fds(launcher, 1024, 1, socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        raise UnderlayUnavailable("the launcher ended too early") from error
    if message != LISTENER_FOLLOWS:
        raise UnderlayUnavailable(message.decode(errors="replace") or "the launcher ended too early")
    if not fds:  # the kernel drops an fd that it finds no room for (MSG_CTRUNC)
        raise UnderlayUnavailable("no room for the seccomp listener: too many open files")
    try:
        launcher.send(LISTENER_FOLLOWS, socket.MSG_NOSIGNAL)
    except OSError as error:
        os.close(fds[0])
        raise UnderlayUnavailable("the launcher ended too early") from error
    return fds[0]


def notification_sizes() -> tuple[int, int]:
    """Return the kernel's sizes of a notification and a response: a newer one may write more than we know."""
    buffer = ctypes.create_string_buffer(6)  # struct seccomp_notif_sizes: three u16
    _syscall("seccomp", native_arch().seccomp, SECCOMP_GET_NOTIF_SIZES, 0, ctypes.addressof(buffer))
    notification, response, _ = struct.unpack("=HHH", buffer.raw)
    return max(notification, NOTIF.size), max(response, RESPONSE.size)


class MarkCall:
    """One setsockopt(fd, SOL_SOCKET, SO_MARK, value_at, length) that waits for its answer."""

    __slots__ = ("fd", "ident", "length", "thread", "value_at")

    def __init__(self, notification: bytes | bytearray) -> None:
        """Parse a struct seccomp_notif. C ints are cut to 32 bits, as the kernel does."""
        self.ident, self.thread, *_, fd, _, _, self.value_at, length, _ = NOTIF.unpack_from(notification)
        self.fd = ctypes.c_int(fd).value
        self.length = ctypes.c_int(length).value


# The host's refusals of a kind of socket: raw ICMP without privilege; no IPv6, no MPTCP on the host.
REFUSALS = {
    errno.EPERM,
    errno.EACCES,
    errno.EAFNOSUPPORT,
    errno.EPROTONOSUPPORT,
    errno.ESOCKTNOSUPPORT,
    errno.ENOPROTOOPT,
}
# What the caller did wrong, for the kernel to tell it: no such fd, not a socket, a pointer to nowhere.
CALLERS_FAULTS = {errno.EBADF, errno.ENOTSOCK, errno.EIO}
# The caller was killed, stopped or interrupted by a signal. If it lives it repeats the call.
GONE = {errno.ENOENT, errno.ESRCH}

SWAPPED, REPEATED, KEPT, FAILED, LOST = "swapped", "repeated", "kept", "failed", "lost"

# What may have been set on a fresh socket: Go's default options, SO_REUSEPORT of Tailscale's peer relay.
# (Buffer sizes, path MTU discovery, UDP offloads, keep-alive and so on follow later, on the swapped socket.)
SOCKET_OPTIONS = (socket.SO_REUSEADDR, socket.SO_REUSEPORT, socket.SO_BROADCAST)


def is_fresh(theirs: socket.socket) -> bool:
    """Tell whether the socket is not bound, connected or listening: all of these need a local address."""
    address, port, *_ = theirs.getsockname()
    # A raw socket's port is its protocol, from the start.
    numbered = port != 0 and theirs.type != socket.SOCK_RAW
    return address in {"0.0.0.0", "::"} and not numbered  # noqa: S104 -- compared, not bound


def make_twin(theirs: socket.socket) -> socket.socket | None:
    """Make a fresh socket here that behaves like theirs; None where the host refuses that kind of socket."""
    try:
        ours = socket.socket(theirs.family, theirs.type, theirs.proto)
    except OSError as error:
        if error.errno in REFUSALS:
            return None
        raise
    try:
        for option in SOCKET_OPTIONS:
            _copy_option(theirs, ours, SOL_SOCKET, option)
        if theirs.family == socket.AF_INET6:
            # Go sets it either way; a udp6 socket must leave its port's IPv4 half to the one for udp4.
            _copy_option(theirs, ours, socket.IPPROTO_IPV6, IPV6_V6ONLY)
        os.set_blocking(ours.fileno(), os.get_blocking(theirs.fileno()))  # Go's do not block, and rely on it
    except BaseException:
        ours.close()
        raise
    return ours


def _copy_option(theirs: socket.socket, ours: socket.socket, level: int, option: int) -> None:
    value = theirs.getsockopt(level, option)
    if value != ours.getsockopt(level, option):
        ours.setsockopt(level, option, value)


class SocketSwap:
    """The supervisor's end of one tailscaled's filter: when it is readable, call `handle`.

    swapped, kept, failed: how many sockets became the host's; how many calls were left to the kernel as they
    should be (another mark, no internet socket, bound already, not tailscaled's, refused by the host); how
    many should have been swapped and were not. The latter stay in the session, where pasta carries them:
    slower, not broken. `reason` is the last failure; `log` gets each different one once.
    closed: no process is left under the filter, or `close` was called. The fd stays readable: unregister it.
    """

    BATCH = 64  # calls served in one go, so that the loop's other events have their turn

    def __init__(self, listener: int, pid: int, log: Callable[[str], None] = lambda _: None) -> None:
        """Own `listener` from now on, also on failure. `pid` is tailscaled's, a child not yet waited for.

        (Thus the number cannot have been given to another process. OSError: it is gone already.)
        """
        self.swapped = self.kept = self.failed = 0
        self.reason: str | None = None
        self.closed = False
        self._told: set[int | None] = set()
        self._listener, self._process, self._pid, self._log = listener, -1, pid, log
        try:
            # The notification names a thread. Files are looked up by process, and the same for all threads.
            self._process = os.pidfd_open(pid)
            self._own_netns = os.stat("/proc/self/ns/net").st_ino
            self._notification_size, self._response_size = notification_sizes()
        except BaseException:
            self.close()
            raise
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)

    def fileno(self) -> int:
        """Return the listener, for selectors."""
        return self._listener

    def close(self) -> None:
        """Let go of the listener: SO_MARK now fails with ENOSYS in what still runs under the filter."""
        for fd in (self._listener, self._process):
            if fd >= 0:
                os.close(fd)
        self._listener = self._process = -1
        self.closed = True

    def handle(self) -> None:
        """Answer the calls that wait, without ever blocking on one that does not come."""
        for _ in range(self.BATCH):
            # NOTIF_RECV sleeps when nothing is pending and knows no O_NONBLOCK, so ask first. We are the only
            # reader, and a caller killed in between makes it return ENOENT.
            events = 0 if self.closed else next((event for _, event in self._poll.poll(0)), 0)
            if not events & select.POLLIN:
                self.closed = self.closed or events != 0  # POLLHUP: the last process under the filter is gone
                return
            call = self._receive()
            if call is not None:
                self._answer(call, done=self._settle(call))

    def _receive(self) -> MarkCall | None:
        buffer = bytearray(self._notification_size)  # must be zeroes: the kernel checks
        try:
            _ioctl(self._listener, SECCOMP_IOCTL_NOTIF_RECV, buffer)
        except OSError as error:
            if error.errno in GONE:
                return None
            raise
        return MarkCall(buffer)

    def _answer(self, call: MarkCall, *, done: bool) -> None:
        """Say 0 for a call that is done, else hand it to the kernel."""
        response = bytearray(self._response_size)
        RESPONSE.pack_into(response, 0, call.ident, 0, 0, 0 if done else SECCOMP_USER_NOTIF_FLAG_CONTINUE)
        try:
            _ioctl(self._listener, SECCOMP_IOCTL_NOTIF_SEND, response)
        except OSError as error:
            if error.errno not in GONE:
                raise

    def _settle(self, call: MarkCall) -> bool:
        """Swap the call's socket if it is one to swap; True when nothing is left for the kernel to do."""
        try:
            outcome = self._swap(call)
        except OSError as error:
            outcome = self._excuse(error)
        self.swapped += outcome == SWAPPED
        self.kept += outcome == KEPT
        self.failed += outcome == FAILED
        return outcome in {SWAPPED, REPEATED}

    def _swap(self, call: MarkCall) -> str:
        if not self._is_bypass(call):
            return KEPT
        with self._borrow(call) as theirs:
            if theirs.family not in {socket.AF_INET, socket.AF_INET6}:
                return KEPT
            # Marked again; or the answer to the swap was lost to a signal, and the call is repeated. The
            # kernel would say EPERM: over the host's namespace tailscaled has no capability.
            if self._is_ours(theirs):
                return REPEATED
            ours = make_twin(theirs) if is_fresh(theirs) else None
            if ours is None:
                return KEPT
            with ours:
                self._put_over(call, ours)
        return SWAPPED

    def _is_ours(self, theirs: socket.socket) -> bool:
        """Tell whether the socket lies in our network namespace already, and not in the session's.

        Without privilege the kernel does not show us our own namespace (EPERM), but it does show the
        session's, which we own. So a refusal means ours. (SO_NETNS_COOKIE is plainer, but from 5.14 on.)
        """
        try:
            namespace = fcntl.ioctl(theirs.fileno(), SIOCGSKNS)
        except PermissionError:
            return True
        try:
            return os.fstat(namespace).st_ino == self._own_netns
        finally:
            os.close(namespace)

    def _excuse(self, error: OSError) -> str:
        """Classify an error of a swap, and tell of a failure once."""
        if error.errno in GONE:
            return LOST
        if error.errno in CALLERS_FAULTS:
            return KEPT
        self.reason = describe(error)
        if error.errno not in self._told:  # not by text, which may name a thread
            self._told.add(error.errno)
            self._log(f"a socket of tailscaled stays in the session: {self.reason}")
        return FAILED

    def _is_bypass(self, call: MarkCall) -> bool:
        """Tell whether it is tailscaled itself that asks, and for its bypass mark.

        A thread that is not in our process's task directory is a child's (Tailscale SSH, ip): not served.
        """
        if call.length < ctypes.sizeof(ctypes.c_int):
            return False
        try:
            memory = os.open(f"/proc/{self._pid}/task/{call.thread}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            value = os.pread(memory, ctypes.sizeof(ctypes.c_int), call.value_at)
        except OverflowError:  # a pointer into the kernel's half of the addresses
            return False
        finally:
            os.close(memory)
        return int.from_bytes(value, sys.byteorder) & MARK_MASK == BYPASS_MARK

    def _borrow(self, call: MarkCall) -> socket.socket:
        """Return our own descriptor of the caller's socket, which knows its family, type and protocol."""
        copy = _syscall("pidfd_getfd", SYS_PIDFD_GETFD, self._process, call.fd, 0)
        try:
            # Is it still the same call? Then what we read and hold is its thread's, no namesake's.
            _ioctl(self._listener, SECCOMP_IOCTL_NOTIF_ID_VALID, bytearray(struct.pack("=Q", call.ident)))
            return socket.socket(fileno=copy)
        except BaseException:
            os.close(copy)
            raise

    def _put_over(self, call: MarkCall, ours: socket.socket) -> None:
        """Replace the caller's descriptor.

        Always close-on-exec: whether the old one was cannot be seen, and none may pass to tailscaled's
        children.

        SECCOMP_ADDFD_FLAG_SEND would add and answer at once, but with the fd's number where setsockopt means
        0. The ioctl waits for the caller to take the descriptor; ESRCH if that is stopped or killed.
        """
        request = ADDFD.pack(call.ident, SECCOMP_ADDFD_FLAG_SETFD, ours.fileno(), call.fd, os.O_CLOEXEC)
        try:
            _ioctl(self._listener, SECCOMP_IOCTL_NOTIF_ADDFD, bytearray(request))
        except OSError as error:
            raise OSError(error.errno, f"SECCOMP_IOCTL_NOTIF_ADDFD: {error.strerror}") from error


# ── Can it be done here? ────────────────────────────────────────────────────────────────────────────────────
class _TrialSwap(SocketSwap):
    """Swaps a socket of our own namespace too, so that the trial needs no second one."""

    def _is_ours(self, theirs: socket.socket) -> bool:
        del theirs
        return False


def probe() -> str | None:
    """Return why sockets cannot be swapped here, or None. A few milliseconds; it leaves nothing behind.

    Versions tell little (backports, sandboxes, security modules), so a short-lived child's socket is swapped.
    """
    try:
        notification_sizes()  # the cheap noes first: the architecture, a kernel before 5.0
        return _trial()
    except UnderlayUnavailable as reason:
        return str(reason)
    except OSError as error:
        return describe(error)


def _trial() -> str | None:
    deadline = time.monotonic() + TRIAL_SECONDS
    ours, childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with childs:
            child = os.fork()
            if child == 0:
                ours.close()
                _be_trial_child(childs)
        try:
            return _swap_for(child, receive_listener(ours, deadline), deadline)
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)


def _swap_for(child: int, listener: int, deadline: float) -> str | None:
    swap = _TrialSwap(listener, child)
    try:
        if not select.select([swap], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return "the trial of a socket swap took too long"
        swap.handle()
        return None if swap.swapped else swap.reason or "the trial of a socket swap failed"
    finally:
        swap.close()


def _be_trial_child(supervisor: socket.socket) -> None:
    """Be like tailscaled for one call: in a user namespace where we may have one, and never return."""
    try:
        _libc.unshare(CLONE_NEWUSER)  # Yama's scope 2 asks for it (see the top); a refusal matters nowhere else
        _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # The supervisor shows itself to nobody (scrub.keep_private); tailscaled, executed anew, can be looked at.
        _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
        if hand_over(supervisor):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as marked:
                marked.setsockopt(SOL_SOCKET, SO_MARK, BYPASS_MARK)
    finally:
        os._exit(0)


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))

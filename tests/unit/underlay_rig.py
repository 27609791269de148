"""A small supervisor for one target, run as an unprivileged user: prints what it and the target saw as JSON.

    underlay_rig.py MODE SCENARIO ARG…

MODE is "plain" or a function below that gets in the way. SCENARIO is one of underlay_target.py's, "probe", or
"exec" and a command.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import underlay  # noqa: E402 -- a copy beside this file

SYS_IOCTL = {"x86_64": 16, "aarch64": 29}
SYS_SECCOMP = {name: arch.seccomp for name, arch in underlay.ARCHES.items()}
RET_ERRNO = 0x00050000  # linux/seccomp.h: SECCOMP_RET_ERRNO


def deny(number: int, code: int, second_argument: int | None = None) -> None:
    """Let a syscall (with that second argument) fail in this process from now on: a sandbox or an older kernel."""
    conditions = [(0, number)] + ([(24, second_argument)] if second_argument is not None else [])
    program = b""
    for index, (offset, wanted) in enumerate(conditions):
        program += struct.pack("=HBBI", 0x20, 0, 0, offset)
        program += struct.pack("=HBBI", 0x15, 0, 2 * (len(conditions) - index) - 1, wanted)
    program += struct.pack("=HBBI", 0x06, 0, 0, RET_ERRNO | code) + struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, header, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def no_pidfd_getfd() -> None:
    deny(438, errno.EPERM)


def old_pidfd_getfd() -> None:
    deny(438, errno.ENOSYS)


def no_addfd() -> None:
    deny(SYS_IOCTL[os.uname().machine], errno.EINVAL, underlay.SECCOMP_IOCTL_NOTIF_ADDFD)


def no_seccomp() -> None:
    deny(SYS_SECCOMP[os.uname().machine], errno.EPERM)


def leave_descriptors(count: int) -> None:
    """Lower the limit so far that only so many more descriptors can be had."""
    used = {int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}
    limit = 0
    while count >= 0:
        count -= limit not in used
        limit += 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit - 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def no_descriptor_left(swap: underlay.SocketSwap, target: subprocess.Popen[str]) -> None:
    """Not even the caller's memory can be opened."""
    del swap, target
    leave_descriptors(0)


def one_descriptor_left(swap: underlay.SocketSwap, target: subprocess.Popen[str]) -> None:
    """The caller's socket fits, its twin does not."""
    del swap, target
    leave_descriptors(1)


def two_descriptors_left(swap: underlay.SocketSwap, target: subprocess.Popen[str]) -> None:
    """Just enough."""
    del swap, target
    leave_descriptors(2)


def caller_killed(swap: underlay.SocketSwap, target: subprocess.Popen[str]) -> None:
    """Receive the notification, then kill the caller before it is answered."""
    call = swap._receive()
    assert call is not None
    target.kill()
    target.wait()
    swap._answer(call, done=swap._settle(call))


def killed_before_receive(swap: underlay.SocketSwap, target: subprocess.Popen[str]) -> None:
    """Kill the caller between our poll and our receive."""
    target.kill()
    target.wait()
    assert swap._receive() is None


def caller_stopped(swap: underlay.SocketSwap, target: subprocess.Popen[str]) -> None:
    """Stop the caller in its call; later it goes on and repeats the call."""
    target.send_signal(signal.SIGSTOP)
    while "T (stopped)" not in open(f"/proc/{target.pid}/status").read():  # noqa: SIM115
        time.sleep(0.005)
    start = time.monotonic()
    swap.handle()
    assert time.monotonic() - start < 1, "the supervisor hung on a stopped caller"
    assert swap.swapped == 0
    target.send_signal(signal.SIGCONT)


def restarted_after_swap(swap: underlay.SocketSwap, target: subprocess.Popen[str]) -> None:
    """Lose the answer to a swap that was done: the repeated call finds the fd swapped."""
    call = swap._receive()
    assert call is not None
    assert swap._settle(call)
    target.send_signal(signal.SIGSTOP)
    time.sleep(0.1)
    swap._answer(call, done=True)  # the id is gone: no error
    target.send_signal(signal.SIGCONT)


def supervisor_signalled(swap: underlay.SocketSwap, target: subprocess.Popen[str]) -> None:
    """Have a handler that interrupts our own system calls."""
    del swap, target
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)


AT_START = {f.__name__: f for f in (no_pidfd_getfd, old_pidfd_getfd, no_addfd, no_seccomp)}
AT_FIRST_CALL = {
    f.__name__: f
    for f in (
        caller_killed,
        killed_before_receive,
        caller_stopped,
        restarted_after_swap,
        supervisor_signalled,
        no_descriptor_left,
        one_descriptor_left,
        two_descriptors_left,
    )
}


def start(target: list[str]) -> tuple[subprocess.Popen[str], socket.socket]:
    """Start the target in a session of its own, as tsenv does: fake root, the launcher, exec."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        program = [
            *("unshare", "--user", "--map-root-user", "--net", "--"),
            *("sh", "-c", 'ip link set lo up; exec "$@"', "sh"),
            *(
                sys.executable,
                "-I",
                "-S",
                os.path.join(HERE, "underlay.py"),
                "--socket",
                str(theirs.fileno()),
            ),
            "--",
            *target,
        ]
        process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, pass_fds=[theirs.fileno()])
    return process, ours


def serve(mode: str, swap: underlay.SocketSwap, target: subprocess.Popen[str]) -> str:
    """Serve until the target has ended; return its output."""
    assert target.stdout is not None
    first = AT_FIRST_CALL.get(mode)
    with selectors.DefaultSelector() as selector:
        selector.register(swap, selectors.EVENT_READ)
        selector.register(target.stdout, selectors.EVENT_READ)
        output = ""
        while selector.get_map():
            for key, _ in selector.select(timeout=30) or sys.exit("the target hangs"):
                if key.fileobj is swap:
                    if first:
                        first(swap, target)
                        first = None
                    swap.handle()
                    if swap.closed:
                        selector.unregister(swap)
                else:
                    chunk = os.read(key.fd, 65536).decode()
                    output += chunk
                    if not chunk:
                        selector.unregister(target.stdout)
        signal.setitimer(signal.ITIMER_REAL, 0)
    return output


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def main(mode: str, *scenario: str) -> dict[str, object]:
    AT_START.get(mode, lambda: None)()
    if scenario[0] == "probe":
        before = open_fds()
        return {"probe": underlay.probe(), "leaked": open_fds() - before}
    if scenario[0] == "orphan":
        scenario = ("orphan", str(os.getpid()), *scenario[1:])
    command = [sys.executable, "-B", os.path.join(HERE, "underlay_target.py"), *scenario]
    target, launcher = start(list(scenario[1:]) if scenario[0] == "exec" else command)
    with launcher:
        try:
            listener = underlay.receive_listener(launcher, time.monotonic() + 10)
        except underlay.UnderlayUnavailable as reason:
            launcher.close()
            return {"unavailable": str(reason), "status": target.wait(10)}
    said: list[str] = []
    swap = underlay.SocketSwap(listener, target.pid, said.append)
    if scenario[0] == "orphan":
        os._exit(0)
    before = open_fds()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    start_time, cpu = time.monotonic(), time.process_time()
    output = serve(mode, swap, target)
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    result = {
        "target": output if scenario[0] == "exec" else json.loads(output or "null"),
        "status": target.wait(10),
        "counts": [swap.swapped, swap.kept, swap.failed],
        "reason": swap.reason,
        "said": said,
        "leaked": open_fds() - before,
        "hung up": swap.closed,
        "seconds": time.monotonic() - start_time,
        "cpu": time.process_time() - cpu,
        "host": own_cookie(),
        "uid": os.getuid(),
    }
    swap.close()
    swap.close()  # harmless
    return result


def own_cookie() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, 71, 8), sys.byteorder)  # SO_NETNS_COOKIE


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])), flush=True)

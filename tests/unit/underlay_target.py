"""What tailscaled does to its sockets, and what it might: run under the filter, prints one JSON object."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

SO_MARK, SO_NETNS_COOKIE = 36, 71
BYPASS = 0x80000
libc = ctypes.CDLL(None, use_errno=True)


def cookie(sock: socket.socket) -> int:
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder)


def mark(fd: int, value: int = BYPASS, length: int = 4, pointer: int | None = None) -> str:
    """Return the errno's name, "OK" for 0, else the odd result."""
    number = ctypes.c_int(value)
    at = ctypes.c_void_p(pointer) if pointer is not None else ctypes.byref(number)
    result = libc.setsockopt(fd, socket.SOL_SOCKET, SO_MARK, at, length)
    return "OK" if result == 0 else errno.errorcode[ctypes.get_errno()] if result == -1 else f"result {result}"


def udp() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def swap() -> dict[str, object]:
    """A UDP and a TCP socket, both families, with the options that Go sets."""
    out: dict[str, object] = {}
    for name, family, kind in (
        ("udp4", socket.AF_INET, socket.SOCK_DGRAM),
        ("udp6", socket.AF_INET6, socket.SOCK_DGRAM),
        ("tcp4", socket.AF_INET, socket.SOCK_STREAM),
        ("tcp6", socket.AF_INET6, socket.SOCK_STREAM),
    ):
        with socket.socket(family, kind) as sock:
            sock.setblocking(name.startswith("tcp"))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(name == "udp4"))
            if kind == socket.SOCK_DGRAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(name == "udp6"))
            before, fd = cookie(sock), sock.fileno()
            result = mark(fd)
            twin = socket.socket(fileno=os.dup(fd))  # family, type and protocol as the kernel tells them
            out[name] = {
                "result": result,
                "before": before,
                "after": cookie(sock),
                "same_kind": [
                    twin.family == family,
                    twin.type == kind,
                    twin.proto == sock.proto or twin.proto,
                ],
                "blocking": os.get_blocking(fd),
                "cloexec": bool(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC),
                "reuseaddr": sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR),
                "reuseport": sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT),
                "broadcast": sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST),
                "v6only": sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) if "6" in name else None,
            }
            twin.close()
    return out


def talk() -> dict[str, object]:
    """Reach the host's loopback with a marked socket, and not without the mark."""
    port, out = int(sys.argv[2]), {}
    for name, marked in (("marked", True), ("unmarked", False)):
        with socket.socket() as sock:
            if marked:
                mark(sock.fileno())
            sock.settimeout(5)
            out[name] = sock.connect_ex(("127.0.0.1", port))
    return out


def in_thread() -> dict[str, object]:
    """Mark in threads that are not the leader, several at once."""
    out: list[object] = []

    def one() -> None:
        with udp() as sock:
            before = cookie(sock)
            out.append([mark(sock.fileno()), cookie(sock) != before, threading.get_native_id() != os.getpid()])

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"all": out}


def twice() -> dict[str, object]:
    with udp() as sock:
        first, one = mark(sock.fileno()), cookie(sock)
        inode = os.fstat(sock.fileno()).st_ino
        sock.bind(("127.0.0.1", 0))
        second, two = mark(sock.fileno()), cookie(sock)
        return {"results": [first, second], "same": one == two and inode == os.fstat(sock.fileno()).st_ino}


def faults() -> dict[str, object]:
    """All that the kernel has to answer."""
    out: dict[str, object] = {"bad fd": mark(9999), "negative fd": mark(-1)}
    reading, writing = os.pipe()
    out["pipe"] = mark(reading)
    out["still a pipe"] = os.write(writing, b"x") == 1 and os.read(reading, 1) == b"x"
    with udp() as sock:
        session, fd = cookie(sock), sock.fileno()
        out["short"] = mark(fd, length=2)
        out["negative length"] = mark(fd, length=-1)
        out["null pointer"] = mark(fd, pointer=0)
        out["wild pointer"] = mark(fd, pointer=8)
        out["kernel pointer"] = mark(fd, pointer=0xFFFF_FFFF_8000_0000)
        out["other mark"] = mark(fd, value=0x40000)
        out["other mark set"] = sock.getsockopt(socket.SOL_SOCKET, SO_MARK)
        out["upper bits"] = mark(fd, value=0x1FF)
        out["all in session"] = cookie(sock) == session
        out["with foreign bits"] = mark(fd, value=0x7F080001)
        out["then swapped"] = cookie(sock) != session
    for name, family, kind, proto in (
        ("unix", socket.AF_UNIX, socket.SOCK_STREAM, 0),
        ("netlink", socket.AF_NETLINK, socket.SOCK_RAW, 0),
        ("packet", socket.AF_PACKET, socket.SOCK_DGRAM, 0),
        ("raw icmp", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    ):
        with socket.socket(family, kind, proto) as sock:
            result = mark(sock.fileno())
            out[name] = [result, sock.getsockopt(socket.SOL_SOCKET, SO_MARK)]
            out[f"{name} cookie"] = cookie(sock) == session
    with udp() as bound, socket.socket() as connecting, socket.socket() as listening:
        bound.bind(("127.0.0.1", 0))
        connecting.setblocking(False)
        listening.listen()
        connecting.connect_ex(listening.getsockname())
        out["in use"] = [mark(s.fileno()) for s in (bound, connecting, listening)]
        out["in use cookies"] = [cookie(s) == session for s in (bound, connecting, listening)]
    return out


def child() -> dict[str, object]:
    """A child inherits the filter; it is not served."""
    with udp() as sock:
        session = cookie(sock)
    code = (
        "import sys; sys.argv=['x','none']; sys.path.insert(0, sys.orig_argv[-1]); import underlay_target as t\n"
        "s = t.udp(); print(t.mark(s.fileno()), t.cookie(s))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, os.path.dirname(__file__)], capture_output=True, text=True, check=True
    )
    result, seen = done.stdout.split()
    with udp() as sock:
        own = mark(sock.fileno()), cookie(sock) != session
    return {"child": result, "child in session": int(seen) == session, "own": own}


def many() -> dict[str, object]:
    failures = 0
    for _ in range(500):
        with udp() as sock:
            before = cookie(sock)
            failures += mark(sock.fileno()) != "OK" or cookie(sock) == before
    return {"failures": failures, "fds": len(os.listdir("/proc/self/fd"))}


def signals() -> dict[str, object]:
    """Be interrupted all the time, as Go is by its own SIGURG."""
    count = 0

    def ring(*_: object) -> None:
        nonlocal count
        count += 1

    signal.signal(signal.SIGALRM, ring)
    signal.siginterrupt(signal.SIGALRM, False)
    signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
    out = many()
    signal.setitimer(signal.ITIMER_REAL, 0)
    return {**out, "signals": count > 0}


def others() -> dict[str, object]:
    """Calls that look alike are not notified: nobody answers here."""
    with udp() as sock:
        start = time.monotonic()
        for option in (socket.SO_BROADCAST, socket.SO_REUSEADDR, socket.SO_KEEPALIVE):
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 36)
        found = sock.getsockopt(socket.SOL_SOCKET, SO_MARK)
        level = errno.errorcode.get(0, "OK")
        if libc.setsockopt(sock.fileno(), socket.IPPROTO_IP, SO_MARK, ctypes.byref(ctypes.c_int(0)), 4):
            level = errno.errorcode[ctypes.get_errno()]
        return {"mark": found, "level ip": level, "quick": time.monotonic() - start < 1}


def status() -> dict[str, object]:
    with open("/proc/self/status") as lines:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in lines)
    return {
        "Seccomp": fields["Seccomp"],
        "NoNewPrivs": fields["NoNewPrivs"],
        "SigIgn": fields["SigIgn"],
        "fds": [fd for fd in os.listdir("/proc/self/fd") if int(fd) > 2 and os.path.exists(f"/proc/self/fd/{fd}")],
        "argv": sys.argv[1:],
    }


def orphan() -> dict[str, object]:
    """Wait until the supervisor is dead, then mark, and write to the file given: nobody reads our output then."""
    while os.getppid() == int(sys.argv[2]):
        time.sleep(0.01)
    with udp() as sock, open(sys.argv[3], "w") as file:
        file.write(mark(sock.fileno()))
    return {}


def mark_and_wait() -> dict[str, object]:
    """Mark once; whoever holds the answer back may stop or kill us meanwhile."""
    with udp() as sock:
        before = cookie(sock)
        return {"result": mark(sock.fileno()), "swapped": cookie(sock) != before}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()), flush=True)

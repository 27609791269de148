"""The socket swap, with real filters and real namespaces, by an unprivileged user where there is one.

underlay_rig.py is a small supervisor, underlay_target.py does what tailscaled does (and what it might do).
"""

from __future__ import annotations

import functools
import json
import os
import pwd
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tsenv import underlay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Rig = Callable[..., Any]

HERE = Path(__file__).parent
LINE = 1 << 32


def ordinary_user() -> int | None:
    """The uid to run as: nobody's where we are root, else our own."""
    return pwd.getpwnam("nobody").pw_uid if os.getuid() == 0 else None


@functools.cache
def interpreter() -> str:
    """A Python that the ordinary user may execute: root's own one may lie in /root."""
    for python in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        command = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            if subprocess.run(command, user=ordinary_user(), check=False, cwd="/", capture_output=True).returncode == 0:
                return python
        except OSError:
            continue
    pytest.skip("no Python that an ordinary user can execute")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """Run underlay_rig.py, from a folder that everybody can read, and return what it prints."""
    with tempfile.TemporaryDirectory(prefix="tsenv-underlay-") as folder:
        os.chmod(folder, 0o755)
        for file in (Path(underlay.__file__), HERE / "underlay_rig.py", HERE / "underlay_target.py"):
            shutil.copy(file, folder)

        def run(mode: str, *scenario: str, root: bool = False) -> Any:
            uid = None if root else ordinary_user()
            done = subprocess.run(
                [interpreter(), "-B", f"{folder}/underlay_rig.py", mode, *scenario],
                user=uid,
                group=uid and pwd.getpwuid(uid).pw_gid,
                extra_groups=[] if uid else None,
                cwd="/",
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout) if done.stdout else None

        yield run


def test_marked_sockets_become_the_hosts_and_keep_their_options(rig: Rig) -> None:
    result = rig("plain", "swap")
    assert result["counts"] == [4, 0, 0]
    for name, seen in result["target"].items():
        assert seen["result"] == "OK"
        assert seen["before"] != seen["after"] == result["host"], name
        assert all(seen["same_kind"]), name
        assert seen["reuseaddr"] == 1
        assert seen["reuseport"] == (name == "udp4")
        assert seen["broadcast"] == name.startswith("udp")
        assert seen["v6only"] == {"udp6": 1, "tcp6": 0}.get(name)
        assert seen["blocking"] == name.startswith("tcp")
        assert seen["cloexec"], "tailscaled's children must not inherit a host socket"


def test_only_a_marked_socket_reaches_the_host(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = rig("plain", "talk", str(server.getsockname()[1]))["target"]
    assert result["marked"] == 0
    assert result["unmarked"] != 0


def test_threads_that_are_not_the_leader(rig: Rig) -> None:
    assert rig("plain", "in_thread")["target"] == {"all": [["OK", True, True]] * 8}


@pytest.mark.parametrize("root", [False, True])
def test_marking_twice_does_not_replace_a_socket_in_use(rig: Rig, root: bool) -> None:
    if root and os.getuid():
        pytest.skip("needs root: there the namespace is recognised in another way")
    result = rig("plain", "twice", root=root)
    assert result["target"] == {"results": ["OK", "OK"], "same": True}
    assert result["counts"][0] == 1


def test_the_kernel_answers_what_is_not_to_be_swapped(rig: Rig) -> None:
    result = rig("plain", "faults")
    stays = {name: ["OK", 0x80000] for name in ("unix", "netlink", "packet", "raw icmp")}
    assert result["target"] == {
        "bad fd": "EBADF",
        "negative fd": "EBADF",
        "pipe": "ENOTSOCK",
        "still a pipe": True,
        "short": "EINVAL",
        "negative length": "EINVAL",
        "null pointer": "EFAULT",
        "wild pointer": "EFAULT",
        "kernel pointer": "EFAULT",
        "other mark": "OK",
        "other mark set": 0x40000,
        "upper bits": "OK",
        "all in session": True,
        "with foreign bits": "OK",
        "then swapped": True,
        **stays,
        **{f"{name} cookie": True for name in stays},
        "in use": ["OK"] * 3,
        "in use cookies": [True] * 3,
    }
    assert result["counts"][0] == 1
    assert result["counts"][2] == 0, "none of it is a failure"


def test_a_child_of_tailscaled_gets_no_host_socket(rig: Rig) -> None:
    result = rig("plain", "child")["target"]
    assert result == {"child": "OK", "child in session": True, "own": ["OK", True]}


def test_other_calls_pass_unseen(rig: Rig) -> None:
    result = rig("plain", "others")
    assert result["target"] == {"mark": 0, "level ip": "EINVAL", "quick": True}
    assert result["counts"] == [0, 0, 0]


def test_what_the_command_is_given(rig: Rig) -> None:
    seen = rig("plain", "status", "a b", "--", "é'\"")["target"]
    assert seen["argv"] == ["status", "a b", "--", "é'\""]
    assert seen["fds"] == [], "neither the socket nor the listener may reach the command"
    assert (seen["Seccomp"], seen["NoNewPrivs"]) == ("2", "0")


def test_the_command_has_the_default_signals(rig: Rig) -> None:
    ignored = rig("plain", "exec", "grep", "SigIgn", "/proc/self/status")["target"]
    assert int(ignored.split()[1], 16) & (1 << 12 | 1 << 24) == 0  # SIGPIPE, SIGXFSZ: Python ignores them


@pytest.mark.parametrize(("command", "status"), [("/nonexistent", 127), ("/etc/passwd", 126), ("false", 1)])
def test_exit_statuses(rig: Rig, command: str, status: int) -> None:
    assert rig("plain", "exec", command)["status"] == status


@pytest.mark.parametrize("mode", ["plain", "supervisor_signalled"])
@pytest.mark.parametrize("scenario", ["many", "signals"])
def test_500_swaps_leak_nothing_and_survive_signals(rig: Rig, mode: str, scenario: str) -> None:
    result = rig(mode, scenario)
    assert result["counts"] == [500, 0, 0]
    assert result["leaked"] == 0
    assert result["target"]["failures"] == 0
    assert result["target"]["fds"] == 4  # its three, and the folder it lists
    assert result["target"].get("signals", True)


@pytest.mark.parametrize("mode", ["caller_stopped", "restarted_after_swap"])
def test_a_call_that_is_repeated_is_swapped_once(rig: Rig, mode: str) -> None:
    result = rig(mode, "mark_and_wait")
    assert result["target"] == {"result": "OK", "swapped": True}
    assert (result["counts"], result["leaked"]) == ([1, 0, 0], 0)


@pytest.mark.parametrize("mode", ["caller_killed", "killed_before_receive"])
def test_a_caller_that_dies_in_its_call(rig: Rig, mode: str) -> None:
    result = rig(mode, "mark_and_wait")
    assert result["status"] == -9
    assert (result["leaked"], result["hung up"], result["counts"][2]) == (0, True, 0)


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("no_pidfd_getfd", "pidfd_getfd: Operation not permitted"),
        ("old_pidfd_getfd", "pidfd_getfd: Function not implemented"),
        ("no_addfd", "SECCOMP_IOCTL_NOTIF_ADDFD: Invalid argument"),
        ("no_descriptor_left", "/mem: Too many open files"),
        ("one_descriptor_left", "Too many open files"),
    ],
)
def test_a_failing_swap_leaves_the_socket_in_the_session(rig: Rig, mode: str, reason: str) -> None:
    result = rig(mode, "mark_and_wait")
    assert result["target"] == {"result": "OK", "swapped": False}
    assert (result["counts"], result["leaked"]) == ([0, 0, 1], 0)
    assert result["reason"].endswith(reason)
    assert result["said"] == [f"a socket of tailscaled stays in the session: {result['reason']}"]


def test_two_descriptors_are_enough(rig: Rig) -> None:
    assert rig("two_descriptors_left", "mark_and_wait")["counts"] == [1, 0, 0]


def test_a_failure_is_told_once(rig: Rig) -> None:
    result = rig("no_pidfd_getfd", "many")
    assert result["counts"] == [0, 0, 500]
    assert len(result["said"]) == 1


def test_without_a_supervisor_marking_fails(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        assert rig("plain", "orphan", f"{folder}/seen") is None
        deadline = time.monotonic() + 10
        seen = Path(folder, "seen")
        while not (seen.exists() and seen.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert seen.read_text() == "ENOSYS"


def test_the_launcher_tells_why_it_cannot(rig: Rig) -> None:
    assert rig("no_seccomp", "mark_and_wait") == {
        "unavailable": "seccomp: Operation not permitted",
        "status": underlay.EXIT_UNAVAILABLE,
    }


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("plain", None),
        ("no_pidfd_getfd", "pidfd_getfd: Operation not permitted"),
        ("no_addfd", "SECCOMP_IOCTL_NOTIF_ADDFD: Invalid argument"),
        ("no_seccomp", "seccomp: Operation not permitted"),
    ],
)
def test_probe(rig: Rig, mode: str, reason: str | None) -> None:
    assert rig(mode, "probe") == {"probe": reason, "leaked": 0}


def test_probe_knows_its_architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(underlay, "ARCHES", {})
    reason = underlay.probe()
    assert reason is not None
    assert os.uname().machine in reason
    with pytest.raises(underlay.UnderlayUnavailable, match="architecture"):
        underlay.install_filter()


# ── The two ends of the hand-over ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize(
    ("says", "reason"),
    [(b"seccomp: no", "seccomp: no"), (b"\0", "too many open files"), (None, "ended too early")],
)
def test_receiving_no_listener(pair: tuple[socket.socket, socket.socket], says: bytes | None, reason: str) -> None:
    ours, theirs = pair
    if says is None:
        theirs.close()
    else:
        theirs.send(says)
    with pytest.raises(underlay.UnderlayUnavailable, match=reason):
        underlay.receive_listener(ours, time.monotonic() + 5)


def test_receiving_in_vain_ends_at_the_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(underlay.UnderlayUnavailable, match="in time"):
        underlay.receive_listener(pair[0], time.monotonic() + 0.05)


def test_a_launcher_that_died_after_sending_leaks_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    reading, writing = os.pipe()
    socket.send_fds(theirs, [underlay.LISTENER_FOLLOWS], [writing])
    os.close(writing)
    theirs.close()
    with pytest.raises(underlay.UnderlayUnavailable, match="ended too early"):
        underlay.receive_listener(ours, time.monotonic() + 5)
    os.set_blocking(reading, False)
    assert os.read(reading, 1) == b""  # nobody has the other end
    os.close(reading)


def test_a_swap_for_nobody_closes_the_listener() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    reading, writing = os.pipe()
    with pytest.raises(ProcessLookupError):
        underlay.SocketSwap(reading, gone.pid)
    os.close(writing)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reading)


@pytest.mark.parametrize("arguments", [[], ["--socket"], ["--socket", "x", "--", "a"], ["--socket", "3", "--"]])
def test_usage(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", underlay.__file__, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("usage:")


# ── The filter, read by a small interpreter: what it says of every ABI, also of the architecture we are not on ─


def verdict(program: bytes, audit: int, number: int, arguments: tuple[int, ...]) -> str:
    data = struct.pack("=iIQ6Q", number, audit, 0, *arguments)
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator = at = 0
    while True:
        operation, if_true, if_false, k = code[at]
        at += 1
        if operation == underlay.BPF_RETURN:
            return {underlay.SECCOMP_RET_USER_NOTIF: "notify", underlay.SECCOMP_RET_ALLOW: "allow"}[k]
        if operation == underlay.BPF_LOAD_WORD:
            accumulator = int(struct.unpack_from("=I", data, k)[0])
        else:
            assert operation == underlay.BPF_JUMP_EQUAL
            at += if_true if accumulator == k else if_false


@pytest.mark.parametrize("machine", underlay.ARCHES)
def test_the_filter_notifies_of_exactly_one_call(machine: str) -> None:
    arch = underlay.ARCHES[machine]
    program = underlay.filter_program(arch)
    wanted = (7, 1, 36, 0x7FFF_0000_1234, 4, 0)
    assert verdict(program, arch.audit, arch.setsockopt, wanted) == "notify"
    # The kernel cuts level and name to 32 bits: these are the same call.
    assert verdict(program, arch.audit, arch.setsockopt, (7, LINE + 1, LINE + 36, 0, 4, 0)) == "notify"
    i386, x32 = 0x40000003, 0x40000000
    for audit, number, arguments in (
        (i386, arch.setsockopt, wanted),
        (i386, 366, wanted),
        (arch.audit, x32 | arch.setsockopt, wanted),
        (arch.audit, x32 | 541, wanted),
        (arch.audit, arch.setsockopt + 1, wanted),
        (arch.audit, arch.setsockopt, (7, 0, 36, 0, 4, 0)),
        (arch.audit, arch.setsockopt, (7, 1, 35, 0, 4, 0)),
        (arch.audit, arch.setsockopt, (36, 36, 1, 0, 4, 0)),
    ):
        assert verdict(program, audit, number, arguments) == "allow"


def test_structures_are_as_large_as_the_kernels() -> None:
    assert (underlay.NOTIF.size, underlay.RESPONSE.size, underlay.ADDFD.size) == (80, 24, 24)
    assert underlay.SECCOMP_IOCTL_NOTIF_RECV == 0xC0502100
    assert underlay.SECCOMP_IOCTL_NOTIF_SEND == 0xC0182101
    assert underlay.SECCOMP_IOCTL_NOTIF_ID_VALID == 0x40082102
    assert underlay.SECCOMP_IOCTL_NOTIF_ADDFD == 0x40182103
    assert underlay.notification_sizes() >= (80, 24)


def test_it_imports_little() -> None:
    """The supervisor stays resident with it, and the launcher runs it without the package."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(underlay.__file__).parent)!r}); import underlay; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    heavy = {"typing", "dataclasses", "subprocess", "re", "inspect", "json", "logging", "tsenv"}
    assert not heavy & set(done.stdout.split())

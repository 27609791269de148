"""The ✗ and ! of doctor that a machine cannot easily be made to show: other systems' files, small servers, programs
that are scripts. What real gates show: tests/e2e/test_doctor.py.
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import http.server
import json
import os
import re
import socket
import ssl
import threading
import urllib.error
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tsenv import daemon, doctor, namespace, paths
from tsenv.commands import doctor as command
from tsenv.doctor import Check, Host
from tsenv.errors import TsenvError
from tsenv.session import Process, Session
from tsenv.shells import plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REFUSED = "pasta cannot make a network namespace: Couldn't create user namespace: Operation not permitted"
NO_ROUTE = "pasta cannot make a network namespace: External interface not usable"
RESTRICTS = {"proc__sys__kernel__apparmor_restrict_unprivileged_userns": "1\n"}
PROFILE = {"etc__apparmorDOTd__usrDOTbinDOTpasta": "profile pasta {}\n"}
CONTAINERS = [
    ("DOTdockerenv", "docker"), ("run__DOTcontainerenv", "podman"), ("run__secrets__kubernetesDOTio", "kubernetes"),
]  # fmt: skip


def host(folder: Path, **files: str) -> Host:
    """A machine that has these files: "__" stands for a slash, "DOT" for a dot."""
    for path, text in files.items():
        target = folder / path.replace("__", "/").replace("DOT", ".")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return Host(str(folder))


@pytest.fixture(autouse=True)
def base(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runtime and state directories of the test's own, in no pod."""
    folder = tmp_path_factory.mktemp("run")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return folder / "tsenv"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a program that consists of this text first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name: str, text: str) -> None:
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    return make


# --- systems --------------------------------------------------------------------------------------------------------------


def test_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(sysname="Darwin", release="25.1"))
    check = doctor._linux()
    assert (check.state, check.says) == ("fail", "this is Darwin; tsenv needs Linux (namespaces)")


def test_debians_old_switch_and_no_namespaces_at_all(tmp_path: Path) -> None:
    files = {"proc__self__ns__user": "", "proc__sys__kernel__unprivileged_userns_clone": "0\n"}
    check = doctor._userns_allowed(host(tmp_path, **files))
    assert check.fix == "sudo sysctl kernel.unprivileged_userns_clone=1"
    (tmp_path / "proc/self/ns/user").unlink()
    assert doctor._userns_allowed(Host(str(tmp_path))).says == "this kernel has no user namespaces"


def test_selinux(tmp_path: Path) -> None:
    assert doctor._selinux(host(tmp_path)) is None
    check = doctor._selinux(host(tmp_path, sys__fs__selinux__enforce="1"))
    assert check
    assert "ausearch" in check.says


@pytest.mark.parametrize(
    ("about", "pasta", "tailscale", "ip"),
    [
        ("ID=debian", "sudo apt install passt", "install.sh", "sudo apt install iproute2"),
        ("ID=ubuntu\nID_LIKE=debian", "sudo apt install passt", "install.sh", "sudo apt install iproute2"),
        ("ID=fedora", "sudo dnf install passt", "sudo dnf install tailscale", "sudo dnf install iproute"),
        (
            'ID="rocky"\nID_LIKE="rhel centos fedora"',
            "sudo dnf install passt",
            "install.sh",
            "sudo dnf install iproute",
        ),
        ("ID=arch", "sudo pacman -S passt", "sudo pacman -S tailscale", "sudo pacman -S iproute2"),
        ("ID=alpine", "sudo apk add passt", "sudo apk add tailscale", "sudo apk add iproute2"),
        (
            "ID=nixos",
            "nix profile install nixpkgs#passt",
            "nix profile install nixpkgs#tailscale",
            "nix profile install nixpkgs#iproute2",
        ),
        (
            'ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"',
            "sudo zypper install passt",
            "sudo zypper install tailscale",
            "sudo zypper install iproute2",
        ),
        ("ID=plan9", "install the package passt", "install.sh", "install the package iproute2"),
    ],
)
def test_the_distributions_commands(tmp_path: Path, about: str, pasta: str, tailscale: str, ip: str) -> None:
    found = host(tmp_path, **{"etc__os-release": about})
    assert found.install("pasta") == pasta
    assert tailscale in found.install("tailscaled")
    assert found.install("ip") == ip


def test_no_iproute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "SBIN", f":{tmp_path}/sbin")
    machine = host(tmp_path, **{"etc__os-release": "ID=debian", "sbin__ip": ""})
    check = doctor._iproute(machine)
    assert (check.state, check.fix) == ("warn", "sudo apt install iproute2")
    assert "packets for a peer may leave by the host's network while tailscaled restarts" in check.says
    (tmp_path / "sbin/ip").chmod(0o755)
    assert doctor._iproute(machine) == Check("iproute", "ok", f"{tmp_path}/sbin/ip")


# --- containers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mark", "kind"), CONTAINERS)
def test_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str, kind: str) -> None:
    inside = host(tmp_path, **{mark: ""})
    assert inside.container() == kind
    flags = doctor.OCI_FLAGS[kind]
    tun = doctor._tun(inside)
    assert (tun.state, tun.fix) == ("fail", flags)
    assert "/dev/net/tun" in flags
    assert "seccomp" in flags
    for stage, number in (("unshare", errno.EPERM), ("uid_map", errno.EROFS), ("capabilities", errno.EPERM)):
        monkeypatch.setattr(doctor, "_userns_trial", lambda found=(stage, number): found)
        assert doctor._userns(inside).fix == flags
    for why in (
        REFUSED,
        "the session's namespaces cannot be set up: no layer over /etc: overlay and tmpfs are refused",
    ):
        assert doctor._next_step(inside, why) == flags
    # No flag makes a route.
    assert doctor._next_step(inside, NO_ROUTE).startswith("ip route")
    # Nor can a container write the machine's sysctls.
    off = host(tmp_path, proc__self__ns__user="", proc__sys__user__max_user_namespaces="0\n")
    assert doctor._userns_allowed(off).fix == "sudo sysctl user.max_user_namespaces=10000   on the container's host"


# --- user namespaces and pasta --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "number", "says", "fix"),
    [
        ("unshare", errno.ENOSPC, "cannot be made: No space left", "sudo sysctl user.max_user_namespaces=10000"),
        ("unshare", errno.EPERM, "cannot be made: Operation not permitted", doctor.WHO_REFUSES),
        ("uid_map", errno.EROFS, "writing its uid_map: Read-only file system", "findmnt -T /proc/self/uid_map"),
        ("uid_map", errno.EPERM, "writing its uid_map: Operation not permitted", doctor.WHO_REFUSES),
        ("capabilities", errno.EPERM, "gives no capabilities: Operation not permitted", doctor.WHO_REFUSES),
    ],
)
def test_user_namespaces_that_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, number: int, says: str, fix: str
) -> None:
    monkeypatch.setattr(doctor, "_userns_trial", lambda: (stage, number))
    check = doctor._userns(host(tmp_path))
    assert check.state == "fail"
    assert says in check.says
    assert check.fix.startswith(fix)
    if fix == doctor.WHO_REFUSES:
        assert doctor._userns(host(tmp_path, **RESTRICTS)).fix.startswith("sudo apt install --reinstall passt")


def test_the_trial_of_a_user_namespace() -> None:
    at, number = doctor._userns_trial()
    assert (at == "ok") == (number == 0)


def test_apparmor(tmp_path: Path) -> None:
    assert doctor._apparmor(host(tmp_path), REFUSED) is None
    restricted = host(tmp_path, **RESTRICTS)
    bare = doctor._apparmor(restricted, REFUSED)
    assert bare
    assert bare.state == "fail"
    assert "pasta has no AppArmor profile" in bare.says
    assert bare.fix.startswith("sudo apt install --reinstall passt")
    profiled = doctor._apparmor(host(tmp_path, **PROFILE), REFUSED)
    assert profiled
    assert profiled.state == "fail"
    assert "pasta's profile does not help" in profiled.says
    # A lack of something else is not its work.
    assert doctor._apparmor(restricted, NO_ROUTE) is None
    # Where pasta works all the same, that is what the profile is for.
    works = doctor._apparmor(restricted, "")
    assert works == Check("apparmor", "ok", "AppArmor restricts user namespaces here; a profile exempts pasta")


def tried(machine: Host, monkeypatch: pytest.MonkeyPatch, why: str) -> dict[str, Check]:
    """What `local` says where our own namespace gets no capabilities, and pasta fails with `why`, or does not ("")."""
    monkeypatch.setattr(doctor, "_userns_trial", lambda: ("capabilities", errno.EPERM))
    monkeypatch.setattr(doctor, "_namespace", lambda _: Check("namespace", "fail" if why else "ok", why))
    for name in ("_pasta_options", "_versions", "_firewall", "_iproute"):
        monkeypatch.setattr(doctor, name, lambda _, name=name: Check(name, "ok", ""))
    for name in ("_underlay", "_tmpfs", "_resolvers"):
        monkeypatch.setattr(doctor, name, lambda name=name: Check(name, "ok", ""))
    return {check.id: check for check in doctor.local(machine)}


def test_ubuntu_where_pasta_is_exempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = tried(host(tmp_path, **RESTRICTS, **PROFILE), monkeypatch, "")
    assert {check.state for check in found.values()} == {"ok"}
    assert "exempts pasta" in found["apparmor"].says


def test_ubuntu_where_pasta_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = host(tmp_path, **RESTRICTS, **PROFILE)
    found = tried(machine, monkeypatch, REFUSED)
    assert [found[name].state for name in ("userns", "apparmor", "namespace")] == ["fail"] * 3
    found = tried(machine, monkeypatch, NO_ROUTE)
    assert found["namespace"].state == "fail"
    assert found["userns"].state == "ok"
    assert "apparmor" not in found


def test_a_user_namespace_that_only_pasta_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = tried(host(tmp_path), monkeypatch, "")["userns"]
    assert check.state == "warn"
    assert check.says.endswith("; pasta may all the same")


def explained(
    machine: Host, monkeypatch: pytest.MonkeyPatch, message: str, hint: str, trial: tuple[str, int]
) -> TsenvError:
    monkeypatch.setattr(doctor, "Host", lambda: machine)
    monkeypatch.setattr(doctor, "_userns_trial", lambda: trial)
    return doctor.explained(TsenvError(message, hint))


def test_apparmor_is_blamed_only_for_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ubuntu, message = host(tmp_path, **RESTRICTS, **PROFILE), "pasta could not make a network namespace"
    blocked = ("capabilities", errno.EPERM)  # as for every program without a profile
    error = explained(ubuntu, monkeypatch, message, "No routable interface", blocked)
    assert (error.message, error.hint) == (message, "No routable interface")
    words = "Failed to send 41 bytes to syslog\nunshare: Operation not permitted\nFailed to sandbox process, exiting"
    error = explained(ubuntu, monkeypatch, message, words, blocked)
    assert error.message.startswith("AppArmor restricts user namespaces here, and pasta's profile does not help")
    assert error.message.endswith(f"({message}: unshare: Operation not permitted; Failed to sandbox process, exiting)")
    assert error.hint.startswith("sudo apparmor_parser")


def test_elsewhere_a_trial_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "the session's namespaces cannot be set up: no answer"
    error = explained(host(tmp_path), monkeypatch, message, "tsenv doctor", ("unshare", errno.EPERM))
    assert error.message == f"a user namespace cannot be made: Operation not permitted ({message})"
    error = explained(host(tmp_path), monkeypatch, message, "tsenv doctor", ("ok", 0))
    assert (error.message, error.hint) == (message, "tsenv doctor")
    dead = "pasta could not make a network namespace"  # without a word: then the hint is to ask doctor
    error = explained(host(tmp_path), monkeypatch, dead, "tsenv doctor", ("unshare", errno.EPERM))
    assert error.message == f"a user namespace cannot be made: Operation not permitted ({dead})"
    other = TsenvError("something else")
    assert doctor.explained(other) is other


# --- the trial of a session -----------------------------------------------------------------------------------------------


def trial(monkeypatch: pytest.MonkeyPatch, kind: str = "", why: str = "", machine: Host | None = None) -> Check:
    """What is said of a trial that ended so."""
    monkeypatch.setattr(doctor, "_programs", lambda _: iter(()))
    monkeypatch.setattr(doctor, "_made", lambda _: (kind, why))
    return doctor._namespace(machine or Host("/nowhere"))


def test_layers_over_etc(monkeypatch: pytest.MonkeyPatch, base: Path) -> None:
    assert trial(monkeypatch, "overlay").state == "ok"
    for kind, says in (("disk", "is on disk"), ("copy", "is as a copy")):
        check = trial(monkeypatch, kind)
        assert check.state == "warn"
        assert f"the layer over /etc {says}" in check.says
    assert list(base.iterdir()) == []


@pytest.mark.parametrize(
    ("why", "fix"),
    [
        (REFUSED, "sudo dmesg"),
        (NO_ROUTE, "ip route "),
        (
            "pasta cannot make a network namespace: Couldn't create user namespace: No space left on device",
            "sudo sysctl",
        ),
        ("pasta cannot make a network namespace", "pasta --config-net -- true "),
        ("the session's namespaces cannot be set up: no layer over /etc: overlay and tmpfs are refused", "sudo dmesg"),
        ("the session's namespaces cannot be set up: no answer", "unshare -rnm mount"),
    ],
)
def test_a_failed_trial_has_a_next_step(monkeypatch: pytest.MonkeyPatch, why: str, fix: str) -> None:
    check = trial(monkeypatch, why=why)
    assert (check.state, check.says) == ("fail", why)
    assert check.fix.startswith(fix)


def test_ubuntus_next_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check = trial(monkeypatch, why=REFUSED, machine=host(tmp_path, **RESTRICTS))
    assert check.fix.startswith("sudo apt install --reinstall passt")


def test_a_trial_that_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_programs", lambda _: iter([Check("pasta", "fail", "pasta is not installed", "mend")]))
    assert doctor._namespace(Host()) == Check("namespace", "fail", "not tried: pasta is not installed", "mend")


def test_a_pasta_that_is_no_program(
    monkeypatch: pytest.MonkeyPatch, base: Path, program: Callable[[str, str], None]
) -> None:
    for name in ("pasta", "tailscaled", "tailscale", "nsenter", "unshare"):
        program(name, "\0")
    check = doctor._namespace(Host("/nowhere"))
    assert check.says == "pasta cannot make a network namespace: Exec format error"
    assert list(base.iterdir()) == []


def test_no_directory_to_work_in(monkeypatch: pytest.MonkeyPatch, base: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(namespace, "seed", lambda *_: (_ for _ in ()).throw(full))
    check = trial(monkeypatch, "overlay")
    assert check == Check(
        "namespace", "fail", f"no directory to work in: {base}: No space left on device", f"df -h {base}"
    )
    base.rmdir()
    base.symlink_to("/")
    check = trial(monkeypatch, "overlay")
    assert check.says == f"no directory to work in: {base} is a symbolic link; refused"
    assert check.fix == f"look who made it, then: rm {base}"


def place(which: str) -> Check:
    """The check of that directory."""
    if which == "runtime":
        return doctor._directory(which, paths.runtime_base(), "XDG_RUNTIME_DIR")
    return doctor._directory(which, paths.state_base(), "XDG_STATE_HOME")


def test_a_state_directory_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert place("state").state == "ok"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    check = place("state")
    assert (check.state, check.says) == ("fail", f"cannot use {tmp_path}/file/tsenv: Not a directory")
    assert check.fix == "set XDG_STATE_HOME to a directory of yours"


def test_a_runtime_directory_that_is_not_writable(monkeypatch: pytest.MonkeyPatch, base: Path) -> None:
    assert place("runtime").state == "ok"
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    check = place("runtime")
    assert (check.state, check.says) == ("fail", f"{base} is not writable")
    assert "XDG_RUNTIME_DIR" in check.fix


# --- programs -------------------------------------------------------------------------------------------------------------


def test_a_pasta_that_cannot_be_asked(program: Callable[[str, str], None], tmp_path: Path) -> None:
    program("pasta", "\0")
    check = doctor._pasta_options(host(tmp_path, **{"etc__os-release": "ID=debian"}))
    assert check == Check("pasta-options", "fail", "pasta cannot be asked: Exec format error", "sudo apt install passt")


@pytest.mark.parametrize("broken", ["tailscaled", "tailscale"])
def test_a_tailscale_that_cannot_be_asked(program: Callable[[str, str], None], broken: str) -> None:
    for name in ("tailscaled", "tailscale"):
        program(name, "\0" if name == broken else "#!/bin/sh\necho 1.98.0\n")
    check = doctor._versions(Host("/nowhere"))
    assert (check.state, check.says) == ("fail", f"{broken} cannot be asked: Exec format error")
    assert "tailscale.com" in check.fix


def test_a_program_that_hangs(program: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TRIAL_SECONDS", 0.2)
    program("pasta", "#!/bin/sh\nexec sleep 60\n")
    assert doctor._pasta_options(Host("/nowhere")).says == "pasta cannot be asked: no answer in time"


# --- network --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Any]:
    """A control server on the loopback; `date` and `body` are what it answers."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(served.body)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return str(served.date)

        def log_message(self, *_: object) -> None:
            pass

    listener = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    served = SimpleNamespace(body=b'{"publicKey": ""}', date=email.utils.formatdate(), url="")
    served.url = f"http://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    listener.shutdown()
    thread.join()
    listener.server_close()


def test_a_control_server(server: Any) -> None:
    assert doctor.control(server.url) == (Check("control", "ok", f"{server.url} answers"), server.date)
    server.body = b"{}"
    check, date = doctor.control(server.url)
    assert check.says == f"{server.url} answers, but not as a control server does (no key)"
    assert check.state == "fail"
    assert check.fix.startswith("is the URL right? curl -v ")
    assert date == server.date


def test_a_control_server_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        check, date = doctor.control(url, 0.1)
    assert (check.state, check.says, date) == ("fail", f"{url} takes connections, but answers nothing", "")


def test_a_server_of_something_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection = listener.accept()[0]
            connection.sendall(b"SSH-2.0-OpenSSH\r\n")
            connection.recv(1 << 16)
            connection.close()

        thread = threading.Thread(target=greet)
        thread.start()
        check = doctor.control(f"http://127.0.0.1:{listener.getsockname()[1]}")[0]
        thread.join()
    assert check.state == "fail"
    assert check.says.endswith("answers, but not as a control server does (no HTTP)")


def test_a_certificate_of_tomorrow(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = ssl.SSLCertVerificationError(1, "certificate verify failed: certificate is not yet valid")

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError(reason)

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    check, date = doctor.control("https://control.example.com")
    assert (check.id, check.state, date) == ("clock", "fail", "")


@pytest.mark.parametrize(
    ("off", "state", "says"),
    [
        (0, "ok", "the clock is right"),
        (-600, "warn", "the clock is 600 s ahead"),
        (600, "warn", "the clock is 600 s behind"),
        (7200, "fail", "the clock is 7200 s behind"),
    ],
)
def test_clocks(monkeypatch: pytest.MonkeyPatch, off: int, state: str, says: str) -> None:
    monkeypatch.setattr("time.time", lambda: 1.8e9)
    check = doctor._clock(email.utils.formatdate(1.8e9 + off, usegmt=True))
    assert (check.state, check.says) == (state, says)
    assert check.fix == ("" if state == "ok" else "sudo timedatectl set-ntp true")


def test_a_server_without_the_time(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_udp", lambda _: Check("udp", "ok", ""))
    server.date = "tea time"
    found = {check.id: check for check in doctor.network(server.url)}
    assert found["clock"] == Check("clock", "warn", "the control server tells no time")


def test_udp_that_is_not_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    check = doctor._udp("https://nowhere.example")
    assert check == Check("udp", "warn", "UDP not tested: nowhere.example: Name or service not known")


def test_a_label_over_63_characters(server: Any) -> None:
    name = f"{'a' * 64}.example.com"
    control, udp = doctor.network(f"http://{name}")
    assert (control.state, udp.state) == ("fail", "warn")
    assert control.says == f"http://{name} cannot be reached: the name {name} does not resolve"
    assert udp.says == f"UDP not tested: {name} is no host name"


NO_URLS = ["http://[::1", "http://", "headscale", "ftp://x", "http://x:y", "http://x:65536", "https:// x", "http://x\n"]


@pytest.mark.parametrize("url", NO_URLS)
def test_no_urls(url: str) -> None:
    (check,) = doctor.network(url)
    assert (check.id, check.state, check.says) == ("control", "fail", f"'{url}' is not a URL")
    with pytest.raises(TsenvError, match="is not a URL") as caught:
        list(command.checks(Namespace(name=None, login_server=url, offline=False)))
    assert caught.value.code == 2


@pytest.mark.parametrize("url", ["http://x", "https://[::1]:8080/", "https://headscale.example.com/base"])
def test_urls(url: str) -> None:
    assert doctor.is_url(url)


# --- through a session ----------------------------------------------------------------------------------------------------


@pytest.fixture
def made(base: Path) -> Session:
    """A session as `up` leaves it, of parts that are this process; what joins it runs here."""
    base.mkdir(mode=0o700)
    (base / "ci").mkdir(mode=0o700)
    me = Process.of(os.getpid())
    found = Session("ci", pids=dict.fromkeys(("supervisor", "anchor", "inner"), me))
    found.save()
    Path(found.file("ready")).touch()
    Path(found.file("join")).write_text('exec "$@"\n')
    return found


PEER = {"DNSName": "peer.tail.ts.net.", "TailscaleIPs": ["100.64.0.9"], "Online": True}
SELF = {"DNSName": "me.tail.ts.net."}


@contextlib.contextmanager
def answering(found: Session, status: dict[str, Any]) -> Iterator[None]:
    """A LocalAPI that has one answer, once."""
    body = json.dumps(status).encode()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(found.file(daemon.SOCKET))
        listener.listen()
        listener.settimeout(10)

        def serve() -> None:
            with listener.accept()[0] as connection:
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def looked(found: Session, *peers: dict[str, Any], names: bool = False) -> dict[str, Check]:
    """The checks by id."""
    status = {
        "Self": SELF,
        "CurrentTailnet": {"MagicDNSEnabled": names},
        "Peer": {str(number): peer for number, peer in enumerate(peers)},
    }
    with answering(found, status):
        return {check.id: check for check in doctor.inside(found)}


def test_a_session_without_peers(made: Session) -> None:
    found = looked(made, {**PEER, "Online": False})
    assert found["session"] == Check("session", "ok", "'ci' is up")
    assert found["session-ping"] == Check("session-ping", "warn", "no peer is online in 'ci': nothing to ping")


def test_peers_that_do_not_answer(made: Session, program: Callable[[str, str], None]) -> None:
    program("tailscale", "#!/bin/sh\nexit 1\n")
    Path(made.file("join")).write_text("exit 1\n")
    found = looked(made, PEER, {**PEER, "DNSName": "other.tail.ts.net."}, names=True)
    says = "no peer answers a ping (other, peer)"
    assert found["session-ping"] == Check("session-ping", "warn", says, "tsenv -n ci tailscale ping other")
    assert found["session-names"].state == "fail"
    assert found["session-names"].says == "me.tail.ts.net does not resolve in 'ci'"


@pytest.mark.parametrize("fits", [True, False])
def test_the_tunnels_mtu(made: Session, program: Callable[[str, str], None], fits: bool) -> None:
    program("tailscale", "#!/bin/sh\nexit 0\n")
    program("ping", f"#!/bin/sh\n{'exit 0' if fits else 'exit 1'}\n")
    found = looked(made, PEER)
    assert found["session-ping"] == Check("session-ping", "ok", "peer peer answers a ping")
    mtu = found["session-mtu"]
    assert mtu.state == ("ok" if fits else "fail")
    assert f"packets of 1280 bytes {'reach' if fits else 'do not reach'} peer" in mtu.says
    assert fits or "fragmentation needed" in mtu.fix


def test_a_degraded_session(made: Session) -> None:
    found = looked(replace(made, degraded="pasta ended (exit status 1), again in 0.1 s"))
    assert found["session"] == Check(
        "session", "warn", "'ci' is degraded: pasta ended (exit status 1), again in 0.1 s", "tsenv -n ci logs"
    )


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is said of the session: no other tier, and no root."""
    monkeypatch.setattr(doctor, "user", lambda: Check("user", "ok", ""))
    monkeypatch.setattr(doctor, "cheap", lambda: iter(()))
    monkeypatch.setattr(doctor, "local", lambda: iter(()))


def spoken(capsys: pytest.CaptureFixture[str], name: str = "ci") -> Check:
    """The one check of `tsenv doctor --offline --json`, which fails with exit status 1."""
    assert command.main(Namespace(name=name, login_server=None, offline=True, json=True)) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    (check,) = found["checks"]
    return Check(**check)


@pytest.mark.usefixtures("alone")
def test_a_daemon_that_is_away(made: Session, capsys: pytest.CaptureFixture[str]) -> None:
    check = spoken(capsys)
    says = "tailscaled of 'ci' does not answer: No such file or directory"
    assert check == Check("session", "fail", says, "tsenv -n ci logs --tailscaled")
    made.degraded = "tailscaled ended (exit status 1), again in 0.1 s"
    made.save()
    assert spoken(capsys).says == f"tailscaled of 'ci' does not answer: {made.degraded}"


@pytest.mark.usefixtures("alone")
def test_a_damaged_record(made: Session, capsys: pytest.CaptureFixture[str]) -> None:
    Path(made.file("session.json")).write_text("{")
    check = spoken(capsys)
    assert (check.id, check.state) == ("session", "fail")
    assert check.says.startswith(f"{made.dir}/session.json cannot be read: ")
    assert check.fix == "tsenv -n ci down --force   removes it"


@pytest.mark.usefixtures("alone")
def test_a_runtime_directory_that_is_a_link(made: Session, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = base.rename(base.with_name("elsewhere"))
    base.symlink_to(elsewhere)
    assert spoken(capsys).says == f"{base} is a symbolic link; refused"
    assert place("runtime").says == f"{base} is a symbolic link; refused"


def test_foreign_runtime_directories_do_not_end_doctor(
    made: Session, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getuid", lambda: made.pids["anchor"].pid)
    now, record, damaged = command._session("ci")
    assert (now, record) == ("", None)
    assert damaged
    assert "belongs to another user" in damaged.says
    assert "belongs to another user" in place("runtime").says


# --- docs/json.md ---------------------------------------------------------------------------------------------------------


def table(heading: str) -> set[str]:
    """What stands in the first column below a heading of docs/json.md; `a`, `b` is two."""
    page = (Path(__file__).parents[2] / "docs/json.md").read_text()
    section = page.partition(f"{heading}\n")[2].partition("\n#")[0]
    cells = re.findall(r"^\| (`[^|]*`) \|", section, re.MULTILINE)
    return {word for cell in cells for word in re.findall("`([^`]+)`", cell)}


def test_the_checks_are_documented() -> None:
    source = Path(doctor.__file__).read_text()
    programs = {check.id for check in doctor._programs(Host())}
    ids = set(re.findall(r'\b(?:Check|_directory)\(\s*"([^"]+)"', source)) | programs
    assert table("### Checks") == ids
    assert table("## `tsenv doctor --json`") == {"ok", "checks"}
    assert table("### A check") == set(Check.__dataclass_fields__)


def test_the_variables_of_env_are_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    values = plan.activation("ci", {"TSENV_SESSION": "other"}).set
    kept = {key for key, value in values.items() if value and key != "TSENV_PROMPT"}
    assert table("## `tsenv env [NAME] --json`") == kept | {"PATH"}

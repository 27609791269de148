"""`--isolated`: tailnet only, always. And what hostile commands, and other users, can try."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faults import UID, folder, is_well, kill, measured, pid, record, until
from lab import _make_router
from lab_box import allocate_octet
from rig import Session, await_ready, server, some_port, stop

from tsenv.session import replace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Lab
    from lab_box import Machine


pytestmark = pytest.mark.xdist_group("isolation")

ADDRESS, ADDRESS6 = "203.0.113.4", "2001:db8:77::4"
PEER = ("curl", "-sS", "--max-time", "5", "http://my-server/")

# Tries ways out of the session: prints one line each, "refused in N ms: …" or "WENT OUT". argv: the two addresses.
WAYS = r"""
import socket, sys, time
V4, V6 = sys.argv[1:]
def way(name, family, kind, protocol=0, device=None, data=None, port=80):
    begin = time.monotonic()
    try:
        s = socket.socket(family, kind, protocol)
        s.settimeout(3)
        if device:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
        s.connect((V4 if family == socket.AF_INET else V6, port))
        if data is not None:
            for _ in range(2):  # the refusal of the first is told to the second
                s.send(data)
                time.sleep(0.02)
        print(name, "WENT OUT")
    except OSError as error:
        late = " LATE" if time.monotonic() - begin > 1 else ""
        print(f"{name}: refused: {error}{late}")
ECHO4 = b"\x08\0\xf7\xff\0\0\0\0"
ECHO6 = b"\x80\0\0\0\0\0\0\0"
for device in (None, b"eth0"):
    on = " on eth0" if device else ""
    way("tcp4" + on, socket.AF_INET, socket.SOCK_STREAM, device=device)
    way("tcp6" + on, socket.AF_INET6, socket.SOCK_STREAM, device=device)
    way("udp4" + on, socket.AF_INET, socket.SOCK_DGRAM, device=device, data=b"x", port=7)
    way("udp6" + on, socket.AF_INET6, socket.SOCK_DGRAM, device=device, data=b"x", port=7)
    way("ping4" + on, socket.AF_INET, socket.SOCK_DGRAM, 1, device=device, data=ECHO4, port=0)
    way("ping6" + on, socket.AF_INET6, socket.SOCK_DGRAM, 58, device=device, data=ECHO6, port=0)
way("raw4", socket.AF_INET, socket.SOCK_RAW, 1, data=ECHO4, port=0)
way("raw6", socket.AF_INET6, socket.SOCK_RAW, 58, data=ECHO6, port=0)
try:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    print("packet WENT OUT")
except OSError as error:
    print("packet: refused:", error)
try:
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, 36, 0x80000)  # SO_MARK: tailscaled's own
    print("mark WENT OUT")
except OSError as error:
    print("mark: refused:", error)
"""

# Sends all the time, every way that needs no privilege, until its standard input ends.
FLOOD = r"""
import select, socket, sys
V4, V6 = sys.argv[1:]
count = 0
while not select.select([sys.stdin], [], [], 0.005)[0]:
    for family, address in ((socket.AF_INET, V4), (socket.AF_INET6, V6)):
        for device in (None, b"eth0"):
            for kind, protocol in ((socket.SOCK_STREAM, 0), (socket.SOCK_DGRAM, 0), (socket.SOCK_DGRAM, 1)):
                try:
                    with socket.socket(family, kind, 58 if protocol and family == socket.AF_INET6 else protocol) as s:
                        s.setblocking(False)
                        if device:
                            s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
                        s.connect((address, 0 if protocol else 7))
                        s.send(b"\x80\0\0\0\0\0\0\0" if family == socket.AF_INET6 else b"\x08\0\xf7\xff\0\0\0\0")
                except OSError:
                    pass
                count += 1
print(count)
"""


def python(script: str, *words: str) -> tuple[str, ...]:
    """Argv of a program that needs nothing but Python."""
    return ("/usr/bin/python3", "-I", "-c", script, *words)


@pytest.fixture(scope="module")
def own(lab: Lab) -> Iterator[Machine]:
    """A computer of our own: what the internet host counts from its address is ours alone."""
    machine = lab.new_machine("isolated" + str(os.getpid()))
    yield machine
    lab.remove_machine(machine)


def packets(lab: Lab, machine: Machine) -> int:
    """What the internet host has ever got from there."""
    return lab.internet.packets_from(machine.address) + lab.internet.packets_from(machine.address6)


def isolated(lab: Lab, machine: Machine, name: str, *options: str) -> Session:
    """Bring one up there."""
    words = ["tsenv", "-n", name, "up", "--isolated", "--login-server", lab.control.name_url, "--auth-key-file", "-"]
    machine.run([*words, "--hostname", name, *options], input=lab.control.auth_key(), check=True)
    return Session(name, machine, lab.control)


@pytest.mark.parametrize("underlay", ["host", "pasta"])
def test_only_the_tailnet_can_be_reached(lab: Lab, own: Machine, session_name: str, underlay: str) -> None:
    before = packets(lab, own)
    session = isolated(lab, own, session_name, "--underlay", underlay)
    try:
        assert session.status()["isolated"] is True
        assert session.exec(*PEER).stdout == "my-server of tailnet A\n"
        tried = session.exec(*python(WAYS, ADDRESS, ADDRESS6), check=True).stdout
        assert tried.count(": refused: ") == 16, tried
        assert "WENT OUT" not in tried
        assert "LATE" not in tried
        # Names outside the tailnet are asked of nobody: a query carries data, too.
        assert session.exec("getent", "hosts", "internet.lab.test").returncode == 2
        assert session.exec("getent", "hosts", session.status()["dns_name"]).returncode == 0
    finally:
        session.tsenv("down", "--force", check=True)
    assert packets(lab, own) == before
    assert session.control.find(session_name) is None, "it could not find the control server to log out"


def test_not_one_packet_through_twenty_kills(lab: Lab, own: Machine, session_name: str) -> None:
    """Ten times the daemon and ten times pasta die, in a row and across each other, while a command sends on."""
    before = packets(lab, own)
    session = isolated(lab, own, session_name, "--underlay", "pasta")  # the one where a mark can pass by eth0
    flood = session.popen(*python(FLOOD, ADDRESS, ADDRESS6), stdin=subprocess.PIPE)
    place = _place(own, session)
    try:
        workers = [threading.Thread(target=_kill_ten_times, args=(place, part)) for part in ("tailscaled", "pasta")]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        until(lambda: not _read(place)["degraded"], "the session to be whole again", 30)
        assert _read(place)["restarts"] == {"tailscaled": 10, "pasta": 10}
        assert session.exec(*PEER).stdout == "my-server of tailnet A\n"
        sent = int(flood.communicate(timeout=20)[0])
    finally:
        stop(flood)
        session.tsenv("down", "--force", check=True)
    assert sent > 1000
    assert packets(lab, own) == before, f"of {sent} tries"
    measured("--isolated: 20 kills while a command sends", f"0 of {sent} packets came to the internet host",
             "all parts", {})  # fmt: skip


def _place(machine: Machine, session: Session) -> Path:
    """Its session.json, seen from the test: the machine's /run is its own."""
    return Path(f"/proc/{machine.holder.pid}/root/run/user/{UID}/tsenv/{session.name}/session.json")


def _read(place: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(place.read_text())
    return found


def _kill_ten_times(place: Path, part: str) -> None:
    victim = 0
    for _ in range(10):
        until(lambda seen=victim: _read(place)["pids"][part]["pid"] != seen, f"another {part}", 20)
        victim = _read(place)["pids"][part]["pid"]
        time.sleep(0.05)  # let it have done something
        os.kill(victim, signal.SIGKILL)


def test_with_an_exit_node_all_goes_by_it_or_nowhere(lab: Lab, own: Machine, session_name: str) -> None:
    name = f"exit-{os.getpid()}"
    exit_node = _make_router(lab.control, name, allocate_octet(), ("0.0.0.0/0", "::/0"), "--advertise-exit-node")
    before = packets(lab, own)
    session = isolated(lab, own, session_name, "--exit-node", name)
    whoami = ("curl", "-sS", "--max-time", "3", f"http://{ADDRESS}/ip")
    try:
        until(lambda: session.exec(*whoami).stdout == f"{exit_node.address}\n", "traffic by the exit node", 20)
        session.exec(*python(WAYS, ADDRESS, ADDRESS6), check=True)  # each goes by it, or nowhere: the host counts
        os.kill(session.status()["pids"]["tailscaled"], signal.SIGKILL)
        session.exec(*python(WAYS, ADDRESS, ADDRESS6), check=True)
        until(lambda: session.exec(*whoami).stdout == f"{exit_node.address}\n", "the exit node again", 20)
        lab.remove_machine(exit_node)  # gone as by a power cut: the control server does not know yet
        assert session.exec(*whoami).returncode
        session.exec(*python(WAYS, ADDRESS, ADDRESS6), check=True)
        session.exec("tailscale", "set", "--exit-node=", check=True)  # given up
        assert session.exec(*whoami).returncode
        assert "WENT OUT" not in session.exec(*python(WAYS, ADDRESS, ADDRESS6), check=True).stdout
    finally:
        session.tsenv("down", "--force", check=True)
        if node := lab.control.find(name):
            lab.control.delete(node)
    assert packets(lab, own) == before


def test_the_daemon_opens_no_connection_beside_the_tailnet_for_a_command(prison: Session) -> None:
    done = prison.exec("timeout", "4", "tailscale", "nc", ADDRESS, "80", input="GET / HTTP/1.0\r\n\r\n")
    assert done.returncode
    assert "internet" not in done.stdout


def test_without_nft_and_iptables_it_says_what_to_install(lab: Lab, own: Machine, session_name: str) -> None:
    script = (
        "mount -t tmpfs x /usr/local/sbin; for f in nft iptables ip6tables; do mount --bind /dev/null /usr/sbin/$f; done; "
        'exec setpriv --reuid=tsenv-lab --regid=tsenv-lab --init-groups --inh-caps=-all "$@"'
    )
    up = ["tsenv", "-n", session_name, "up", "--isolated", "--login-server", lab.control.name_url, "--auth-key-file", "-"]
    env = {"XDG_RUNTIME_DIR": f"/run/user/{UID}", "HOME": "/home/tsenv-lab"}
    done = own.run(
        ["unshare", "-m", "sh", "-ec", script, "sh", *up], user="root", env=env, input=lab.control.auth_key()
    )
    assert done.returncode == 125
    assert "--isolated needs nft, or iptables and ip6tables" in done.stderr, done.stderr
    assert "apt install nftables" in done.stderr


def test_by_iptables_where_there_is_no_nft(lab: Lab, own: Machine, session_name: str) -> None:
    before = packets(lab, own)
    script = (
        "mount --bind /dev/null /usr/sbin/nft; "
        'exec setpriv --reuid=tsenv-lab --regid=tsenv-lab --init-groups --inh-caps=-all "$@"'
    )
    up = ["tsenv", "-n", session_name, "up", "--isolated", "--login-server", lab.control.name_url, "--auth-key-file", "-"]
    env = {"XDG_RUNTIME_DIR": f"/run/user/{UID}", "HOME": "/home/tsenv-lab"}
    argv = ["unshare", "-m", "sh", "-ec", script, "sh", *up, "--hostname", session_name]
    own.run(argv, user="root", env=env, input=lab.control.auth_key(), check=True)
    session = Session(session_name, own, lab.control)
    try:
        assert session.exec(*PEER).stdout == "my-server of tailnet A\n"
        tried = session.exec(*python(WAYS, ADDRESS, ADDRESS6), check=True).stdout
        assert "WENT OUT" not in tried
        assert "LATE" not in tried
    finally:
        session.tsenv("down", "--force", check=True)
    assert packets(lab, own) == before


# --- a hostile command inside ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prison(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Session]:
    """An isolated session, for all tests that try to get out of it."""
    session = isolated(lab, lab.machine, f"prison-{os.getpid()}")
    yield session
    session.tsenv("down", "--force", check=True)


REFUSED = {
    "routes": "ip route add default via 10.77.0.4 || ip route del default",
    "interfaces": "ip link add tailscale1 type dummy || ip link set eth0 name tailscale0",
    "rules": "ip rule add pref 1 lookup main",
    "nft": "/usr/sbin/nft flush ruleset",
    "nft in a user namespace of one's own": "unshare -Ur /usr/sbin/nft flush ruleset",
    "iptables": "/usr/sbin/iptables -P OUTPUT ACCEPT || /usr/sbin/iptables-legacy -P OUTPUT ACCEPT",
    "sysctl": "echo 1 >/proc/sys/net/ipv4/ip_forward || /usr/sbin/sysctl -w net.ipv4.ip_forward=1",
    "a tun device": "ip tuntap add mode tun name tun9",
    "the anchor's namespaces": "nsenter -t $ANCHOR -U -n --preserve-credentials true",
    "the anchor's network alone": "nsenter -t $ANCHOR -n true",
    "init's network": "nsenter -t 1 -n true",
    "the supervisor's network": "nsenter -t $SUPERVISOR -n true || nsenter -t $SUPERVISOR -U --preserve-credentials true",
    "the supervisor's memory": "head -c1 /proc/$SUPERVISOR/mem || cat /proc/$SUPERVISOR/environ || ls /proc/$SUPERVISOR/fd",
    "the supervisor's files by its root": "ls /proc/$SUPERVISOR/root/ || ls /proc/$SUPERVISOR/cwd/",
    "a ptrace of the supervisor": "strace -f -o /dev/null -p $SUPERVISOR",
    "a ptrace of tailscaled": "strace -f -o /dev/null -p $TAILSCALED",
    "a ptrace of the anchor": "strace -f -o /dev/null -p $ANCHOR",
    "a mount": "mount -t tmpfs x /mnt || umount /etc",
    "a mount in a user namespace, seen by others": "unshare -Urm sh -c 'umount /etc'",
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_hostile_command_is_refused(prison: Session, what: str) -> None:
    parts = {part.upper(): str(pid(prison, part)) for part in ("anchor", "supervisor", "tailscaled")}
    done = prison.exec("timeout", "-s", "KILL", "5", "sh", "-c", REFUSED[what], env=parts)
    assert done.returncode not in (0, 126, 127, 137), f"{what}: {done}"  # 127: what it tries with is not there
    assert done.stderr
    assert is_well(prison)


def test_setuid_programs_have_no_more_rights_inside(prison: Session) -> None:
    cat = Path(f"/opt/tsenv-lab/setuid-cat-{os.getpid()}")
    shutil.copy("/bin/cat", cat)
    cat.chmod(0o4755)
    try:
        outside = prison.machine.run([str(cat), "/proc/self/status"]).stdout
        inside = prison.exec(str(cat), "/proc/self/status").stdout
    finally:
        cat.unlink()
    assert f"Uid:\t{UID}\t0\t0\t0" in outside, "it is a setuid program"
    assert f"Uid:\t{UID}\t{UID}\t{UID}\t{UID}" in inside
    assert "CapEff:\t0000000000000000" in inside


def test_the_supervisor_shows_itself_to_nobody(prison: Session) -> None:
    """It held a key: not even its own user, outside, may look into it, and it leaves no core."""
    supervisor = pid(prison, "supervisor")
    for what in ("mem", "environ", "fd/", "maps"):
        done = prison.machine.run(["ls" if what == "fd/" else "head", f"/proc/{supervisor}/{what}"])
        assert "Permission denied" in done.stderr, what
    assert "not permitted" in prison.machine.run(["strace", "-f", "-o", "/dev/null", "-p", str(supervisor)]).stderr
    for part in ("supervisor", "tailscaled"):
        limits = Path(f"/proc/{pid(prison, part)}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits), part


def test_dns_files_are_the_users_own_but_no_way_out(prison: Session) -> None:
    """Whoever asks another resolver than the session's gets no answer: the packet is refused, whatever the file says.

    (That tailscaled may take up the resolver it finds there, and ask it itself, is in SECURITY.md.)
    """
    query = "import socket; s = socket.socket(2, 2); s.connect(('10.77.0.1', 53)); s.send(b'x' * 20); s.send(b'x' * 20)"
    assert "not permitted" in prison.exec(*python(query)).stderr
    prison.exec("sh", "-c", "echo 192.0.2.1 planted >>/etc/hosts")
    assert "planted" not in Path("/etc/hosts").read_text()


def test_the_hosts_loopback_lan_and_abstract_sockets(lab: Lab, prison: Session) -> None:
    port = some_port()
    children = [prison.machine.popen(server(address, port, "host")) for address in ("127.0.0.1", lab.machine.address)]
    try:
        for child in children:
            await_ready(child)
        gateway = "10.77.0.1"
        for host in ("127.0.0.1", "localhost", lab.machine.address, gateway, "169.254.1.1"):
            assert prison.exec("curl", "-sS", "--max-time", "3", f"http://{host}:{port}/").returncode, host
        assert prison.exec("curl", "-sS", "--max-time", "3", f"http://{lab.internet.address}/").returncode
        assert prison.exec("curl", "-sS", "--max-time", "3", f"http://{lab.my_server.address}/").returncode
    finally:
        for child in children:
            stop(child)
    name = f"tsenv-test-{os.getpid()}"
    listener = prison.machine.popen(["socat", f"ABSTRACT-LISTEN:{name},fork", "EXEC:echo host"])
    try:
        until(lambda: name in prison.machine.run(["cat", "/proc/net/unix"]).stdout, "the abstract socket")
        assert prison.machine.run(["socat", "-", f"ABSTRACT-CONNECT:{name}"]).stdout == "host\n"
        assert prison.exec("socat", "-", f"ABSTRACT-CONNECT:{name}").returncode != 0
    finally:
        stop(listener)


def test_killing_the_session_from_inside_frees_nobody(lab: Lab, own: Machine, session_name: str) -> None:
    """The same user may signal all its parts. That ends the session; it opens nothing."""
    before = packets(lab, own)
    session = isolated(lab, own, session_name)
    pids = session.status()["pids"]
    child = session.popen(*python(FLOOD, ADDRESS, ADDRESS6), stdin=subprocess.PIPE)
    script = f"kill -9 {' '.join(str(number) for number in pids.values())}; exit 0"
    session.exec("sh", "-c", script)
    time.sleep(0.5)  # it goes on sending
    try:
        alive = child.poll() is None
        if alive:
            child.communicate(timeout=10)
    finally:
        stop(child)
    session.tsenv("down", "--force")
    assert packets(lab, own) == before


# --- another user ---------------------------------------------------------------------------------------------------


OTHERS = {
    "list": "ls $D",
    "read": "cat $D/session.json",
    "join": "sh $D/join true",
    "use LocalAPI": "tailscale --socket=$D/tailscaled.sock status",
    "enter by the anchor": "nsenter -t $ANCHOR -U -n --preserve-credentials true",
    "see the anchor's namespace": "readlink /proc/$ANCHOR/ns/net",
    "signal": "kill -0 $SUPERVISOR || kill -0 $ANCHOR || kill -0 $TAILSCALED",
    "read the state": "ls /home/tsenv-lab/.local/state/tsenv",
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_user_cannot(prison: Session, what: str) -> None:
    parts = {part.upper(): str(pid(prison, part)) for part in ("anchor", "supervisor", "tailscaled")}
    env = {"D": str(folder(prison)), **parts}
    done = prison.machine.run(["sh", "-c", OTHERS[what]], user="tsenv-other", env=env)
    assert done.returncode != 0, str(done)
    assert is_well(prison)


def test_all_of_it_is_private(prison: Session) -> None:
    place = folder(prison)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    home = Path("/home/tsenv-lab/.local/state/tsenv") / prison.name
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert record(prison)["options"]["isolated"] is True


PLANTS = {
    "a directory": "mkdir -m 0777 $D",
    "a directory that looks private": "mkdir -m 0700 $D",
    "a link to a directory of theirs": "mkdir -p /tmp/theirs; chmod 0777 /tmp/theirs; ln -s /tmp/theirs $D",
    "a link to one of ours": "ln -s /home/tsenv-lab $D",
    "a dangling link": "ln -s /tmp/nothing-here $D",
    "a file": ": >$D",
    "a fifo": "mkfifo $D",
}


# `up` tries them all; the other verbs go by the same check.
@pytest.mark.parametrize(
    ("verb", "plant"),
    [*(("up", plant) for plant in PLANTS), *((verb, "a directory") for verb in ("exec", "list", "status", "down"))],
)
def test_what_another_user_planted_in_tmp_is_refused(
    lab: Lab, own: Machine, session_name: str, verb: str, plant: str
) -> None:
    """Where neither XDG_RUNTIME_DIR nor /run/user/UID is to be had, sessions lie in /tmp: there anybody may be first."""
    own.run(["umount", "-l", f"/run/user/{UID}"], user="root")
    own.run(["rmdir", f"/run/user/{UID}"], user="root")
    place = f"/tmp/tsenv-{UID}"
    try:
        own.run(["sh", "-c", PLANTS[plant]], user="tsenv-other", env={"D": place}, check=True)
        own.run(["sh", "-c", f"mkdir -p $D/{session_name} 2>/dev/null; printf 'echo stolen' 2>/dev/null >$D/{session_name}/join"],
                user="tsenv-other", env={"D": place})  # fmt: skip
        words = {"up": ["up", "--login-server", lab.control.name_url], "exec": ["exec", "true"]}.get(verb, [verb])
        done = own.run(["tsenv", "-n", session_name, *words], env={"XDG_RUNTIME_DIR": None, "TS_AUTHKEY": "x"})
        assert done.returncode == 125, str(done)
        assert place in done.stderr
        assert "stolen" not in done.stdout
    finally:
        own.run(["sh", "-c", f"rm -rf {place} /tmp/theirs /tmp/nothing-here"], user="root")


def test_a_shim_runs_nothing_that_another_user_planted(lab: Lab, own: Machine, session_name: str) -> None:
    """The session is gone, and its directory below /tmp; a shell still has its shims on PATH."""
    own.run(["umount", "-l", f"/run/user/{UID}"], user="root")
    own.run(["rmdir", f"/run/user/{UID}"], user="root")
    env: dict[str, str | None] = {"XDG_RUNTIME_DIR": None}
    place = f"/tmp/tsenv-{UID}"
    own.run(["tsenv", "-n", session_name, "up", "--login-server", lab.control.name_url, "--auth-key-file", "-"],
            input=lab.control.auth_key(), env=env, check=True)  # fmt: skip
    told = json.loads(own.run(["tsenv", "-n", session_name, "env", "--json"], env=env, check=True).stdout)
    shim = [f"{told['TSENV_BIN']}/curl", *PEER[1:]]
    assert own.run(shim, env=env).stdout == "my-server of tailnet A\n"
    own.run(["tsenv", "-n", session_name, "down"], env=env, check=True)
    try:
        own.run(["rm", "-rf", place], user="root", check=True)
        plant = "mkdir -p $D; touch $D/ready; echo echo stolen >$D/join; chmod -R a+rX $D"
        own.run(["sh", "-c", plant], user="tsenv-other", env={"D": f"{place}/{session_name}"}, check=True)
        done = own.run(shim, env=env)
        assert (done.returncode, done.stdout) == (125, "")
        assert f"session '{session_name}' is not up" in done.stderr
    finally:
        own.run(["rm", "-rf", place], user="root", check=True)


def test_tmp_serves_where_nothing_else_does(lab: Lab, own: Machine, session_name: str) -> None:
    own.run(["umount", "-l", f"/run/user/{UID}"], user="root")
    own.run(["rmdir", f"/run/user/{UID}"], user="root")
    env = {"XDG_RUNTIME_DIR": None}
    own.run(["tsenv", "-n", session_name, "up", "--login-server", lab.control.name_url, "--auth-key-file", "-"],
            input=lab.control.auth_key(), env=env, check=True)  # fmt: skip
    assert own.run(["tsenv", "-n", session_name, "exec", *PEER], env=env).stdout == "my-server of tailnet A\n"
    mode = own.run(["stat", "-c", "%a %U", f"/tmp/tsenv-{UID}", f"/tmp/tsenv-{UID}/{session_name}"]).stdout
    assert mode == "700 tsenv-lab\n700 tsenv-lab\n"
    own.run(["tsenv", "-n", session_name, "down"], env=env, check=True)


def test_hard_links_are_not_written_through(tmp_path: Path) -> None:
    """In a directory that was open for a while somebody left a hard link: it is replaced, not written."""
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "session.json").hardlink_to(tmp_path / "theirs")
    replace(str(tmp_path / "session.json"), "ours")
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert (tmp_path / "session.json").read_text() == "ours"


def test_the_kill_switch_outlives_the_daemon(prison: Session) -> None:
    """A command can kill the daemon, as it is of the same user."""
    kill(prison, "tailscaled")
    tried = prison.exec(*python(WAYS, ADDRESS, ADDRESS6), check=True).stdout
    assert "WENT OUT" not in tried
    until(lambda: is_well(prison), "another daemon")

#!/opt/tsenv-lab/venv/bin/python
"""The embedded tailnet: real control servers, real peers and computers to use them from, on no network but its own.

tests/lab/lab.py up                      start it and leave it running
tests/lab/lab.py run [--key] -- CMD…     run a command as tsenv-lab on the computer "machine"
tests/lab/lab.py shell                   a shell there
tests/lab/lab.py key | nodes | status
tests/lab/lab.py down                    end it; nothing is left

LAN 10.77.0.0/24, fd77::/64
.1   net        headscale A :8080 (control.lab.test), headscale B :8081 (control-b.lab.test), DERP, STUN, DNS
.2   my-server  peer in tailnet A: sshd, HTTP, echo, iperf3
.3   my-server  peer in tailnet B, of the same name (the computer's name in the lab: my-server-b)
.4   internet   in no tailnet: HTTP, echo, iperf3, a CONNECT proxy (port 80); counts who sent it packets;
                its public address, and what internet.lab.test resolves to, is 203.0.113.4 (routed by .1)
.5   exit-node  on demand
.6   router     on demand, with 10.88.0.0/24 and the host 10.88.0.2 behind it
.100 machine    where commands run; .101… more of them
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING

import lab_state
from lab_box import (
    Box,
    Machine,
    allocate_octet,
    as_machine,
    dnsmasq_argv,
    environment,
    find_box,
    free_octet,
    get_box,
    make_box,
    make_network,
    remove_box,
)
from lab_control import CONTROL_A, CONTROL_B, DERP_PORT, IN_NET, STUN_PORT, Control, TestControl, testcontrol
from lab_state import BIN, FOLDER, HERE, LabError, sh

if TYPE_CHECKING:
    from collections.abc import Iterator

# The internet host's public addresses: an exit node refuses to forward to private ones.
INTERNET = "203.0.113.4"
INTERNET6 = "2001:db8:77::4"

FORWARD = "for v in ipv4/ip_forward ipv6/conf/all/forwarding; do echo 1 >/proc/sys/net/$v; done\n"

SSH_NAMES = "my-server my-server.* 100.64.* fd7a:115c:* 10.77.0.2 10.77.0.3"

SSHD = """
Port 22
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
"""

SSH_CLIENT = """
Host {names}
  User tsenv-lab
  IdentityFile ~/.ssh/tsenv_lab_key
  IdentitiesOnly yes
  UserKnownHostsFile ~/.ssh/tsenv_lab_known_hosts
  StrictHostKeyChecking yes
"""


class Lab:
    """The running lab, seen from any process: everything it knows lies in lab.json."""

    def __init__(self) -> None:
        """Use ``start``, ``attach`` or ``acquire``."""
        self.control: Control = CONTROL_A
        self.control_b: Control = CONTROL_B
        self._in_use: IO[str] | None = None

    # -- life ---------------------------------------------------------------------------------------------------------

    @classmethod
    def start(cls, *, keep: bool = False) -> Lab:
        """Start a lab, after cleaning up what an earlier one left. ``keep``: no test run ends it."""
        with lab_state.locked("life"):
            return cls._start(keep=keep)

    @classmethod
    def attach(cls) -> Lab:
        """Use the lab that runs."""
        lab_state.load()
        return cls()

    @classmethod
    def acquire(cls) -> Lab:
        """Attach to the running lab, or start one; ``release`` by its last user ends it.

        A lab that nobody uses and nobody asked to keep was left by a killed run: it is not trusted, but replaced.
        """
        with lab_state.locked("life"):
            in_use = lab_state.lock_file("in-use").open("a")
            try:
                running = lab_state.STATE.exists() and (lab_state.load()["keep"] or not _lock(in_use, fcntl.LOCK_EX))
                lab = cls() if running else cls._start(keep=False)
                _lock(in_use, fcntl.LOCK_SH)
            except BaseException:
                in_use.close()
                raise
            lab._in_use = in_use
            return lab

    def release(self) -> None:
        """Say that this process needs the lab no more."""
        with lab_state.locked("life"):
            if self._in_use:
                alone = _lock(self._in_use, fcntl.LOCK_EX)
                if alone and lab_state.STATE.exists() and not lab_state.load()["keep"]:
                    self._wipe()
                self._in_use.close()
                self._in_use = None

    def stop(self) -> None:
        """End the lab: exactly the processes it started and what runs in its networks; then remove all it made."""
        with lab_state.locked("life"):
            self._wipe()

    @classmethod
    def _start(cls, *, keep: bool) -> Lab:
        lab = cls()
        lab._wipe()
        for folder in ("log", "boxes", "peers", "ssh"):
            (FOLDER / folder).mkdir(parents=True)
        lab_state.save({"keep": keep, "started": time.time(), "processes": [], "boxes": {}})
        try:
            lab._build()
        except BaseException:
            log = Path("/tmp/tsenv-lab-failed")
            shutil.rmtree(log, ignore_errors=True)
            shutil.copytree(FOLDER / "log", log)
            lab._wipe()
            raise
        return lab

    @staticmethod
    def _wipe() -> None:
        lab_state.wipe()
        shutil.rmtree(_client_ssh(), ignore_errors=True)

    def _build(self) -> None:
        """Start all parts, the slow ones first, and wait for each where it is needed."""
        _make_lan()
        derp = lab_state.spawn(
            "derp",
            [
                *IN_NET,
                BIN / "tsenv-lab-derp",
                f"-listen=10.77.0.1:{DERP_PORT}",
                f"-stun=10.77.0.1:{STUN_PORT}",
            ],
        )
        servers = [(control, control.launch()) for control in (self.control, self.control_b)]
        dns = lab_state.spawn("dns", [*IN_NET, *_lan_dns_argv()])
        _make_ssh_keys()
        with ThreadPoolExecutor() as pool:
            parts: list[Future[Box]] = [pool.submit(make_box, "machine", 100), pool.submit(_make_internet)]
            parts += [
                pool.submit(_make_server, control, process, name, octet)
                for (control, process), (name, octet) in zip(
                    servers, (("my-server", 2), ("my-server-b", 3)), strict=True
                )
            ]
            lab_state.wait_for_line(derp, "^ready$")
            lab_state.wait_for_line(dns, "started, version")
            for part in parts:
                part.result()

    # -- parts --------------------------------------------------------------------------------------------------------

    @property
    def machine(self) -> Machine:
        """The computer where commands run unless a test wants another; /tmp and /run/user are the host's."""
        return as_machine(get_box("machine"))

    @property
    def internet(self) -> Box:
        """The host that is in no tailnet, http://internet.lab.test/."""
        return get_box("internet")

    @property
    def my_server(self) -> Box:
        """The peer in tailnet A; in the tailnet its name is my-server."""
        return get_box("my-server")

    @property
    def my_server_b(self) -> Box:
        """The peer in tailnet B; there, its name is my-server too."""
        return get_box("my-server-b")

    def exit_node(self) -> Box:
        """A peer that offers itself as exit node, approved. Started when first asked for."""
        with lab_state.locked("parts"):
            if box := find_box("exit-node"):
                return box
            return _make_router(self.control, "exit-node", 5, ("0.0.0.0/0", "::/0"), "--advertise-exit-node")

    def router(self) -> Box:
        """A peer that routes 10.88.0.0/24, approved; http://10.88.0.2/ says "subnet". Started when first asked for."""
        with lab_state.locked("parts"):
            if box := find_box("router"):
                return box
            _make_subnet()
            return _make_router(self.control, "router", 6, ("10.88.0.0/24",), "--advertise-routes=10.88.0.0/24")

    def new_machine(
        self,
        name: str | None = None,
        *,
        resolver: str = "lan",
        nsswitch: str | None = None,
        private: bool = True,
    ) -> Machine:
        """Make one more computer: see ``lab_box.RESOLVERS``; ``nsswitch`` replaces what follows "hosts:".

        ``private``: its own /tmp and /run/user, so that any session name is free. It lives until ``remove_machine``
        or the lab's end.
        """
        octet = allocate_octet()
        return as_machine(
            make_box(name or f"machine{octet}", octet, resolver=resolver, nsswitch=nsswitch, private=private)
        )

    def remove_machine(self, machine: Machine) -> None:
        """Remove a computer and end what runs on it."""
        remove_box(machine)

    @contextlib.contextmanager
    def testcontrol(self, **flags: str | int | bool) -> Iterator[TestControl]:
        """Run a test control server, e.g. ``lab.testcontrol(require_machine_auth=True)``."""
        octet = allocate_octet()  # any number of our own makes a port
        try:
            with testcontrol(9000 + octet, **flags) as server:
                yield server
        finally:
            free_octet(octet)


def _lock(file: IO[str], mode: int) -> bool:
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make_lan() -> None:
    make_network("tsl-net")
    sh(
        *("ip", "-n", "tsl-net", "-batch", "-"),
        stdin=f"""link add br0 type bridge forward_delay 0
        link set br0 up
        addr add 10.77.0.1/24 dev br0
        addr add fd77::1/64 dev br0 nodad
        route add {INTERNET} via 10.77.0.4
        route add {INTERNET6} via fd77::4
        """,
    )
    # .1 is the LAN's router, too: it knows the way to the public addresses, and keeps it to itself.
    sh(
        *(*IN_NET, "sh", "-ec"),
        FORWARD + "for i in all default br0; do echo 0 >/proc/sys/net/ipv4/conf/$i/send_redirects; done",
    )


def _lan_dns_argv() -> list[str]:
    # IPv6 has names of its own: Debian 12's pasta loses IPv6 answers in the first second of a namespace (the source ::
    # of duplicate address detection becomes the guest's address to it), and a test should say when it wants that.
    names = {
        "control.lab.test": "10.77.0.1",
        "control-b.lab.test": "10.77.0.1",
        "control6.lab.test": "fd77::1",
        "internet.lab.test": INTERNET,
        "internet6.lab.test": INTERNET6,
    }
    records = [f"--host-record={name},{addresses}" for name, addresses in names.items()]
    # Everything else does not exist, at once: a query that nobody answers would cost its asker seconds.
    return dnsmasq_argv("10.77.0.1", "--listen-address=fd77::1", "--local=/#/", *records)


def _client_ssh() -> Path:
    return Path(pwd.getpwnam("tsenv-lab").pw_dir) / ".ssh"


def _make_ssh_keys() -> None:
    """Make the lab's host key and user key, and let the lab's user use them by name without a question."""
    folder = FOLDER / "ssh"
    for key in ("host_key", "user_key"):
        sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"tsenv lab {key}", "-f", folder / key)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    (folder / "sshd_config").write_text(SSHD.format(folder=folder))
    account, client = pwd.getpwnam("tsenv-lab"), _client_ssh()
    client.mkdir(mode=0o700)
    (client / "config").write_text(SSH_CLIENT.format(names=SSH_NAMES))
    (client / "tsenv_lab_known_hosts").write_text("* " + (folder / "host_key.pub").read_text())
    shutil.copy(folder / "user_key", client / "tsenv_lab_key")
    for path in (client, *client.iterdir()):
        os.chown(path, account.pw_uid, account.pw_gid)


def _serve(box: Box, body: str) -> None:
    """Start what every lab host serves."""
    services = box.spawn(f"services-{box.name}", ["/usr/bin/python3", "-I", HERE / "services.py", "--body", body])
    speed = box.spawn(f"iperf3-{box.name}", ["/usr/bin/iperf3", "--server", "--forceflush"])
    lab_state.wait_for_line(services, "^ready$")
    lab_state.wait_for_line(speed, "Server listening")


def _make_internet() -> Box:
    box = make_box("internet", 4)
    for public in (INTERNET, INTERNET6):
        sh("ip", "-n", box.netns, "addr", "add", public, "dev", "lo")
    sh(
        *(*box.enter(), "nft", "-f", "-"),
        stdin="""table inet lab {
          set seen4 { type ipv4_addr; flags dynamic; counter; }
          set seen6 { type ipv6_addr; flags dynamic; counter; }
          chain in { type filter hook input priority 0;
            iif lo accept
            icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert, mld2-listener-report } accept
            add @seen4 { ip saddr }
            add @seen6 { ip6 saddr }
          }
        }""",
    )
    _serve(box, "internet")
    return box


def _make_server(control: Control, process: lab_state.Process, name: str, octet: int) -> Box:
    box = make_box(name, octet, hostname="my-server")
    _serve(box, f"my-server of tailnet {control.name.upper()}")
    sshd = box.spawn(f"sshd-{name}", ["/usr/sbin/sshd", "-D", "-e", "-f", FOLDER / "ssh/sshd_config"])
    control.wait(process)
    control.cli("users", "create", "lab")
    _join(box, control, "my-server", "--netfilter-mode=off")
    lab_state.wait_for_line(sshd, "Server listening on ::")
    return box


def _join(box: Box, control: Control, hostname: str, *up: str) -> None:
    """Run tailscaled on a lab host and bring it into the tailnet."""
    folder = FOLDER / "peers" / box.name
    folder.mkdir(mode=0o700)
    socket = folder / "tailscaled.sock"
    daemon = box.spawn(
        f"tailscaled-{box.name}",
        [
            BIN / "tailscaled",
            f"--statedir={folder}",
            f"--socket={socket}",
            "--port=41641",
            "--no-logs-no-support",
        ],
    )
    key = folder / "key"
    key.write_text(control.auth_key(ephemeral=False, expiration="5m"))
    lab_state.wait_until(f"{daemon.name} to open its socket", socket.exists)
    words = [f"--login-server={control.url}", f"--auth-key=file:{key}", f"--hostname={hostname}"]
    sh(
        *box.enter(),
        BIN / "tailscale",
        f"--socket={socket}",
        "up",
        "--accept-dns=false",
        "--timeout=20s",
        *words,
        *up,
    )


def _make_router(control: Control, name: str, octet: int, routes: tuple[str, ...], *up: str) -> Box:
    box = make_box(name, octet)
    sh(*box.enter(), "sh", "-ec", FORWARD)
    if name == "router":
        sh(
            *("ip", "-n", "tsl-subnet", "-batch", "-"),
            stdin=f"""link add eth0 type veth peer name subnet0 netns {box.netns}
            addr add 10.88.0.2/24 dev eth0
            link set eth0 up
            route add default via 10.88.0.1
            """,
        )
        sh("ip", "-n", box.netns, "addr", "add", "10.88.0.1/24", "dev", "subnet0")
        sh("ip", "-n", box.netns, "link", "set", "subnet0", "up")
    _join(box, control, name, *up)
    node = control.find(name)
    if not node:
        message = f"headscale does not know {name}"
        raise LabError(message)
    control.approve_routes(node, routes)
    return box


def _make_subnet() -> None:
    make_network("tsl-subnet")
    inside = ("nsenter", "--net=/run/netns/tsl-subnet", "--")
    host = lab_state.spawn(
        "services-subnet", [*inside, "/usr/bin/python3", "-I", HERE / "services.py", "--body", "subnet"]
    )
    lab_state.wait_for_line(host, "^ready$")


# -- command line ---------------------------------------------------------------------------------------------------------


def _up(options: argparse.Namespace) -> int:
    begin = time.monotonic()
    if not options.fresh:
        with contextlib.suppress(LabError):
            Lab.attach()
            with lab_state.edited() as state:
                state["keep"] = True
            print("the lab is up already (it stays up until: lab.py down)")
            return 0
    lab = Lab.start(keep=True)
    print(f"the lab is up after {time.monotonic() - begin:.1f} s: {lab.control.url}, {lab.control_b.url}")
    return 0


def _down(_: argparse.Namespace) -> int:
    Lab().stop()
    return 0


def _run(options: argparse.Namespace) -> int:
    lab = Lab.attach()
    argv = options.command[1:] if options.command[:1] == ["--"] else options.command
    box = as_machine(get_box(options.machine))
    variables = environment(options.user)
    if options.key:
        variables["TS_AUTHKEY"] = (lab.control_b if options.key == "b" else lab.control).auth_key()
    prefix = box.argv_prefix(options.user)
    # Python ignores it, exec passes that on, and Debian 12's pasta then gives up.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execvpe(prefix[0], [*prefix, *(argv or ["bash"])], variables)


def _key(options: argparse.Namespace) -> int:
    lab = Lab.attach()
    print((lab.control_b if options.tailnet == "b" else lab.control).auth_key(ephemeral=not options.persistent))
    return 0


def _nodes(options: argparse.Namespace) -> int:
    lab = Lab.attach()
    for node in (lab.control_b if options.tailnet == "b" else lab.control).nodes():
        print(f"{node.given_name}\t{','.join(node.addresses)}\t{'online' if node.online else 'offline'}")
    return 0


def _status(_: argparse.Namespace) -> int:
    Lab.attach()
    dead = 0
    for process in lab_state.processes(lab_state.load()):
        dead += not process.alive()
        print(f"{process.name}\t{process.pid}\t{'runs' if process.alive() else 'ENDED'}")
    return 1 if dead else 0


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    up = verbs.add_parser("up", help="start the lab and leave it running")
    up.add_argument("--fresh", action="store_true", help="replace a running one")
    up.set_defaults(verb=_up)
    verbs.add_parser("down", help="end the lab").set_defaults(verb=_down)
    verbs.add_parser("status", help="list the lab's processes").set_defaults(verb=_status)
    for name in ("run", "shell"):
        run = verbs.add_parser(name, help="run a command, or a shell, on a computer of the lab")
        run.add_argument("--key", nargs="?", const="a", choices="ab", help="give it a fresh key in TS_AUTHKEY")
        run.add_argument("--machine", default="machine")
        run.add_argument("--user", default="tsenv-lab")
        run.add_argument("command", nargs=argparse.REMAINDER)
        run.set_defaults(verb=_run)
    for name, verb in (("key", _key), ("nodes", _nodes)):
        about = verbs.add_parser(
            name, help={"key": "print a fresh auth key", "nodes": "list the tailnet's nodes"}[name]
        )
        about.add_argument("--tailnet", default="a", choices="ab")
        about.add_argument("--persistent", action="store_true")
        about.set_defaults(verb=verb)
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("lab.py: the lab makes network namespaces and needs root")
    try:
        return int(options.verb(options))
    except LabError as error:
        sys.exit(f"lab.py: {error}")


if __name__ == "__main__":
    sys.exit(main())

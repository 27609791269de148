"""The lab's computers: each a network namespace with an uplink, and mount and UTS namespaces of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lab_state
from lab_state import BIN, FOLDER, HERE, LabError, Process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# Name services as the four usual kinds of machines have them (DESIGN 2); "lan" is what most have.
RESOLVERS = ("lan", "stub", "loopback", "none")
LAN_DNS = "10.77.0.1"
PATH = f"{lab_state.VENV}/bin:{BIN}:/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Completed:
    """What a command on a lab computer did. Bytes that are no UTF-8 come through as surrogate escapes."""

    args: list[str]
    returncode: int
    stdout: str
    stderr: str

    @property
    def stdout_bytes(self) -> bytes:
        """Standard output as it was."""
        return self.stdout.encode(errors="surrogateescape")

    def __str__(self) -> str:
        """Show everything a failing test's reader wants."""
        return f"{' '.join(self.args)}: exit status {self.returncode}\n{self.stdout}{self.stderr}"


class LateCommandError(AssertionError):
    """A command on a lab computer did not end in time; the message holds what it had said."""


class FailedCommandError(AssertionError):
    """A command run with check=True failed; the message holds what it said."""


def environment(user: str, changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Build a login's environment from nothing; a change to None removes a variable."""
    account = pwd.getpwnam(user)
    variables: dict[str, str | None] = {
        "HOME": account.pw_dir,
        "LANG": "C.UTF-8",
        "LOGNAME": user,
        "PATH": PATH if account.pw_uid else f"{PATH}:/usr/sbin:/sbin",
        "SHELL": account.pw_shell,
        "TERM": "xterm-256color",
        "USER": user,
        "XDG_RUNTIME_DIR": f"/run/user/{account.pw_uid}" if account.pw_uid else None,
        **(changes or {}),
    }
    return {name: value for name, value in variables.items() if value is not None}


@dataclass(frozen=True)
class Box:
    """One computer of the lab.

    ``octet`` is the last part of its addresses 10.77.0.N and fd77::N; ``holder`` the process that keeps its namespaces.
    """

    name: str
    octet: int
    holder: Process

    @property
    def netns(self) -> str:
        """The name that ``ip netns`` knows its network by."""
        return lab_state.NETNS_PREFIX + self.name

    @property
    def address(self) -> str:
        """Its IPv4 address on the LAN."""
        return f"10.77.0.{self.octet}"

    @property
    def address6(self) -> str:
        """Its IPv6 address on the LAN."""
        return f"fd77::{self.octet}"

    @property
    def port(self) -> str:
        """The bridge's end of its cable, in the namespace ``net``."""
        return f"port{self.octet}"

    def enter(self, cwd: str = "/") -> list[str]:
        """Argv prefix that runs a command as root on this computer."""
        return ["nsenter", "-t", str(self.holder.pid), "-m", "-n", "-u", f"--wdns={cwd}", "--"]

    def argv_prefix(self, user: str = "tsenv-lab", cwd: str | None = None) -> list[str]:
        """Argv prefix that runs a command as ``user`` here, for pexpect; pass ``environment(user)`` beside it.

        It ends in exec: the process started *is* the command, with its pid, terminal, signals and exit status.
        Only what a login takes away is taken: the bounding set stays, so that setuid programs work.
        """
        account = pwd.getpwnam(user)
        return [
            *self.enter(cwd or account.pw_dir),
            "setpriv",
            f"--reuid={account.pw_uid}",
            f"--regid={account.pw_gid}",
            "--init-groups",
            "--inh-caps=-all",
            "--",
        ]

    def popen(
        self,
        argv: Sequence[str],
        *,
        user: str = "tsenv-lab",
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = subprocess.PIPE,
        stderr: int | None = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start a command here, in a session (and so a process group) of its own."""
        return subprocess.Popen(
            [*self.argv_prefix(user, cwd), *argv],
            env=environment(user, env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "tsenv-lab",
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
        input: str | bytes | None = None,  # noqa: A002 - the name that subprocess.run has
        timeout: float = 60,
        check: bool = False,
    ) -> Completed:
        """Run a command here to its end. It has ended when its output pipes are closed, too."""
        data = input.encode(errors="surrogateescape") if isinstance(input, str) else input
        child = self.popen(
            argv, user=user, env=env, cwd=cwd, stdin=subprocess.DEVNULL if data is None else subprocess.PIPE
        )
        with child:
            try:
                out, err = child.communicate(data, timeout)
            except subprocess.TimeoutExpired as late:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                for pipe in (child.stdout, child.stderr):  # a daemon may hold the other end: do not read on
                    if pipe:
                        pipe.close()
                said = (late.stdout or b"") + (late.stderr or b"")
                message = f"{' '.join(argv)}: no end after {timeout} s\n{said.decode(errors='replace')}"
                raise LateCommandError(message) from None
        done = Completed(
            list(argv),
            child.returncode,
            out.decode(errors="surrogateescape"),
            err.decode(errors="surrogateescape"),
        )
        if check and done.returncode:
            raise FailedCommandError(str(done))
        return done

    def spawn(self, name: str, argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Process:
        """Start a daemon of the lab here, as root."""
        base = environment("root")
        return lab_state.spawn(name, [*self.enter(), *argv], {**base, **(env or {})})

    def unplug(self) -> None:
        """Pull the cable: no carrier; addresses and routes stay, as on a real machine."""
        lab_state.sh("ip", "-n", "tsl-net", "link", "set", self.port, "down")

    def plug(self) -> None:
        """Put the cable back."""
        lab_state.sh("ip", "-n", "tsl-net", "link", "set", self.port, "up")

    def packets_from(self, address: str) -> int:
        """Count the packets that came in from an address since the lab began (IPv6: neighbour discovery excepted)."""
        known = "seen6" if ":" in address else "seen4"
        dump = json.loads(lab_state.sh(*self.enter(), "nft", "-j", "list", "set", "inet", "lab", known))
        for entry in dump["nftables"]:
            for element in entry.get("set", {}).get("elem", []):
                if element["elem"]["val"] == address:
                    return int(element["elem"]["counter"]["packets"])
        return 0


class Machine(Box):
    """A computer where commands run as an ordinary user."""


def allocate_octet() -> int:
    """Take a free address on the LAN; ``free_octet`` gives it back."""
    with lab_state.edited() as state:
        taken = set(state.setdefault("taken", [])) | {entry[0] for entry in state["boxes"].values()}
        octet = next((number for number in range(101, 255) if number not in taken), None)
        if octet is None:
            message = "all addresses of the LAN are taken: remove machines"
            raise LabError(message)
        state["taken"].append(octet)
    return octet


def free_octet(octet: int) -> None:
    """Give an address back."""
    with lab_state.edited() as state:
        state["taken"] = [number for number in state.get("taken", []) if number != octet]


def remove_box(box: Box) -> None:
    """End what runs in a computer's network, and remove it."""
    lab_state.retire(lab_state.residents([box.netns]))
    # By itself: the kernel removes a deleted namespace's links some time later, and the name is needed again.
    lab_state.sh("ip", "-n", "tsl-net", "link", "del", box.port)
    lab_state.sh("ip", "netns", "del", box.netns)
    shutil.rmtree(FOLDER / "boxes" / box.name, ignore_errors=True)
    with lab_state.edited() as state:
        del state["boxes"][box.name]
    free_octet(box.octet)


def make_network(name: str) -> None:
    """Make a network namespace with a loopback, in which addresses are usable at once."""
    lab_state.sh("ip", "netns", "add", name)
    # The ping range is systemd's default on real machines, which a fresh namespace lacks; without it no ping sockets.
    lab_state.sh(
        "nsenter",
        f"--net=/run/netns/{name}",
        "sh",
        "-ec",
        """ip link set lo up
        for dad in default all; do echo 0 >/proc/sys/net/ipv6/conf/$dad/accept_dad; done
        echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range""",
    )


def make_box(
    name: str,
    octet: int,
    *,
    hostname: str | None = None,
    resolver: str = "lan",
    nsswitch: str | None = None,
    private: bool = False,
) -> Box:
    """Build a computer, connect it to the LAN and record it.

    ``nsswitch`` is what follows "hosts:"; ``private`` gives it a /tmp and runtime directories of its own.
    """
    netns = lab_state.NETNS_PREFIX + name
    make_network(netns)
    _connect(netns, octet)
    stage = FOLDER / "boxes" / name
    _seed(stage / "seed", hostname or name, octet, resolver, nsswitch)
    holder = lab_state.spawn(
        f"box-{name}",
        [
            *("nsenter", f"--net=/run/netns/{netns}", "--"),
            *("unshare", "--mount", "--uts", "--propagation", "slave", "--"),
            *("/bin/sh", HERE / "box.sh", stage, hostname or name, "private" if private else "shared"),
        ],
    )
    lab_state.wait_for_line(holder, "^ready$")
    box = Box(name, octet, holder)
    with lab_state.edited() as state:
        state["boxes"][name] = [octet, holder.name, holder.pid, holder.start]
    if resolver in ("stub", "loopback"):
        _local_resolver(box, "127.0.0.53" if resolver == "stub" else "127.0.0.1")
    return box


def find_box(name: str) -> Box | None:
    """Return a recorded computer."""
    entry = lab_state.load()["boxes"].get(name)
    return Box(name, entry[0], Process(*entry[1:])) if entry else None


def get_box(name: str) -> Box:
    """Return a recorded computer, which must be there."""
    if not (box := find_box(name)):
        message = f"the lab has no computer {name!r}"
        raise LabError(message)
    return box


def as_machine(box: Box) -> Machine:
    """Give a computer the face that tests use."""
    return Machine(box.name, box.octet, box.holder)


def _connect(netns: str, octet: int) -> None:
    port = f"port{octet}"
    lab_state.sh(
        *("ip", "-n", "tsl-net", "-batch", "-"),
        stdin=f"link add {port} type veth peer name eth0 netns {netns}\nlink set {port} master br0 up\n",
    )
    lab_state.sh(
        *("ip", "-n", netns, "-batch", "-"),
        stdin=f"""link set eth0 up
        addr add 10.77.0.{octet}/24 dev eth0
        addr add fd77::{octet}/64 dev eth0 nodad
        route add default via 10.77.0.1
        route add ::/0 via fd77::1 dev eth0
        """,
    )


def _seed(seed: Path, hostname: str, octet: int, resolver: str, nsswitch: str | None) -> None:
    """Write the files of /etc and /run in which computers differ."""
    etc, run = seed / "etc", seed / "run"
    etc.mkdir(parents=True)
    run.mkdir()
    (etc / "hostname").write_text(f"{hostname}\n")
    (etc / "hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n10.77.0.{octet} {hostname}\n")
    usual = "files resolve [!UNAVAIL=return] dns" if resolver == "stub" else "files dns"
    (seed / "hosts-line").write_text(f"hosts: {nsswitch or usual}\n")
    if resolver == "stub":
        resolve = run / "systemd/resolve"
        resolve.mkdir(parents=True)
        managed = "managed by man:systemd-resolved(8). Do not edit.\n"
        (resolve / "stub-resolv.conf").write_text(
            f"# This is /run/systemd/resolve/stub-resolv.conf {managed}\n"
            "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n"
        )
        (resolve / "resolv.conf").write_text(
            f"# This is /run/systemd/resolve/resolv.conf {managed}\nnameserver {LAN_DNS}\nsearch .\n"
        )
        (etc / "resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
        return
    servers = {"lan": f"nameserver {LAN_DNS}\n", "loopback": "nameserver 127.0.0.1\n", "none": ""}
    (etc / "resolv.conf").write_text(servers[resolver])


def _local_resolver(box: Box, address: str) -> None:
    daemon = box.spawn(f"dns-{box.name}", dnsmasq_argv(address, f"--server={LAN_DNS}"))
    lab_state.wait_for_line(daemon, "started, version")


def dnsmasq_argv(address: str, *more: str) -> list[str]:
    """Argv of a resolver on one address that reads nothing of the host's /etc."""
    return [
        "/usr/sbin/dnsmasq",
        "--keep-in-foreground",
        "--log-facility=-",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--no-resolv",
        "--no-hosts",
        "--cache-size=0",
        "--bind-interfaces",
        f"--listen-address={address}",
        *more,
    ]

"""The ways to be on a tailnet that are compared, each brought up on a computer of the lab.

root      tailscaled as root with a kernel TUN, in a network namespace with a real cable: the baseline
host      tsenv, sockets swapped (--underlay host)
pasta     tsenv --underlay pasta: WireGuard through pasta's tap, the data path of tsexec
socks     tailscaled --tun=userspace-networking --socks5-server, programs by proxychains4
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lab_box
import lab_state
from measure import HERE, MeasurementError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab import Lab
    from lab_box import Machine

BENCH = Path("/run/tsenv-lab/bench")  # seen from every computer of the lab
USER = "tsenv-lab"
LABELS = {
    "root": "tailscaled as root, kernel TUN",
    "host": "tsenv (host underlay)",
    "pasta": "tsenv --underlay pasta",
    "socks": "userspace mode + SOCKS5 (proxychains)",
}


@dataclass
class Way:
    """One of them, up: how to run a program by it, and whose processor time it costs."""

    name: str
    machine: Machine
    prefix: list[str]
    daemons: list[int] = field(default_factory=list)

    def run(self, argv: Sequence[str], timeout: float) -> str:
        """Run a program by this way as the ordinary user; its output."""
        done = self.machine.run([*self.prefix, *argv], timeout=timeout)
        if done.returncode and "{" not in done.stdout:
            raise MeasurementError(f"{self.name}: {done}")
        return done.stdout


def machine(lab: Lab, name: str) -> Machine:
    """A computer of our own, kept for the lab's life."""
    box = lab_box.find_box(name)
    return lab_box.as_machine(box) if box else lab.new_machine(name)


def prepare() -> None:
    """Lay out what runs on the lab's computers where their user may read it."""
    BENCH.mkdir(exist_ok=True)
    for folder in ("programs", "scripts"):
        for path in (HERE / folder).iterdir():
            if path.is_file():
                target = BENCH / path.name
                target.write_bytes(path.read_bytes())
                target.chmod(0o755)


def key_file(lab: Lab, name: str, *, reusable: bool = False) -> str:
    """A fresh key in a file that only the lab's user reads."""
    path = BENCH / f"key-{name}"
    path.unlink(missing_ok=True)
    path.write_text(lab.control.auth_key(reusable=reusable) + "\n")
    path.chmod(0o600)
    os.chown(path, *_owner())
    return str(path)


def _owner() -> tuple[int, int]:
    import pwd

    account = pwd.getpwnam(USER)
    return account.pw_uid, account.pw_gid


@contextlib.contextmanager
def root(lab: Lab) -> Iterator[Way]:
    """The baseline. It needs no pasta: root may make a TUN where it is."""
    where = machine(lab, "bench-root")
    with _daemon(lab, where, "root", "--tun=tailscale0", "--port=41641") as pid:
        yield Way("root", where, [], [pid])


@contextlib.contextmanager
def socks(lab: Lab) -> Iterator[Way]:
    """No namespace, no TUN: every program must be talked into a proxy."""
    where = machine(lab, "bench-user")
    config = BENCH / "proxychains.conf"
    config.write_text("strict_chain\nproxy_dns\n[ProxyList]\nsocks5 127.0.0.1 1055\n")
    more = ["--tun=userspace-networking", "--socks5-server=127.0.0.1:1055", "--port=0"]
    with _daemon(lab, where, "socks", *more) as pid:
        yield Way("socks", where, ["proxychains4", "-q", "-f", str(config)], [pid])


@contextlib.contextmanager
def _daemon(lab: Lab, where: Machine, name: str, *words: str) -> Iterator[int]:
    """A tailscaled without tsenv, as root or (socks) as the ordinary user, logged in."""
    folder = BENCH / f"state-{name}"
    subprocess.run(["rm", "-rf", folder], check=True)
    folder.mkdir()
    user = "root" if name == "root" else USER
    if name != "root":
        os.chown(folder, *_owner())
    sock = f"{folder}/sock"
    argv = ["tailscaled", f"--statedir={folder}", f"--socket={sock}", "--no-logs-no-support", *words]
    with (BENCH / f"log-{name}").open("wb") as log:
        child = subprocess.Popen(
            [*where.argv_prefix(user), *argv],
            env=lab_box.environment(user),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        lab_state.wait_until(f"{sock} to appear", lambda: Path(sock).exists())
        login = [f"--login-server={lab.control.url}", f"--auth-key=file:{key_file(lab, name)}"]
        up = ["tailscale", f"--socket={sock}", "up", "--timeout=20s", "--accept-dns=false", f"--hostname=bench-{name}"]
        where.run([*up, *login], user=user, check=True)
        yield child.pid  # the prefix ends in exec: this is tailscaled
        where.run(["tailscale", f"--socket={sock}", "logout"], user=user)
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(10)


@contextlib.contextmanager
def tsenv(lab: Lab, underlay: str) -> Iterator[Way]:
    """A session; commands join it."""
    where = machine(lab, "bench-user")
    name = f"bench-{underlay}"
    up(lab, where, name, "--underlay", underlay)
    try:
        record = session(where, name)
        pids = [record["pids"][part]["pid"] for part in ("tailscaled", "pasta", "supervisor")]
        yield Way(underlay, where, ["sh", f"{folder(where, name)}/join"], pids)
    finally:
        where.run(["tsenv", "-n", name, "down", "--force"], timeout=40)


def up(lab: Lab, where: Machine, name: str, *options: str) -> None:
    """`tsenv up` with a fresh key."""
    key = key_file(lab, name)
    argv = ["tsenv", "-n", name, "up", "--login-server", lab.control.url, "--auth-key-file", key, "--hostname", name]
    where.run([*argv, *options], check=True)


def folder(where: Machine, name: str) -> str:
    """The session directory, as seen on the machine."""
    runtime = lab_box.environment(USER)["XDG_RUNTIME_DIR"]
    del where
    return f"{runtime}/tsenv/{name}"


def session(where: Machine, name: str) -> dict[str, Any]:
    """session.json."""
    found: dict[str, Any] = json.loads(where.run(["cat", f"{folder(where, name)}/session.json"], check=True).stdout)
    return found


def peer_address(lab: Lab) -> str:
    """The tailnet address of the peer that all talk to."""
    node = lab.control.find("my-server")
    if node is None:
        raise MeasurementError("the lab's my-server is not in the tailnet")
    return next(address for address in node.addresses if "." in address)


def await_direct(way: Way, address: str, state: str | None) -> None:
    """Until the path to the peer is direct: the first packets go by the relay, and are not what is measured."""
    sock = [f"--socket={state}"] if state else []
    user = "root" if way.name == "root" else USER
    done = way.machine.run(["tailscale", *sock, "ping", "--c", "20", "--timeout", "1s", address], user=user, timeout=40)
    if "direct" not in done.stdout and " via 10." not in done.stdout:
        raise MeasurementError(f"{way.name}: no direct path to {address}: {done}")

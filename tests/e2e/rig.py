"""A session as tests use it: what a person would type, on the computer where it is up."""

from __future__ import annotations

import json
import os
import random
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pexpect
from lab_box import environment

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

    from lab_box import Completed, Machine
    from lab_control import Control


@dataclass(frozen=True)
class Session:
    """A session that is up (or was): its name, its computer, its tailnet."""

    name: str
    machine: Machine
    control: Control

    def tsenv(self, *words: str, **how: Any) -> Completed:
        """Run ``tsenv -n NAME WORDS``."""
        return self.machine.run(["tsenv", "-n", self.name, *words], **how)

    def exec(self, *words: str, **how: Any) -> Completed:
        """Run a command inside."""
        return self.tsenv("exec", "--", *words, **how)

    def popen(self, *words: str, **how: Any) -> subprocess.Popen[bytes]:
        """Start a command inside, and go on."""
        return self.machine.popen(["tsenv", "-n", self.name, "exec", "--", *words], **how)

    def status(self) -> dict[str, Any]:
        """What ``tsenv status --json`` says."""
        found: dict[str, Any] = json.loads(self.tsenv("status", "--json").stdout)
        return found

    @property
    def address(self) -> str:
        """Its IPv4 address in the tailnet."""
        return str(self.status()["addresses"][0])

    @property
    def fqdn(self) -> str:
        """What MagicDNS calls the peer my-server."""
        return f"my-server.{self.control.domain}"


def typed(machine: Machine, argv: Sequence[str], env: Mapping[str, str | None] | None = None) -> pexpect.spawn:
    """Start a command in a terminal of 37 lines and 91 columns, as the lab's user."""
    prefix = machine.argv_prefix()
    return pexpect.spawn(
        prefix[0],
        [*prefix[1:], *argv],
        env=environment("tsenv-lab", env),
        dimensions=(37, 91),
        encoding="utf-8",
        timeout=20,
    )


def ended(child: pexpect.spawn) -> int:
    """Wait for the end of what runs in the terminal; its exit status, negative for a signal."""
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus if child.exitstatus is not None else -(child.signalstatus or 0)


def stop(child: subprocess.Popen[bytes]) -> None:
    """End a command that was started with popen, and its whole process group."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGTERM)
    child.communicate(timeout=10)


def some_port() -> str:
    """A port that no other test is likely to take: below the ephemeral range, where the kernel picks none."""
    return str(random.randrange(10_000, 32_000))


# Listens on argv's ADDRESS and PORT, says "ready", answers each connection with argv's WORD.
SERVER = """
import socket, sys
address, port, word = sys.argv[1:]
server = socket.create_server(
    (address, int(port)), family=socket.AF_INET6 if ":" in address else socket.AF_INET, dualstack_ipv6=address == "::")
print("ready", flush=True)
while True:
    caller, _ = server.accept()
    caller.recv(100)
    caller.sendall(word.encode() + b"\\n")
    caller.close()
"""

# The same by UDP: answers each datagram.
UDP_SERVER = """
import socket, sys
address, port, word = sys.argv[1:]
server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
server.bind((address, int(port)))
print("ready", flush=True)
while True:
    server.sendto(word.encode() + b"\\n", server.recvfrom(100)[1])
"""


def server(address: str, port: str, word: str, *, udp: bool = False) -> list[str]:
    """Argv of a program that answers WORD at ADDRESS and PORT; it says "ready" when it does."""
    return ["/usr/bin/python3", "-I", "-c", UDP_SERVER if udp else SERVER, address, port, word]


def await_ready(child: subprocess.Popen[bytes]) -> None:
    """Wait until a server has said that it listens."""
    assert child.stdout
    line = child.stdout.readline()
    assert line == b"ready\n", (line, child.stderr.read() if child.stderr else "")


# Prints what argv's HOST answers at PORT, by "tcp" or "udp", within SECONDS.
CALLER = """
import socket, sys
host, port, kind, seconds = sys.argv[1:]
if kind == "tcp":
    line = socket.create_connection((host, int(port)), float(seconds))
else:
    family, *_, where = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0]
    line = socket.socket(family, socket.SOCK_DGRAM)
    line.settimeout(float(seconds))
    line.connect(where)
line.sendall(b"hello")
answer = line.recv(100).decode()
sys.exit("nothing came") if not answer else print(answer.strip())
"""


def caller(host: str, port: str, *, udp: bool = False, seconds: float = 2) -> list[str]:
    """Argv of a program that prints what HOST answers at PORT; it fails when nobody does, for at most SECONDS."""
    return ["/usr/bin/python3", "-I", "-c", CALLER, host, port, "udp" if udp else "tcp", str(seconds)]

"""The host's own network changes under a session: the tailnet comes back by itself, and logging out still works."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import lab_state
import pytest
from faults import measured

if TYPE_CHECKING:
    from conftest import NewMachine, Up
    from lab import Lab
    from lab_box import Machine

BACK_SECONDS = 30


def seconds_until_reached(machine: Machine, name: str) -> float:
    """How long it takes until a ping of my-server comes back."""
    began = time.monotonic()
    ping = ["tsenv", "-n", name, "exec", "ping", "-c", "1", "-W", "1", "my-server"]
    while machine.run(ping).returncode:
        assert time.monotonic() - began < BACK_SECONDS, machine.run(["tsenv", "-n", name, "logs"]).stdout[-3000:]
    return time.monotonic() - began


@pytest.mark.parametrize("underlay", ["host", "pasta"])
def test_uplink_down_and_up_then_another_address(
    lab: Lab, new_machine: NewMachine, up: Up, session_name: str, underlay: str
) -> None:
    """Without tsenv's hint (hostnet.py) the other address took 6 s and more, and the logout hung on a dead connection."""
    machine = new_machine()

    def ip(*words: str) -> None:
        lab_state.sh("ip", "-n", machine.netns, *words)

    up("--underlay", underlay, on=machine)
    seconds_until_reached(machine, session_name)

    ip("link", "set", "eth0", "down")  # takes addresses of IPv6 and all routes with it
    ip("link", "set", "eth0", "up")
    ip("route", "add", "default", "via", "10.77.0.1")
    up_again = seconds_until_reached(machine, session_name)

    last = int(machine.address.rpartition(".")[2])
    ip("addr", "del", f"{machine.address}/24", "dev", "eth0")
    ip("addr", "add", f"10.77.0.{last + 100 if last < 150 else last - 100}/24", "dev", "eth0")
    ip("route", "add", "default", "via", "10.77.0.1")
    elsewhere = seconds_until_reached(machine, session_name)
    done = machine.run(["tsenv", "-n", session_name, "exec", "curl", "-sS", "-m", "10", "http://internet.lab.test/"])
    assert done.stdout == "internet\n", done
    measured(f"the host's uplink goes and comes, then another address ({underlay} underlay)", "a peer does not answer",
             "all", {"back": up_again, "back at the other address": elsewhere})  # fmt: skip

    machine.run(["tsenv", "-n", session_name, "down"], check=True)
    assert lab.control.find(session_name) is None

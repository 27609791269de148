"""The lab keeps its own promises: what other tests stand on."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import lab_state
import pytest
from lab_box import RESOLVERS, LateCommandError

if TYPE_CHECKING:
    from conftest import NewMachine
    from lab import Lab
    from lab_box import Machine


def test_a_command_is_the_lab_users_and_its_bytes_come_through(machine: Machine) -> None:
    assert machine.run(["id", "-un"]).stdout == "tsenv-lab\n"
    assert machine.run(["hostname"]).stdout == "machine\n"
    assert machine.run(["pwd"], cwd="/tmp").stdout == "/tmp\n"
    assert machine.run(["cat"], input="é\r\n").stdout == "é\r\n"
    assert machine.run(["printf", r"\377\r\n"]).stdout_bytes == b"\xff\r\n"
    assert machine.run(["sh", "-c", "kill -TERM $$"]).returncode == -15


def test_a_command_that_does_not_end_is_ended_with_its_children(machine: Machine) -> None:
    with pytest.raises(LateCommandError, match="said this"):
        machine.run(["sh", "-c", "echo said this; sleep 60 & wait"], timeout=1)


def test_internet_counts_packets_by_sender(lab: Lab, new_machine: NewMachine) -> None:
    machine = new_machine()
    before = lab.internet.packets_from(machine.address)  # of a machine that had this address earlier
    assert machine.run(["ping", "-c3", "-i0.2", "internet.lab.test"]).returncode == 0
    assert lab.internet.packets_from(machine.address) == before + 3
    assert machine.run(["curl", "-sS", "http://internet6.lab.test/ip"]).stdout == f"{machine.address6}\n"
    assert lab.internet.packets_from(machine.address6) > 0


@pytest.mark.parametrize("resolver", RESOLVERS)
def test_resolver_shapes(new_machine: NewMachine, resolver: str) -> None:
    machine = new_machine(resolver=resolver)
    found = machine.run(["getent", "hosts", "control.lab.test"])
    assert (found.returncode == 0) == (resolver != "none"), str(found)
    begin = time.monotonic()
    assert machine.run(["getent", "hosts", "nobody.example.com"]).returncode == 2
    assert time.monotonic() - begin < 2


def test_a_pulled_cable_can_be_put_back(new_machine: NewMachine) -> None:
    machine = new_machine()
    ping = ["ping", "-c1", "-W1", "10.77.0.4"]
    machine.unplug()
    assert machine.run(ping).returncode
    machine.plug()
    lab_state.wait_until("an answer", lambda: machine.run(ping).returncode == 0, 5)


def test_two_tailnets_with_a_peer_of_the_same_name(lab: Lab) -> None:
    for control, page in ((lab.control, "A"), (lab.control_b, "B")):
        assert control.find("my-server")
        server = lab.my_server if page == "A" else lab.my_server_b
        answer = lab.machine.run(["curl", "-sS", f"http://{server.address}/"])
        assert answer.stdout == f"my-server of tailnet {page}\n"


def test_headscale_takes_policies_tags_and_restarts(lab: Lab) -> None:
    control = lab.control_b
    control.set_policy(
        {"tagOwners": {"tag:ci": ["lab@"]}, "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}
    )
    assert control.auth_key(tags=["tag:ci"])
    control.restart()
    assert control.find("my-server")


def test_ssh_copies_and_measures(machine: Machine) -> None:
    uname = machine.run(["ssh", "10.77.0.2", "uname -n; id -un"])
    assert uname.stdout == "my-server\ntsenv-lab\n", str(uname)
    assert not uname.stderr
    speed = json.loads(machine.run(["iperf3", "-J", "-n", "10M", "-c", "10.77.0.2"], check=True).stdout)
    assert speed["end"]["sum_received"]["bytes"] > 0


def test_testcontrol_holds_machines_for_approval(lab: Lab, machine: Machine) -> None:
    with lab.testcontrol(require_machine_auth=True) as server:
        assert machine.run(["curl", "-fsS", f"{server.url}/key?v=100"]).returncode == 0
        assert server.nodes() == []
        server.approve_all()


def test_exit_node_and_router_are_approved(lab: Lab) -> None:
    lab.exit_node()
    lab.router()
    for name, routes in (("exit-node", {"0.0.0.0/0", "::/0"}), ("router", {"10.88.0.0/24"})):
        node = lab.control.find(name)
        assert node
        assert set(node.approved_routes) == routes

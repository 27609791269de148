"""Names, on hosts of each kind: peers always resolve, and whatever the host can resolve does inside, too."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from lab_box import RESOLVERS
from lab_state import FOLDER
from rig import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab import Lab
    from lab_box import Completed, Machine

# resolver shapes of the host, and one where nsswitch asks every daemon there is before DNS (PAINS 1.10).
SHAPES = [*((shape, None) for shape in RESOLVERS), ("lan", "files mdns4_minimal [NOTFOUND=return] resolve myhostname dns")]
CONFIGURATION = "ls -lR /etc/resolv* /etc/nsswitch.conf /run/systemd 2>&1; cat /etc/resolv.conf /etc/nsswitch.conf"


@pytest.fixture(params=SHAPES, ids=lambda shape: f"{shape[0]}{'-nsswitch' if shape[1] else ''}")
def shape(lab: Lab, request: pytest.FixtureRequest) -> Iterator[tuple[str, Machine]]:
    """A computer with one of the shapes."""
    resolver, nsswitch = request.param
    own = lab.new_machine(resolver=resolver, nsswitch=nsswitch)
    yield resolver, own
    lab.remove_machine(own)


def test_names(lab: Lab, shape: tuple[str, Machine], up: Callable[..., Completed], session_name: str) -> None:
    resolver, machine = shape
    before = machine.run(["sh", "-c", CONFIGURATION]).stdout
    server = lab.control.url if resolver == "none" else lab.control.name_url
    up("--login-server", server, on=machine)
    session = Session(session_name, machine, lab.control)

    for peer in ("my-server", session.fqdn):
        assert session.exec("curl", "-sS", "-m", "15", f"http://{peer}/").stdout == "my-server of tailnet A\n", peer
    for name in ("internet.lab.test", "control.lab.test"):
        found = session.exec("getent", "hosts", name)
        assert (found.returncode == 0) == (resolver != "none"), f"{name}: {found}"
    if resolver != "none":
        assert session.exec("curl", "-sS", "-m", "5", "http://internet.lab.test/").stdout == "internet\n"

    begin = time.monotonic()
    assert session.exec("getent", "hosts", "nobody.example.com").returncode == 2
    assert time.monotonic() - begin < 4  # a name that does not exist is a matter of an answer, not of patience

    assert machine.run(["sh", "-c", CONFIGURATION]).stdout == before
    session.tsenv("down", check=True)
    assert machine.run(["sh", "-c", CONFIGURATION]).stdout == before


def test_without_the_tailnets_dns(lab: Lab, up: Callable[..., Completed], session_name: str) -> None:
    """--no-accept-dns: the host's names and no others."""
    up("--no-accept-dns")
    session = Session(session_name, lab.machine, lab.control)
    assert session.exec("getent", "hosts", "internet.lab.test").returncode == 0
    assert session.exec("getent", "hosts", session.fqdn).returncode == 2


@pytest.mark.parametrize("underlay", ["host", "pasta"])
def test_a_corporate_proxy_reaches_tailscaled(
    lab: Lab, up: Callable[..., Completed], session_name: str, underlay: str
) -> None:
    machine = lab.new_machine()
    try:
        up("--underlay", underlay, on=machine, env={"HTTPS_PROXY": f"http://{lab.internet.address}:80"})
        session = Session(session_name, machine, lab.control)
        assert session.exec("curl", "-sS", "-m", "15", "http://my-server/").returncode == 0
        # Its relay is the only HTTPS that tailscaled needs here.
        wanted = f'{machine.address} - - "CONNECT 10.77.0.1:3443 HTTP/1.1" 200'
        log = (FOLDER / "log/services-internet.log").read_text().replace("::ffff:", "")
        asked = [line for line in log.splitlines() if line.startswith(machine.address)]
        assert any(_without_time(line) == f"{wanted} -" for line in asked), asked
        session.tsenv("down", check=True)
    finally:
        lab.remove_machine(machine)


def _without_time(line: str) -> str:
    head, _, tail = line.partition("[")
    return head + tail.partition("] ")[2]

"""Sessions for the end-to-end tests: one that a whole module shares, and single ones."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Protocol

import pytest
from lab_box import allocate_octet, free_octet
from lab_control import ADDRESS, Control
from rig import Session, stop, typed

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pexpect
    from lab import Lab
    from lab_box import Completed, Machine


def bring_up(lab: Lab, name: str, *options: str) -> Session:
    """Bring up a session on the shared computer, in tailnet A."""
    words = ["tsenv", "-n", name, "up", "--login-server", lab.control.url, "--auth-key-file", "-", "--hostname", name]
    lab.machine.run([*words, *options], input=lab.control.auth_key(), check=True)
    return Session(name, lab.machine, lab.control)


def module_name(request: pytest.FixtureRequest) -> str:
    """Name a module's session; each of xdist's workers has its own."""
    about = str(request.module.__name__).rpartition("test_")[2].replace("_", "-")
    return f"{about}-{os.getpid()}"


@pytest.fixture(scope="module")
def session(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Session]:
    """A session without any options, for all tests of a module that do not change it."""
    shared = bring_up(lab, module_name(request))
    yield shared
    shared.tsenv("down", "--force", check=True)


@pytest.fixture(scope="module", params=["host", "pasta"])
def either(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Session]:
    """The same once with each underlay: what a session promises does not depend on how tailscaled gets out."""
    shared = bring_up(lab, f"{module_name(request)}-{request.param}", "--underlay", request.param)
    assert shared.status()["underlay"] == request.param
    yield shared
    shared.tsenv("down", "--force", check=True)


class NewSession(Protocol):
    """The fixture ``new_session``: a session of the test's own."""

    def __call__(
        self, *options: str, name: str | None = None, on: Machine | None = None, control: Control | None = None
    ) -> Session:
        """Bring it up; it is down when the test is over."""


@pytest.fixture
def new_session(lab: Lab, up: Callable[..., Completed], session_name: str) -> NewSession:
    """Bring sessions up, with options, other names, on other computers or in the other tailnet."""

    def make(
        *options: str, name: str | None = None, on: Machine | None = None, control: Control | None = None
    ) -> Session:
        up(*options, name=name, on=on, control=control)
        return Session(name or session_name, on or lab.machine, control or lab.control)

    return make


@pytest.fixture
def own_control(lab: Lab) -> Iterator[Control]:
    """A headscale of the test's own, to be taken away."""
    del lab
    octet = allocate_octet()  # any number of our own makes a name and ports
    server = Control(f"own-{octet}", 8300 + octet, ADDRESS)
    server.start()
    server.cli("users", "create", "lab")
    yield server
    server.stop()
    shutil.rmtree(server.folder)
    free_octet(octet)


class Terminal(Protocol):
    """The fixture ``terminal``: start a command in a pty."""

    def __call__(
        self, argv: Sequence[str], on: Machine | None = None, env: Mapping[str, str | None] | None = None
    ) -> pexpect.spawn:
        """Start it; it is ended with the test."""


@pytest.fixture
def terminal(machine: Machine) -> Iterator[Terminal]:
    """Commands in terminals of their own, which close with the test."""
    started: list[pexpect.spawn] = []

    def start(
        argv: Sequence[str], on: Machine | None = None, env: Mapping[str, str | None] | None = None
    ) -> pexpect.spawn:
        started.append(typed(on or machine, argv, env))
        return started[-1]

    yield start
    for child in started:
        child.close(force=True)


@pytest.fixture
def background() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Commands put into this list are ended with the test."""
    children: list[subprocess.Popen[bytes]] = []
    yield children
    for child in children:
        stop(child)

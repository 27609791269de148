"""What all tests share: the lab, computers in it, and sessions that end with their test.

The lab starts when the first test asks for it, and the last test process that used it ends it: xdist's workers share
one lab, and so does a developer who ran ``tests/lab/lab.py up``, whose lab stays up.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

LAB_FOLDER = Path(__file__).parent / "lab"
sys.path.insert(0, str(LAB_FOLDER))  # the lab is a program as well as a library: its modules lie flat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab import Lab
    from lab_box import Completed, Machine
    from lab_control import Control

_numbers = itertools.count(1)


class Up(Protocol):
    """The fixture ``up``: bring a session up, with a fresh key on standard input."""

    def __call__(
        self,
        *options: str,
        name: str | None = None,
        on: Machine | None = None,
        control: Control | None = None,
        key: str | None = None,
        env: dict[str, str | None] | None = None,
        check: bool = True,
        timeout: float = 90,
    ) -> Completed:
        """Run ``tsenv -n NAME up … OPTIONS``; the session is brought down with the test."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses the lab, directly or through a fixture."""
    for item in items:
        if "lab" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.lab)


@pytest.hookimpl(optionalhook=True)  # only where xdist is
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the files that are an xdist_group on one worker: they share a computer, or are a burden side by side.

    xdist 3.8 does so by an attribute that pytest 9.2 has no more, and then groups nothing, without a word. The
    scheduler knows test ids only, so it looks for the mark in the file.
    """
    from xdist.scheduler import LoadScopeScheduling

    groups: dict[str, str] = {}

    class ByGroup(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if file not in groups:
                text = (config.rootpath / file).read_text()
                hit = re.search(r'^pytestmark = pytest\.mark\.xdist_group\("([^"]+)"\)', text, re.MULTILINE)
                groups[file] = hit[1] if hit else ""
            return groups[file] or nodeid

    return ByGroup(config, log) if config.getvalue("dist") == "loadgroup" else None


def lack_of_lab() -> str:
    """Say what keeps this machine from running the lab; empty if nothing does."""
    if os.geteuid() != 0:
        return "the lab needs root"
    for program in ("bin/headscale", "bin/tailscaled", "bin/tsenv-lab-derp", "venv/bin/python"):
        if not Path("/opt/tsenv-lab", program).exists():
            return f"no /opt/tsenv-lab/{program}: run tests/lab/setup"
    return ""


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The embedded tailnet. Without root or tools its tests skip on a laptop, and fail in CI."""
    if lack := lack_of_lab():
        if os.environ.get("CI"):
            pytest.fail(lack)
        pytest.skip(lack)
    from lab import Lab

    running = Lab.acquire()
    yield running
    running.release()


@pytest.fixture
def machine(lab: Lab) -> Machine:
    """The computer where commands run as the user tsenv-lab; all tests share it."""
    return lab.machine


class NewMachine(Protocol):
    """The fixture ``new_machine``: one more computer, as ``Lab.new_machine``."""

    def __call__(self, *, resolver: str = "lan", nsswitch: str | None = None, private: bool = True) -> Machine:
        """Make it; it is removed with the test."""


@pytest.fixture
def new_machine(lab: Lab) -> Iterator[NewMachine]:
    """Make computers that are gone when the test is over."""
    made: list[Machine] = []

    def make(*, resolver: str = "lan", nsswitch: str | None = None, private: bool = True) -> Machine:
        made.append(lab.new_machine(resolver=resolver, nsswitch=nsswitch, private=private))
        return made[-1]

    yield make
    for machine in made:
        lab.remove_machine(machine)


@pytest.fixture
def key(lab: Lab) -> str:
    """A fresh one-time key for an ephemeral node of tailnet A."""
    return lab.control.auth_key()


@pytest.fixture
def session_name(request: pytest.FixtureRequest) -> str:
    """A session name that no other test has; it is a valid host name, too."""
    return new_session_name(request.node.name)


def new_session_name(about: str) -> str:
    """Make a name from a test's name, unique on this machine: process id and count."""
    words = re.sub(r"[^a-z0-9]+", "-", about.lower().removeprefix("test_")).strip("-")[:24].strip("-")
    return f"{words or 't'}-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def up(lab: Lab, machine: Machine, new_machine: NewMachine, session_name: str) -> Iterator[Up]:
    """Bring sessions up that are down when the test is over, however it ends."""
    del new_machine  # asked for so that its machines outlive the sessions on them
    started: list[tuple[Machine, str]] = []

    def bring_up(
        *options: str,
        name: str | None = None,
        on: Machine | None = None,
        control: Control | None = None,
        key: str | None = None,
        env: dict[str, str | None] | None = None,
        check: bool = True,
        timeout: float = 90,
    ) -> Completed:
        server = control or lab.control
        name = name or session_name
        where = on or machine
        started.append((where, name))
        argv = ["tsenv", "-n", name, "up", "--login-server", server.url, "--auth-key-file", "-"]
        if not any(option.startswith("--hostname") for option in options):
            argv += ["--hostname", name]  # else all tests' nodes are called after the one machine
        return where.run([*argv, *options], input=key or server.auth_key(), env=env, check=check, timeout=timeout)

    yield bring_up
    _down(started)


def _down(started: list[tuple[Machine, str]]) -> None:
    """End each session, all of them even if one fails to."""
    failures = []
    for machine, name in dict.fromkeys(started):
        try:
            done = machine.run(["tsenv", "-n", name, "down", "--force"], timeout=30)
        except AssertionError as error:  # a timeout
            failures.append(str(error))
            continue
        left = not machine.run(["test", "-e", f"/run/user/{_uid()}/tsenv/{name}"]).returncode
        if left:
            failures.append(f"the session's directory is still there\n{done}")
    if failures:
        pytest.fail("\n".join(failures))


def _uid() -> int:
    import pwd

    return pwd.getpwnam("tsenv-lab").pw_uid


def until(probe: Callable[[], object], what: str, seconds: float = 15) -> None:
    """Wait until the probe is true; the deadline names what was waited for."""
    from lab_state import wait_until

    wait_until(what, probe, seconds)

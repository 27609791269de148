"""The Python API, used as documented: by its own doctests, by the example of a pytest fixture, and by a program."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lab import Lab
    from lab_box import Completed

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
PYTHON = "/opt/tsenv-lab/venv/bin/python"


def program(lab: Lab, text: str, **env: str) -> Completed:
    """Run a Python program of the lab's user; URL and KEY are in its environment."""
    variables = {"URL": lab.control.url, "KEY": lab.control.auth_key(), **env}
    return lab.machine.run([PYTHON, "-I", "-W", "error", "-c", text], env=variables, timeout=40)


def test_doctests(lab: Lab) -> None:
    """Each docstring's examples, with a session, the server's URL and a key that is still good."""
    text = """
import doctest, os, sys, tsenv
from tsenv import api
words = {"URL": os.environ["URL"], "KEY": os.environ["KEY"], "tsenv": tsenv}
with tsenv.up(login_server=words["URL"], auth_key=os.environ["OTHER"]) as words["session"]:
    done = doctest.testmod(api, extraglobs=words, optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
print(done)
sys.exit(done.failed or done.attempted < 9)
"""
    done = program(lab, text, OTHER=lab.control.auth_key())
    assert done.returncode == 0, done


def test_the_example_of_a_fixture(lab: Lab, tmp_path: Path) -> None:
    folder = lab.machine.run(["mktemp", "-d"], check=True).stdout.strip()
    for file in EXAMPLES.glob("*.py"):
        shutil.copy(file, folder)
    env = {"TS_AUTHKEY": lab.control.auth_key(), "TS_LOGIN_SERVER": lab.control.url}
    done = lab.machine.run([PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder], cwd=folder, env=env)
    shutil.rmtree(folder)
    assert done.returncode == 0, done
    assert "4 passed" in done.stdout


# As with any plumbum machine; each line of the output is one claim.
MACHINE = """
import os, sys, tempfile, time, tsenv, plumbum
from plumbum import BG, FG, TF, local
from plumbum.commands import CommandNotFound, ProcessExecutionError, ProcessTimedOut
with tsenv.up("NAME", login_server=os.environ["URL"], auth_key=os.environ["KEY"]) as session:
    print("name", session.name, session.address in session.cmd.tailscale("ip", "-4"), session.dns_name.endswith(".tail-a.test"))
    with tempfile.NamedTemporaryFile("r") as file:
        (session["ssh"]["my-server", "uname -n"] > file.name)()
        print("redirected", file.read().strip())
    print("input", (session["ssh"]["my-server", "cat"] << "through ssh")())
    future = session["sleep"]["0.2"] & BG
    future.wait()
    print("background", future.returncode)
    print("quiet", session["true"] & TF, session["false"] & TF)
    try:
        session["sleep"]["30"](timeout=0.3)
    except ProcessTimedOut:
        print("timed out")
    try:
        session["no-such-program"]
    except CommandNotFound:
        print("not found")
    try:
        session["sh"]["-c", "echo why >&2; exit 7"]()
    except ProcessExecutionError as error:
        print("failed", error.retcode, error.stderr.strip())
    print("inside", session["readlink"]("/proc/self/ns/net") != local["readlink"]("/proc/self/ns/net"))
    print("cmd", session.cmd.ssh_keyscan is not None, "ssh" in session, "nonsense" in session)
    with tsenv.up("NAME", login_server=os.environ["URL"], auth_key="other"):
        pass
    print("still", session.status()["state"])
print("after", os.path.exists(f"/run/user/{os.getuid()}/tsenv/NAME"))
"""

CLAIMS = """name NAME True True
redirected my-server
input through ssh
background 0
quiet True False
timed out
not found
failed 7 why
inside True
cmd True True False
still up
after False
"""


def test_like_a_plumbum_machine(lab: Lab, session_name: str) -> None:
    done = program(lab, MACHINE.replace("NAME", session_name))
    assert done.stdout == CLAIMS.replace("NAME", session_name), done


def test_it_ends_with_the_program(lab: Lab) -> None:
    text = 'import os, tsenv\ns = tsenv.up(login_server=os.environ["URL"], auth_key=os.environ["KEY"])\nprint(s.address)\nos.kill(os.getpid(), 9)'
    done = program(lab, text)
    assert done.returncode == -9
    from lab_state import wait_until

    address = done.stdout.strip()
    wait_until("the node to leave", lambda: address not in [a for n in lab.control.nodes() for a in n.addresses])


def test_a_block_whose_session_is_gone_ends_in_silence(lab: Lab) -> None:
    text = """
import os, tsenv
with tsenv.up(login_server=os.environ["URL"], auth_key=os.environ["KEY"]) as session:
    session.down()
print("silent")
try:
    with tsenv.up(login_server=os.environ["URL"], auth_key=os.environ["OTHER"]) as session:
        session.down()
        1 / 0
except ZeroDivisionError:
    print("its own")
"""
    done = program(lab, text, OTHER=lab.control.auth_key())
    assert (done.returncode, done.stdout) == (0, "silent\nits own\n"), done


def test_secrets_and_errors(lab: Lab) -> None:
    text = """
import os, tsenv
for wrong in ({"auth_key": "nonsense"}, {"auth_key": "a", "id_token": "b"}, {"name": "no/name"}, {"publish": ["x"]}, {"ttl": "soon"}):
    try:
        tsenv.up(login_server=os.environ["URL"], timeout=5, **wrong)
    except tsenv.TsenvError as error:
        print(error.code, error.message, bool(error.hint))
print("TS_AUTHKEY" in os.environ)
"""
    done = program(lab, text, TS_AUTHKEY="mine")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["125", "2", "2", "2", "2", "True"], done
    assert lines[0].startswith("125 the auth key is not valid")
    assert "'no/name' is not a session name" in lines[2]


@pytest.mark.parametrize("module", ["plumbum", "typing", "json", "subprocess", "tsenv.api", "argparse"])
def test_import_tsenv_is_cheap(lab: Lab, module: str) -> None:
    done = program(lab, f"import sys, tsenv; sys.exit({module!r} in sys.modules)")
    assert done.returncode == 0

"""tsenv env: what each shell and each file format makes of it."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rig import Session

# How a script of each shell takes the code over.
EVALS = {
    "bash": 'eval "$(tsenv env)"',
    "zsh": 'eval "$(tsenv env)"',
    "dash": 'eval "$(tsenv env --shell sh)"',
    "fish": "tsenv env | source",
    "tcsh": 'eval "`tsenv env --shell tcsh`"',
    "elvish": "eval (tsenv env --shell elvish | slurp)",
    "xonsh": "execx($(tsenv env --shell xonsh))",
}  # fmt: skip


@pytest.mark.parametrize("shell", EVALS)
def test_each_shell(session: Session, shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"no {shell}")
    script = f"{EVALS[shell]}\ncurl -sS http://my-server/\nprintenv TSENV_DIR\n"
    state = f"/tmp/a b'c {session.name} {shell}"
    env = {"TSENV_SESSION": session.name, "XDG_STATE_HOME": state}
    done = session.machine.run([shell, "-c", script], env=env)
    assert "my-server of tailnet A" in done.stdout, done
    assert f"{session.status()['dir']}" in done.stdout
    session.machine.run(["rm", "-rf", state])


def test_files(session: Session) -> None:
    found = json.loads(session.tsenv("env", "--json", check=True).stdout)
    assert found["TSENV_SESSION"] == session.name
    assert found["PATH"].startswith(found["TSENV_BIN"] + ":")
    lines = session.tsenv("env", "--dotenv", check=True).stdout.splitlines()
    assert dict(line.split("=", 1) for line in lines) == {k: v for k, v in found.items() if k != "PATH"}


def test_twice_is_once(session: Session) -> None:
    script = 'eval "$(tsenv env)"; eval "$(tsenv env)"; printenv PATH'
    path = session.machine.run(["bash", "-c", script], env={"TSENV_SESSION": session.name}).stdout
    assert path.count(f"/{session.name}/bin") == 1


@pytest.mark.parametrize(("form", "stdout"), [("--shell=bash", "false\n"), ("--json", ""), ("--dotenv", "")])
def test_no_session(session: Session, form: str, stdout: str) -> None:
    done = session.machine.run(["tsenv", "-n", "nosuch-session", "env", form])
    assert (done.returncode, done.stdout) == (125, stdout)
    assert done.stderr.startswith("tsenv: no session 'nosuch-session' is up\n")

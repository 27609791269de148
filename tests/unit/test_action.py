"""action.yml: its steps run by bash as GitHub does it, among stand-ins that write down how they were called."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

ACTION = yaml.safe_load((Path(__file__).parents[2] / "action.yml").read_text())
INSTALL, PARTS, UP = ACTION["runs"]["steps"]

# All stand-ins in one: note the call, then do what the steps look at.
STAND_IN = """\
import json, os, shutil, sys
me, argv = os.path.basename(sys.argv[0]), sys.argv[1:]
with open(os.environ["CALLS"], "a") as file:
    print(json.dumps([me, argv, dict(os.environ)]), file=file)
if argv[:2] == ["-m", "venv"]:
    os.makedirs(argv[2] + "/bin")
    shutil.copy(sys.argv[0], argv[2] + "/bin/pip")
if me == "tsenv" and argv[0] == "up":
    with open(os.environ["GITHUB_ENV"], "a") as file:
        print("TSENV_SESSION=deploy-1234", file=file)
if me == "tsenv" and argv[-3:] == ["tailscale", "ip", "-4"]:
    print("100.64.0.7")
sys.exit(me in os.environ.get("FAILING", "").split())
"""

# input: (a value, what `tsenv up` gets for it: words, variables). Those that log in stand alone.
INPUTS: dict[str, tuple[str, list[str], dict[str, str]]] = {
    "authkey": ("tskey-auth-1", [], {"TS_AUTHKEY": "tskey-auth-1"}),
    "oauth-client-id": ("kClient", [], {"TS_CLIENT_ID": "kClient"}),
    "oauth-client-secret": ("tskey-client-1", [], {"TS_CLIENT_SECRET": "tskey-client-1"}),
    "audience": ("api.tailscale.com/x", [], {"TS_AUDIENCE": "api.tailscale.com/x"}),
    "tags": ("tag:ci,tag:web", ["--advertise-tags", "tag:ci,tag:web"], {}),
    "hostname": ("my node", ["--hostname", "my node"], {}),
    "login-server": ("https://headscale.example", ["--login-server", "https://headscale.example"], {}),
    "exit-node": ("gate", ["--exit-node", "gate"], {}),
    "isolated": ("true", ["--isolated"], {}),
    "wait-for": ("db:5432 web", ["--wait-for", "db:5432", "--wait-for", "web"], {}),
    "args": ("--ttl 2h", ["--ttl", "2h"], {}),
}
LOGINS = ("authkey", "oauth-client-secret", "audience")


@dataclass
class Done:
    """What came of a step."""

    status: int
    said: str
    calls: list[tuple[str, list[str], dict[str, str]]]
    files: dict[str, str] = field(default_factory=dict)

    def of(self, program: str) -> list[list[str]]:
        return [argv for name, argv, _ in self.calls if name == program]


@pytest.fixture
def step(tmp_path: Path) -> Callable[..., Done]:
    """Run a step with these inputs, where only these programs (and `failing` ones that fail) are to be had."""

    def run(which: dict[str, Any], inputs: dict[str, str], *programs: str, failing: str = "") -> Done:
        assert set(inputs) <= set(ACTION["inputs"])
        bin_ = tmp_path / "bin"
        bin_.mkdir()
        for real in ("bash", "sed", "tail", "xargs", "printf"):
            (bin_ / real).symlink_to(str(shutil.which(real)))
        for name in (*programs, *failing.split()):
            (bin_ / name).write_text(f"#!{sys.executable} -I\n{STAND_IN}")
            (bin_ / name).chmod(0o755)
        files = {name: tmp_path / name for name in ("GITHUB_ENV", "GITHUB_PATH", "GITHUB_OUTPUT", "CALLS")}
        for file in files.values():
            file.touch()
        env = {"PATH": str(bin_), "RUNNER_TEMP": str(tmp_path / "temp"), "GITHUB_ACTION_PATH": "/the/action"}
        env |= {name: str(file) for name, file in files.items()} | {"FAILING": failing}
        for name, expression in which.get("env", {}).items():
            about = re.fullmatch(r"\$\{\{ inputs\.([a-z-]+) \}\}", expression)
            assert about, expression
            env[name] = inputs.get(about[1], "")
        (tmp_path / "step.sh").write_text(which["run"].replace(":/usr/sbin:/sbin", ""))
        assert which["shell"] == "bash"
        argv = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "step.sh"]
        done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=20, check=False)
        calls = [tuple(json.loads(line)) for line in files["CALLS"].read_text().splitlines()]
        texts = {name: file.read_text() for name, file in files.items()}
        return Done(done.returncode, done.stdout + done.stderr, calls, texts)

    return run


def test_every_input_has_a_test_here() -> None:
    assert set(ACTION["inputs"]) == {*INPUTS, "version"}


@pytest.mark.parametrize("name", INPUTS)
def test_an_input(step: Callable[..., Done], name: str) -> None:
    value, words, variables = INPUTS[name]
    login = {} if name in LOGINS else {"authkey": "tskey-auth-0"}
    done = step(UP, {name: value} | login, "tsenv")
    assert done.status == 0, done.said
    assert done.of("tsenv")[0] == ["up", "--github", *words]
    env = done.calls[0][2]
    assert {key: env[key] for key in variables} == variables
    assert {key for key in ("TS_AUTHKEY", "TS_CLIENT_SECRET", "TS_AUDIENCE") if env[key]} == (
        set(variables) & {"TS_AUTHKEY", "TS_CLIENT_SECRET", "TS_AUDIENCE"} or {"TS_AUTHKEY"}
    )


def test_all_inputs_at_once(step: Callable[..., Done]) -> None:
    done = step(UP, {name: value for name, (value, *_) in INPUTS.items()}, "tsenv")
    assert done.status == 0, done.said
    assert done.of("tsenv")[0] == ["up", "--github", *(word for _, words, _ in INPUTS.values() for word in words)]
    for secret in ("authkey", "oauth-client-secret"):
        assert INPUTS[secret][0] not in done.said + str([argv for _, argv, _ in done.calls])


def test_outputs(step: Callable[..., Done]) -> None:
    done = step(UP, {"authkey": "k"}, "tsenv")
    assert done.files["GITHUB_OUTPUT"] == "session=deploy-1234\naddress=100.64.0.7\n"
    assert done.of("tsenv")[1] == ["-n", "deploy-1234", "exec", "tailscale", "ip", "-4"]
    for name in ("session", "address"):
        assert ACTION["outputs"][name]["value"] == f"${{{{ steps.{UP['id']}.outputs.{name} }}}}"


def test_the_step_fails_with_up(step: Callable[..., Done]) -> None:
    done = step(UP, {"authkey": "k"}, failing="tsenv")
    assert done.status == 1
    assert len(done.calls) == 1
    assert done.files["GITHUB_OUTPUT"] == ""


@pytest.mark.parametrize("inputs", [{}, {"oauth-client-id": "kClient", "tags": "tag:ci"}], ids=["none", "only an id"])
def test_no_credential(step: Callable[..., Done], inputs: dict[str, str]) -> None:
    done = step(UP, inputs, "tsenv")
    assert done.status == 1
    assert done.said.startswith("::error title=tsenv::give authkey, oauth-client-secret or audience (")
    assert done.calls == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("  \n", []),
        ("--ttl 2h\n--timeout 9\n", ["--ttl", "2h", "--timeout", "9"]),
        (
            """'a b' "c  d" e\\ f '' $(touch x) * `y`""",
            ["a b", "c  d", "e f", "", "$(touch", "x)", "*", "`y`"],
        ),
        ("ci -- --advertise-connector", ["ci", "--", "--advertise-connector"]),
        ("-n -0 --help", ["-n", "-0", "--help"]),
    ],
)
def test_args_are_words(step: Callable[..., Done], tmp_path: Path, text: str, words: list[str]) -> None:
    done = step(UP, {"authkey": "k", "args": text}, "tsenv")
    assert done.status == 0, done.said
    assert done.of("tsenv")[0] == ["up", "--github", *words]
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("text", ["--hostname it's --isolated", '--isolated --hostname "a', "--ttl '2h\n' --isolated"])
def test_args_that_are_no_words(step: Callable[..., Done], text: str) -> None:
    """Nothing goes up without the options that could not be read: --isolated may be among them."""
    done = step(UP, {"authkey": "k", "args": text}, "tsenv")
    assert done.status == 1
    assert "::error title=tsenv::args cannot be taken apart" in done.said
    assert done.calls == []


@pytest.mark.parametrize("word", ["false", ""])
def test_not_isolated(step: Callable[..., Done], word: str) -> None:
    assert step(UP, {"authkey": "k", "isolated": word}, "tsenv").of("tsenv")[0] == ["up", "--github"]


@pytest.mark.parametrize("word", ["True", "yes", "1", "on", "true ", "no", "isolated"])
def test_isolated_is_not_guessed(step: Callable[..., Done], word: str) -> None:
    done = step(UP, {"authkey": "k", "isolated": word}, "tsenv")
    assert done.status == 1
    assert done.said == "::error title=tsenv::isolated is true or false, and nothing else\n"
    assert done.calls == []


# --- installing -------------------------------------------------------------------------------------------------------


def test_the_machine_has_tsenv(step: Callable[..., Done]) -> None:
    done = step(INSTALL, {}, "tsenv", "python3")
    assert (done.status, done.calls, done.files["GITHUB_PATH"]) == (0, [], "")


@pytest.mark.parametrize(
    ("inputs", "there", "package"),
    [
        ({}, (), "/the/action"),
        ({"version": "0.1.0"}, (), "tsenv==0.1.0"),
        ({"version": "0.1.0"}, ("tsenv",), "tsenv==0.1.0"),
    ],
    ids=["the action's own", "a version", "a version, and another is there"],
)
def test_install_tsenv(
    step: Callable[..., Done], tmp_path: Path, inputs: dict[str, str], there: tuple[str, ...], package: str
) -> None:
    done = step(INSTALL, inputs, "python3", *there)
    assert done.status == 0, done.said
    assert done.of("python3") == [["-m", "venv", f"{tmp_path}/temp/tsenv"]]
    assert done.of("pip") == [["install", "--quiet", package]]
    assert done.files["GITHUB_PATH"] == f"{tmp_path}/temp/tsenv/bin\n"


def test_tsenv_cannot_be_installed(step: Callable[..., Done]) -> None:
    done = step(INSTALL, {}, "python3", failing="pip")
    assert done.status == 1
    assert len(done.of("pip")) == 1
    assert done.files["GITHUB_PATH"] == ""


def test_install_pasta_and_tailscale(step: Callable[..., Done]) -> None:
    done = step(PARTS, {}, "sudo", "apt-get", "curl", "sh")
    assert done.status == 0, done.said
    assert done.of("sudo") == [
        ["-n", "true"],
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-qq", "-y", "passt"],
    ]
    assert done.of("curl") == [["-fsSL", "https://tailscale.com/install.sh"]]
    assert done.of("sh") == [[]]


@pytest.mark.parametrize(
    ("programs", "failing"),
    [(("sudo", "apt-get", "curl", "sh", "pasta", "tailscaled"), ""), (("apt-get", "curl", "sh"), "sudo")],
    ids=["all is there", "no sudo without a password"],
)
def test_nothing_else_is_installed(step: Callable[..., Done], programs: tuple[str, ...], failing: str) -> None:
    done = step(PARTS, {}, *programs, failing=failing)
    assert done.status == 0, done.said
    assert [name for name, *_ in done.calls] == ["sudo"]


def test_secrets_go_to_one_step_only() -> None:
    assert INSTALL["env"] == {"VERSION": "${{ inputs.version }}"}
    assert "env" not in PARTS
    assert "inputs." not in INSTALL["run"] + PARTS["run"] + UP["run"]  # text of an input in a script would be code

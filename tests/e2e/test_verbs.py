"""Each verb as a person meets it: what it prints, how it ends, what is left (issue 3, the table)."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from lab_state import start_time, wait_for_line, wait_until
from rig import Session, ended

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from conftest import NewSession, Terminal, Up
    from lab import Lab
    from lab_box import Completed, Machine
    from lab_control import Control

    Background = list[subprocess.Popen[bytes]]

DOCUMENT = Path(__file__).parents[2] / "docs/json.md"


# --- status and list ------------------------------------------------------------------------------------------------


def documented(section: str) -> dict[str, str]:
    """Key → type, from the table under a heading of docs/json.md."""
    text = DOCUMENT.read_text().partition(f"\n{section}\n")[2].partition("\n#")[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", text, re.MULTILINE))


PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "number": (int, float),
    "number or null": (int, float, type(None)),
    "object": (dict,),
    "list of strings": (list,),
    "list of objects": (list,),
}


def assert_as_documented(found: dict[str, Any], section: str) -> None:
    """The very keys, each of the type that the document says."""
    wanted = documented(section)
    assert wanted
    assert set(found) == set(wanted)
    for key, kind in wanted.items():
        assert isinstance(found[key], PYTHON_TYPES[kind]), (key, found[key])
        if kind == "list of strings":
            assert all(isinstance(item, str) for item in found[key])


def test_status_json(lab: Lab, session: Session, background: Background) -> None:
    """Every documented key, with what is true."""
    background.append(session.popen("sleep", "111"))
    wait_until("sleep", lambda: os.readlink(f"/proc/{background[0].pid}/exe").endswith("sleep"))
    session.exec("ping", "-c1", "my-server", check=True)
    found = session.status()
    assert_as_documented(found, "## `tsenv status [NAME] --json`")
    node = lab.control.find(session.name)
    assert node
    assert (found["name"], found["state"], found["node"]) == (session.name, "up", session.name)
    assert set(found["addresses"]) == set(node.addresses)
    assert "." in found["addresses"][0]
    assert found["dns_name"] == f"{session.name}.tail-a.test"
    assert found["login_server"] == lab.control.url
    assert (found["underlay"], found["underlay_reason"], found["ephemeral"]) == ("host", "", True)
    assert (found["exit_node"], found["isolated"], found["until"], found["with_pid"]) == ("", False, None, None)
    assert found["restarts"] == {}
    assert found["tags"] == []
    boot_to_now = float(session.machine.run(["date", "+%s"]).stdout)
    assert boot_to_now - 600 < found["since"] <= boot_to_now + 1
    assert found["processes"] == [{"pid": background[0].pid, "command": "sleep 111"}]
    for part in ("supervisor", "pasta", "anchor", "inner", "tailscaled"):
        assert os.path.exists(f"/proc/{found['pids'][part]}"), part
    assert set(found["pids"]) == {"supervisor", "pasta", "anchor", "inner", "tailscaled"}
    assert os.stat(found["netns"]).st_ino == os.stat(f"/proc/{background[0].pid}/ns/net").st_ino
    assert os.path.exists(f"{found['dir']}/ready")


def test_status_json_of_peers(lab: Lab, session: Session) -> None:
    session.exec("ping", "-c3", "-i0.2", "my-server", check=True)
    peers = {peer["name"]: peer for peer in session.status()["peers"]}
    for peer in peers.values():
        assert_as_documented(peer, "### Peers")
    server = peers["my-server"]
    node = lab.control.find("my-server")
    assert node
    assert server["dns_name"] == "my-server.tail-a.test"
    assert set(server["addresses"]) == set(node.addresses)
    assert server["online"] is True
    assert re.fullmatch(r"direct 10[.]77[.]0[.]2:41641|relay lab", server["path"]), server


def test_status_for_people(lab: Lab, session: Session, background: Background) -> None:
    background.append(session.popen("sleep", "112"))
    wait_until("sleep", lambda: os.readlink(f"/proc/{background[0].pid}/exe").endswith("sleep"))
    done = session.tsenv("status")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"{session.name}: up"
    facts = {line[2:14].strip(): line[15:] for line in lines[1:]}
    assert facts["address"].startswith("100.")
    assert facts["name"] == f"{session.name}.tail-a.test"
    assert facts["node"] == f"{session.name} (ephemeral)"
    assert facts["control"] == lab.control.url
    assert facts["underlay"] == "host"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \((\d+ min )?\d+ s\)", facts["since"])
    assert re.search(r"^  my-server +100[.0-9]+ +online", done.stdout, re.MULTILINE), done
    assert f"{background[0].pid}  sleep 112" in done.stdout
    assert "\x1b" not in done.stdout


def test_status_on_a_terminal_fits_and_has_colour(session: Session, terminal: Terminal) -> None:
    child = terminal(["tsenv", "status", session.name])
    child.expect("\x1b\\[.*up")
    child.expect("my-server")
    assert ended(child) == 0


def test_status_of_what_is_not_there(machine: Machine, session_name: str) -> None:
    done = machine.run(["tsenv", "status", session_name])
    assert done.returncode == 125
    assert done.stderr == f"tsenv: no session '{session_name}' is up\n  hint: tsenv -n {session_name} up\n"
    assert not done.stdout
    done = machine.run(["tsenv", "status", session_name, "--json"])
    assert done.returncode == 125
    found = json.loads(done.stdout)
    assert found["state"] == "down"
    assert_as_documented(found, "## `tsenv status [NAME] --json`")


def test_status_of_a_dead_session(new_session: NewSession) -> None:
    """Its supervisor was killed: everything has ended, the directory tells so, and the next `up` goes on."""
    session = new_session("--ephemeral")
    before = session.status()
    os.kill(before["pids"]["supervisor"], signal.SIGKILL)
    for part in ("anchor", "inner", "tailscaled", "pasta"):
        wait_until(f"{part} to end", lambda part=part: start_time(before["pids"][part]) is None)
    done = session.tsenv("status")
    assert done.returncode == 125
    assert done.stdout.startswith(f"{session.name}: dead\n"), done
    assert "supervisor was killed" in done.stdout
    found = session.status()
    assert found["state"] == "dead"
    assert_as_documented(found, "## `tsenv status [NAME] --json`")
    for words in (["exec", "true"], ["shell"], ["tailscale", "status"]):
        done = session.tsenv(*words)
        assert done.returncode == 125
        assert done.stderr.startswith(f"tsenv: session '{session.name}' has died"), done
    rows = json.loads(session.machine.run(["tsenv", "list", "--json"]).stdout)
    assert [row["state"] for row in rows if row["name"] == session.name] == ["dead"]
    new_session(name=session.name)
    assert session.exec("curl", "-sS", "http://my-server/").returncode == 0


def test_list(new_machine: Callable[[], Machine], new_session: NewSession) -> None:
    machine = new_machine()
    done = machine.run(["tsenv", "list"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no sessions\n")
    assert machine.run(["tsenv", "list", "--json"]).stdout == "[]\n"
    sessions = [new_session("--hostname", f"{name}-{machine.name}", name=name, on=machine) for name in ("b", "aaa")]
    lines = machine.run(["tsenv", "list"]).stdout.splitlines()
    assert re.fullmatch(rf"aaa  up +100[.0-9]+ +aaa-{machine.name}.tail-a.test", lines[0]), lines
    assert re.fullmatch(rf"b    up +100[.0-9]+ +b-{machine.name}.tail-a.test", lines[1]), lines
    rows = json.loads(machine.run(["tsenv", "list", "--json"]).stdout)
    for row in rows:
        assert_as_documented(row, "## `tsenv list --json`")
    assert [row["name"] for row in rows] == ["aaa", "b"]
    assert [row["addresses"][0] for row in rows] == [sessions[1].address, sessions[0].address]


# --- logs -----------------------------------------------------------------------------------------------------------


def test_logs(session: Session) -> None:
    whole = session.tsenv("logs")
    assert whole.returncode == 0
    for part, word in (("supervisor", "up: 100."), ("tailscaled", "magicsock")):
        one = session.tsenv("logs", f"--{part}")
        assert word in one.stdout, part
        assert one.stdout[:200] in whole.stdout  # the logs go on meanwhile
    assert session.machine.run(["tsenv", "logs", session.name, "--supervisor"]).stdout.count("up: 100.") == 1


def test_logs_into_head(session: Session) -> None:
    done = session.machine.run(["bash", "-o", "pipefail", "-c", f"tsenv logs {session.name} | head -n1"])
    assert done.stdout
    assert not done.stderr


def test_logs_follow(session: Session, terminal: Terminal) -> None:
    child = terminal(["tsenv", "-n", session.name, "logs", "-f", "--tailscaled"])
    child.expect("magicsock")
    session.tsenv("tailscale", "debug", "daemon-logs", "--help")
    mark = f"mark-{os.getpid()}"
    with open(f"/home/tsenv-lab/.local/state/tsenv/{session.name}/tailscaled.log", "a") as file:
        file.write(f"{mark}\n")
    child.expect(mark)
    child.sendintr()
    assert ended(child) == -signal.SIGINT


def test_logs_after_the_end(new_session: NewSession) -> None:
    session = new_session()
    session.tsenv("down", check=True)
    done = session.tsenv("logs", "--supervisor")
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith("down"), done
    assert "magicsock" in session.tsenv("logs", "--tailscaled").stdout


def test_logs_of_nobody(machine: Machine, session_name: str) -> None:
    done = machine.run(["tsenv", "logs", session_name])
    assert done.returncode == 125
    assert done.stderr == f"tsenv: there are no logs of '{session_name}'\n  hint: tsenv list\n"


# --- tailscale ------------------------------------------------------------------------------------------------------


def test_tailscale_verb(session: Session) -> None:
    address = session.address
    assert session.tsenv("tailscale", "ip", "-4").stdout == f"{address}\n"
    assert session.machine.run(["tsenv", "tailscale", "ip", "-4"], env={"TSENV_SESSION": session.name}).stdout == f"{address}\n"
    assert "most secure way to use WireGuard" in str(session.tsenv("tailscale", "--help"))
    assert session.tsenv("tailscale", "status", "--json").stdout.startswith("{")
    done = session.tsenv("tailscale", "no-such")
    assert done.returncode == 1
    assert "unknown subcommand: no-such" in done.stderr
    assert session.tsenv("tailscale", "ping", "-c=1", "--until-direct=false", "my-server").returncode == 0


def test_plain_tailscale_inside(session: Session) -> None:
    """Unmodified, by name and by absolute path, also from a child that cleared its environment."""
    address = session.address
    path = session.machine.run(["sh", "-c", "command -v tailscale"]).stdout.strip()
    for words in (["tailscale"], [path], ["env", "-i", path], ["sh", "-c", 'exec tailscale "$@"', "sh"]):
        done = session.exec(*words, "ip", "-4")
        assert done.stdout == f"{address}\n", done
    # Its own options work, ours too, and outside it is still the binary.
    socket = f"{session.status()['dir']}/tailscaled.sock"
    for words in (["tailscale", "--socket", socket], ["tailscale", f"-socket={socket}"], ["tsenv", "tailscale"]):
        done = session.exec(*words, "ip", "-4")
        assert done.stdout == f"{address}\n", done
    assert session.machine.run(["head", "-c4", path]).stdout_bytes == b"\x7fELF"


@pytest.fixture
def machine_with_tailscale(new_machine: Callable[[], Machine]) -> Machine:
    """A computer with a daemon of its own at the usual place, logged in nowhere."""
    machine = new_machine()
    machine.run(["mkdir", "-m", "755", "/run/tailscale"], user="root", check=True)
    daemon = machine.spawn(
        f"tailscaled-{machine.name}",
        ["/opt/tsenv-lab/bin/tailscaled", "--state=mem:", "--socket=/run/tailscale/tailscaled.sock", "--tun=userspace-networking", "--no-logs-no-support"],
    )
    wait_for_line(daemon, "Listening on|localapi|magicsock")
    wait_until("its socket", lambda: machine.run(["tailscale", "version", "--daemon"]).returncode == 0)
    return machine


def test_never_the_hosts_tailscale(machine_with_tailscale: Machine, new_session: NewSession) -> None:
    machine = machine_with_tailscale
    session = new_session(on=machine)
    outside = machine.run(["tailscale", "status"])
    assert "Logged out" in outside.stdout + outside.stderr, outside
    for words in (["tailscale"], ["/opt/tsenv-lab/bin/tailscale"]):
        done = session.exec(*words, "status")
        assert re.search(r"^100[.0-9]+ +my-server ", done.stdout, re.MULTILINE), done
    # A program that knows only the socket.
    ask = ["curl", "-sS", "--unix-socket", "/var/run/tailscale/tailscaled.sock", "http://local-tailscaled.sock/localapi/v0/status"]
    done = session.exec(*ask)
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["BackendState"] == "Running"
    assert json.loads(machine.run(ask).stdout)["BackendState"] == "NeedsLogin"
    session.tsenv("down", check=True)
    assert json.loads(machine.run(ask).stdout)["BackendState"] == "NeedsLogin"
    assert machine.run(["tailscale", "status"]).stdout == outside.stdout


# --- shell ----------------------------------------------------------------------------------------------------------


def test_shell(session: Session, terminal: Terminal) -> None:
    """The user's shell, wholly inside: its builtins too; (NAME) in the prompt; its status is ours."""
    child = terminal(["tsenv", "shell", session.name])
    child.expect_exact(f"({session.name}) ")
    child.sendline("exec 5<>/dev/tcp/my-server/7; echo by bu''iltin >&5; read x <&5; echo \"<$x>\"")
    child.expect("<by builtin>")
    child.sendline("curl -sS http://my-server/ http://internet.lab.test/")
    child.expect("my-server of tailnet A\r\ninternet")
    child.sendline("echo $TSENV_SESSION-$0-$SHLVL")
    child.expect(f"{session.name}-/bin/bash-")
    child.sendline("sh -c 'echo slee\"\"ping; exec sleep 60'")
    child.expect("sleeping")
    child.sendintr()
    child.expect_exact(f"({session.name}) ")  # readline throws away what is typed before it listens
    child.sendline("tsenv status | head -n1")
    child.expect(f"{session.name}: up")
    child.sendline("exit 3")
    assert ended(child) == 3


@pytest.mark.parametrize("shell", ["zsh", "fish", "dash"])
def test_shell_of_another_kind(session: Session, terminal: Terminal, shell: str) -> None:
    path = session.machine.run(["sh", "-c", f"command -v {shell}"]).stdout.strip()
    child = terminal(["tsenv", "-n", session.name, "shell"], env={"SHELL": path, "TERM": "dumb"})
    child.expect_exact(f"({session.name}) ")
    child.sendline("curl -sS http://my-server/")
    child.expect("my-server of tailnet A")
    child.sendline("exit 4")
    assert ended(child) == 4


def test_shell_without_a_session(machine: Machine, session_name: str) -> None:
    done = machine.run(["tsenv", "shell", session_name])
    assert done.returncode == 125
    assert done.stderr.startswith(f"tsenv: no session '{session_name}' is up")


# --- run ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def one_shot(lab: Lab, session_name: str) -> Iterator[Callable[..., list[str]]]:
    """Words of a `tsenv run` as a node of the test's name; the key is to be given in TS_AUTHKEY."""

    def words(*command: str) -> list[str]:
        return [
            *("tsenv", "-n", session_name, "run", "--login-server", lab.control.url, "--hostname", session_name),
            *("--", *command),
        ]

    yield words
    left = [n for n in json.loads(lab.machine.run(["tsenv", "list", "--json"]).stdout) if session_name in n["name"]]
    for row in left:
        lab.machine.run(["tsenv", "down", "--force", row["name"]])
    assert not left


def assert_gone(lab: Lab, name: str) -> None:
    """Neither a node nor a session is left."""
    assert lab.control.find(name) is None
    assert name not in lab.machine.run(["tsenv", "list"]).stdout


def test_run(lab: Lab, one_shot: Callable[..., list[str]], session_name: str) -> None:
    env: dict[str, str | None] = {"TS_AUTHKEY": lab.control.auth_key()}
    script = "curl -sS http://my-server/; cat; echo $TSENV_SESSION ${TS_AUTHKEY-no key}; exit 7"
    done = lab.machine.run(one_shot("sh", "-c", script), env=env, input="typed\n")
    assert done.returncode == 7, done
    first, second, third = done.stdout.splitlines()
    assert (first, second) == ("my-server of tailnet A", "typed")
    assert re.fullmatch(rf"{session_name}-[0-9a-f]{{8}} no key", third)
    assert_gone(lab, session_name)


@pytest.mark.parametrize(
    ("command", "status"),
    [(["true"], 0), (["sh", "-c", "kill -KILL $$"], 137), (["no-such-command"], 127), (["/etc/passwd"], 126)],
)
def test_run_ends_as_its_command(
    lab: Lab, one_shot: Callable[..., list[str]], session_name: str, command: list[str], status: int
) -> None:
    done = lab.machine.run(one_shot(*command), env={"TS_AUTHKEY": lab.control.auth_key()})
    assert done.returncode == status, done
    assert_gone(lab, session_name)


def test_run_that_cannot_go_up(lab: Lab, one_shot: Callable[..., list[str]], session_name: str) -> None:
    done = lab.machine.run(one_shot("echo", "ran"), env={"TS_AUTHKEY": "hskey-auth-wrong"})
    assert done.returncode == 125, done
    assert "the auth key is not valid" in done.stderr
    assert not done.stdout
    assert_gone(lab, session_name)


def test_run_ends_by_ctrl_c(
    lab: Lab, one_shot: Callable[..., list[str]], session_name: str, terminal: Terminal
) -> None:
    child = terminal(one_shot("sh", "-c", "echo rea''dy; exec sleep 60"), env={"TS_AUTHKEY": lab.control.auth_key()})
    child.expect("ready")
    child.sendintr()
    assert ended(child) == 130
    assert_gone(lab, session_name)


def test_run_lets_its_command_handle_ctrl_c(
    lab: Lab, one_shot: Callable[..., list[str]], session_name: str, terminal: Terminal
) -> None:
    script = "trap 'echo again; on=1' INT; echo rea''dy; while [ -z \"$on\" ]; do sleep 0.1; done; echo go on; exit 5"
    child = terminal(one_shot("bash", "-c", script), env={"TS_AUTHKEY": lab.control.auth_key()})
    child.expect("ready")
    child.sendintr()
    child.expect("again.*go on")
    assert ended(child) == 5
    assert_gone(lab, session_name)


def test_run_ends_by_ctrl_c_while_going_up(
    lab: Lab, one_shot: Callable[..., list[str]], session_name: str, terminal: Terminal
) -> None:
    child = terminal(one_shot("echo", "ran"))  # without a key it waits for a login
    child.expect("waiting for the login")
    child.sendintr()
    assert ended(child) == 130
    assert "ran" not in child.before
    assert "Traceback" not in child.before
    assert_gone(lab, session_name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL])
def test_run_ends_by_a_signal(
    lab: Lab, one_shot: Callable[..., list[str]], session_name: str, number: signal.Signals
) -> None:
    """The command gets it, too; even SIGKILL leaves no node."""
    env: dict[str, str | None] = {"TS_AUTHKEY": lab.control.auth_key()}
    with lab.machine.popen(one_shot("sh", "-c", "echo $$; exec sleep 60"), env=env) as child:
        assert child.stdout
        inner = int(child.stdout.readline())
        if number == signal.SIGQUIT:
            os.killpg(child.pid, number)  # as the terminal does it
        else:
            child.send_signal(number)
        child.communicate(timeout=30)
    assert child.returncode == (-number if number == signal.SIGKILL else 128 + number)
    wait_until("the command to end", lambda: start_time(inner) is None)
    wait_until("the node to go", lambda: lab.control.find(session_name) is None)
    wait_until("the session to go", lambda: session_name not in lab.machine.run(["tsenv", "list"]).stdout)


@pytest.mark.parametrize("words", [["run"], ["run", "--"], ["run", "--ephemeral"]])
def test_run_without_a_command(machine: Machine, words: list[str]) -> None:
    done = machine.run(["tsenv", *words])
    assert done.returncode == 2
    assert done.stderr == "tsenv: run: no command\n  hint: tsenv run [OPTIONS] -- CMD\n"


# --- down -----------------------------------------------------------------------------------------------------------


def test_down(lab: Lab, new_session: NewSession) -> None:
    """Nothing runs on, the node is gone, the directory too, when it returns; twice is an error."""
    session = new_session()
    before = session.status()
    done = session.tsenv("down")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{session.name}: down\n", "")
    assert lab.control.find(session.name) is None
    assert not os.path.exists(before["dir"])
    for part, pid in before["pids"].items():
        assert start_time(pid) is None, part
    done = session.tsenv("down")
    assert done.returncode == 125
    assert done.stderr == f"tsenv: no session '{session.name}' is up\n  hint: tsenv list\n"


def test_two_at_once_end_it_once(new_session: NewSession) -> None:
    session = new_session()
    children = [session.machine.popen(["tsenv", "-n", session.name, "down"]) for _ in range(2)]
    said = [child.communicate(timeout=40) for child in children]
    assert sorted(child.returncode for child in children) == [0, 125], said
    assert b"".join(out for out, _ in said) == f"{session.name}: down\n".encode()
    assert f"no session '{session.name}' is up".encode() in b"".join(err for _, err in said)


def test_down_says_when_the_node_stays(new_session: NewSession, own_control: Control) -> None:
    session = new_session(control=own_control)
    own_control.pause()  # it answers no logout
    try:
        done = session.tsenv("down", timeout=40)
    finally:
        own_control.resume()
    assert (done.returncode, done.stdout) == (0, f"{session.name}: down\n")
    assert f"tsenv: {session.name}: could not log out" in done.stderr


def test_up_in_a_shell_that_a_session_which_ended_has_activated(new_session: NewSession) -> None:
    """As its shims say: the programs that `up` starts are the real ones, not those shims."""
    session = new_session()
    told = json.loads(session.tsenv("env", "--json").stdout)
    session.tsenv("down", check=True)

    def typed(words: str) -> Completed:
        env: dict[str, str | None] = {"BIN": told["TSENV_BIN"], "TS_AUTHKEY": session.control.auth_key()}
        return session.machine.run(["sh", "-c", f"PATH=$BIN:$PATH; {words}"], env=env)

    assert f"session '{session.name}' is not up" in typed("tailscale ip").stderr
    done = typed(f"tsenv -n {session.name} up --login-server {session.control.url} --hostname {session.name}")
    assert done.returncode == 0, done
    assert session.exec("tailscale", "ip", "-4").stdout.startswith("100.64.")


def test_the_next_command_knows_why_up_failed(up: Up, session_name: str, machine: Machine) -> None:
    assert "the auth key is not valid" in up(key="hskey-auth-wrong", check=False).stderr
    said = machine.run(["tsenv", "-n", session_name, "exec", "true"]).stderr
    assert "it could not go up: the auth key is not valid" in said, said


def test_the_version_of_tailscale(new_session: NewSession) -> None:
    session = new_session()
    versions = [session.tsenv("tailscale", "--version"), session.exec("tailscale", "--version")]
    assert [done.stdout.splitlines()[0] for done in versions] == ["1.102.5", "1.102.5"], versions


def test_down_is_refused_while_something_runs_inside(lab: Lab, new_session: NewSession) -> None:
    session = new_session()
    with session.popen("sh", "-c", "echo ready; read x", stdin=-1) as child:
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        done = session.machine.run(["tsenv", "down", session.name])
        assert done.returncode == 125
        assert f"{child.pid}  sh -c echo ready; read x\n" in done.stderr
        assert f"tsenv: 1 process still runs in '{session.name}'\n  hint: tsenv -n {session.name} down --force" in done.stderr
        assert session.exec("curl", "-sS", "http://my-server/").returncode == 0
        done = session.tsenv("down", "--force")
        assert done.returncode == 0, done
        child.communicate(timeout=10)
    assert child.returncode in (-signal.SIGTERM, -signal.SIGKILL)
    assert lab.control.find(session.name) is None


def test_down_force_ends_what_will_not_end(new_session: NewSession) -> None:
    """Stopped, deaf to SIGTERM, in the background of a shell that is gone."""
    session = new_session()
    script = "trap '' TERM HUP INT; (trap '' TERM; sleep 77 & sleep 78) & kill -STOP $$"
    child = session.popen("bash", "-c", script, stdout=None, stderr=None)
    wait_until("all three", lambda: len(session.status()["processes"]) >= 3)
    pids = [process["pid"] for process in session.status()["processes"]]
    session.tsenv("down", "--force", check=True)
    child.wait(timeout=10)
    for pid in pids:
        wait_until(f"{pid} to end", lambda pid=pid: start_time(pid) is None, 5)


def test_down_from_inside(new_session: NewSession, terminal: Terminal) -> None:
    """It names the shell that it would end."""
    session = new_session()
    child = terminal(["tsenv", "shell", session.name])
    child.expect_exact(f"({session.name}) ")
    child.sendline("tsenv down")
    child.expect(r"process(es)? still runs? in")
    child.sendline("exit")
    ended(child)


def test_down_all(lab: Lab, new_machine: Callable[[], Machine], new_session: NewSession) -> None:
    machine = new_machine()
    sessions = [new_session("--hostname", f"{name}-{machine.name}", name=name, on=machine) for name in ("a", "b", "c")]
    with sessions[1].popen("sleep", "60") as child:
        wait_until("sleep", lambda: sessions[1].status()["processes"])
        done = machine.run(["tsenv", "down", "--all"])
        assert done.returncode == 125
        assert done.stdout == "a: down\nc: down\n", done
        assert "1 process still runs in 'b'" in done.stderr
        assert json.loads(machine.run(["tsenv", "list", "--json"]).stdout)[0]["name"] == "b"
        done = machine.run(["tsenv", "down", "--all", "--force"])
        assert (done.returncode, done.stdout) == (0, "b: down\n"), done
        child.communicate(timeout=10)
    assert not [node for node in lab.control.nodes() if node.name.endswith(f"-{machine.name}")]
    done = machine.run(["tsenv", "down", "--all"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- help and typing errors -----------------------------------------------------------------------------------------

VERBS = ("up", "exec", "run", "shell", "status", "list", "logs", "tailscale", "down")


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb(machine: Machine, verb: str) -> None:
    done = machine.run(["tsenv", verb, "--help"])
    if verb == "tailscale":  # without a session there is nobody to ask: its help is tailscale's
        return
    assert done.returncode == 0, done
    assert done.stdout.startswith("usage: tsenv ")
    assert verb in machine.run(["tsenv", "--help"]).stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["exce", "ls"], "no verb 'exce'; did you mean exec?"),
        (["stauts"], "no verb 'stauts'; did you mean status?"),
        (["frobnicate"], "no verb 'frobnicate'"),
        (["up", "--hostnam", "x"], "unknown option or argument --hostnam; did you mean --hostname?"),
        (["status", "--jsn"], "unknown option or argument --jsn; did you mean --json?"),
        (["down", "a", "b"], "unknown option or argument b"),
        (["up", "--timeout", "soon"], "argument --timeout: 'soon' is not a number of seconds"),
        (["up", "--ephemeral", "--persistent"], "argument --persistent: not allowed with argument --ephemeral"),
        (["up", "--login-server", "headscale.example"], "'headscale.example' is not a URL"),
        (["up", "--advertise-tags", "ci"], "'ci' is not a tag"),
        (["-n"], "argument -n/--name: expected one argument"),
        (["exec"], "exec: no command"),
    ],
)
def test_typing_errors(machine: Machine, words: list[str], says: str) -> None:
    """One line what is wrong, one what to type; status 2; nothing on stdout."""
    done = machine.run(["tsenv", *words])
    assert done.returncode == 2, done
    first, second = done.stderr.splitlines()
    assert first == f"tsenv: {says}"
    assert second.startswith("  hint: ")
    assert not done.stdout


def test_without_a_verb(machine: Machine) -> None:
    done = machine.run(["tsenv"])
    assert done.returncode == 2
    assert done.stderr.startswith("usage: tsenv ")
    assert re.fullmatch(r"tsenv \d+\.\d+\.\d+\n", machine.run(["tsenv", "--version"]).stdout)

"""What each option of `up` does, seen from where it matters: the control server, a peer, a command inside."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from rig import Session, await_ready, ended, server, some_port

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Sequence

    from conftest import NewMachine, NewSession, Terminal, Up
    from lab import Lab
    from lab_box import Completed, Machine


@pytest.fixture
def own(lab: Lab, machine: Machine, session_name: str) -> Iterator[Session]:
    """A session that the test brings up by itself, without a word of the lab's."""
    session = Session(session_name, machine, lab.control)
    yield session
    session.tsenv("down", "--force")
    if node := lab.control.find(session_name):
        lab.control.delete(node)
    machine.run(["rm", "-rf", f"/home/tsenv-lab/.local/state/tsenv/{session_name}"])


def up(session: Session, *words: str, **how: Any) -> Completed:
    """``tsenv -n NAME up --login-server … WORDS``."""
    return session.tsenv("up", "--login-server", session.control.url, *words, **how)


def preferences(session: Session) -> dict[str, Any]:
    """What tailscaled was told."""
    found: dict[str, Any] = json.loads(session.tsenv("tailscale", "debug", "prefs").stdout)
    return found


# --- names and keys -------------------------------------------------------------------------------------------------


def test_hostname_tells_the_computer_and_the_session(own: Session, lab: Lab) -> None:
    up(own, "--auth-key-file", "-", input=lab.control.auth_key(), check=True)
    node = lab.control.find(f"tsenv-machine-{own.name}")
    assert node
    assert own.status()["dns_name"] == f"tsenv-machine-{own.name}.tail-a.test"


def test_hostname_is_made_a_label(new_session: NewSession, lab: Lab, session_name: str) -> None:
    session = new_session("--hostname", f"My_{session_name}.Example ")
    wanted = f"my-{session_name}-example"
    assert lab.control.find(wanted)
    assert session.status()["dns_name"] == f"{wanted}.tail-a.test"


@pytest.mark.parametrize("variable", ["TS_AUTHKEY", "TS_AUTH_KEY"])
def test_key_by_environment(own: Session, lab: Lab, variable: str) -> None:
    done = up(own, env={variable: lab.control.auth_key()}, check=True)
    assert "--auth-key" not in done.stderr
    assert own.status()["ephemeral"] is True


def test_key_by_file_and_home(own: Session, lab: Lab) -> None:
    path = f".{own.name}.key"
    own.machine.run(["sh", "-c", f"cat >~/{path}"], input=f"\n  {lab.control.auth_key()}\n\n", check=True)
    up(own, "--auth-key-file", f"~/{path}", check=True)
    own.machine.run(["sh", "-c", f"rm ~/{path}"], check=True)


def test_key_on_the_command_line_works_and_warns(own: Session, lab: Lab) -> None:
    done = up(own, "--auth-key", lab.control.auth_key(), check=True)
    assert re.search(r"--auth-key shows the key to everybody.*better: --auth-key-file", done.stderr), done


def test_tags(lab: Lab, own: Session) -> None:
    """Asked for at a login by URL: headscale takes no such wish from who has a key."""
    control = lab.control_b
    control.set_policy(
        {"tagOwners": {"tag:ci": ["lab@"]}, "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}
    )
    session = Session(own.name, own.machine, control)
    words = ["--login-server", control.url, "--hostname", own.name, "--advertise-tags", "tag:ci"]
    log_in(session, ["tsenv", "-n", own.name, "up", *words])
    node = control.find(own.name)
    assert node
    assert node.tags == ("tag:ci",)
    assert session.status()["tags"] == ["tag:ci"]
    control.delete(node)


def test_tags_of_the_key(lab: Lab, up: Callable[..., Completed], session_name: str) -> None:
    up(key=lab.control.auth_key(tags=["tag:ci"]))
    assert Session(session_name, lab.machine, lab.control).status()["tags"] == ["tag:ci"]


def log_in(session: Session, argv: list[str]) -> str:
    """Run an `up` without a key and be the person who visits its URL; what it said on stdout."""
    with session.machine.popen(argv) as child:
        assert child.stderr
        url = ""
        while not url:
            line = child.stderr.readline().decode()
            assert line, "no URL"
            url = (re.findall(r"^\s*(http\S+)\s*$", line) or [""])[0]
        session.control.register(url)
        out, _ = child.communicate(timeout=30)
        assert child.returncode == 0
        return out.decode()


def test_tags_that_are_not_permitted(up: Callable[..., Completed], lab: Lab) -> None:
    done = up("--advertise-tags", "tag:nobody-may", check=False)
    assert done.returncode == 125
    assert "not permitted" in done.stderr, done
    assert "hint: check --advertise-tags" in done.stderr, done


# --- the network ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("underlay", ["host", "pasta"])
def test_exit_node(lab: Lab, new_session: NewSession, underlay: str) -> None:
    """All that is not the tailnet's leaves there, as soon as `up` returns; the host's own way is not used."""
    exit_node = lab.exit_node()
    session = new_session("--exit-node", "exit-node", "--underlay", underlay)
    done = session.exec("curl", "-sS", "-m9", "http://internet.lab.test/ip", "http://my-server/")
    assert done.stdout == f"{exit_node.address}\nmy-server of tailnet A\n", done
    assert session.status()["exit_node"] == "exit-node"
    # Not even a packet that is bound to the uplink: tailscaled's rules do not decide that, so see what they do with it.
    assert session.machine.run(["curl", "-sS", "http://internet.lab.test/ip"]).stdout == f"{session.machine.address}\n"


def test_exit_node_by_address_and_wrong_ones(lab: Lab, new_session: NewSession, up: Callable[..., Completed]) -> None:
    lab.exit_node()
    node = lab.control.find("exit-node")
    assert node
    session = new_session("--exit-node", node.addresses[0])
    assert session.exec("curl", "-sS", "-m9", "http://internet.lab.test/ip").stdout == "10.77.0.5\n"
    for wrong in ("my-server", "nobody"):
        done = up("--exit-node", wrong, name=f"{session.name}-{wrong}", check=False)
        assert done.returncode == 125, done
        assert f"exit node '{wrong}'" in done.stderr, done


@pytest.mark.parametrize("underlay", ["host", "pasta"])
def test_accept_routes(lab: Lab, new_session: NewSession, session_name: str, underlay: str) -> None:
    """The subnet behind a peer is there when `up` returns, and only where it was asked for."""
    lab.router()
    asked = new_session("--accept-routes", "--underlay", underlay)
    assert asked.exec("curl", "-sS", "-m9", "http://10.88.0.2/").stdout == "subnet\n"
    plain = new_session("--underlay", underlay, name=f"{session_name}-plain")
    assert plain.exec("curl", "-sS", "-m1", "http://10.88.0.2/").returncode == 28


def test_accept_routes_that_take_what_is_the_hosts_own(lab: Lab, up: Up, new_machine: NewMachine) -> None:
    lab.router()
    machine = new_machine()
    machine.run(["ip", "addr", "add", "10.88.7.1/16", "dev", "eth0"], user="root", check=True)
    done = up("--accept-routes", on=machine)
    said = "router routes 10.88.0.0/24: inside, this host's own network 10.88.0.0/16 is reached by that peer"
    assert said in done.stderr, done


def test_no_accept_dns(new_session: NewSession, lab: Lab) -> None:
    """Names are the host's, the tailnet is there by address."""
    session = new_session("--no-accept-dns")
    assert session.exec("getent", "hosts", "my-server").returncode == 2
    node = lab.control.find("my-server")
    assert node
    done = session.exec("curl", "-sS", f"http://{node.addresses[0]}/", "http://internet.lab.test/")
    assert done.stdout == "my-server of tailnet A\ninternet\n", done


def test_accept_dns_said_aloud(new_session: NewSession) -> None:
    session = new_session("--accept-dns")
    assert session.exec("getent", "hosts", "my-server").returncode == 0


# --- the node's life ------------------------------------------------------------------------------------------------


def test_ephemeral_is_what_a_key_makes(new_session: NewSession, lab: Lab) -> None:
    """The node is gone when `down` returns, and nothing of it is on disk."""
    session = new_session()
    assert session.status()["ephemeral"] is True
    assert lab.control.find(session.name)
    session.tsenv("down", check=True)
    assert lab.control.find(session.name) is None
    left = session.machine.run(["ls", f"/home/tsenv-lab/.local/state/tsenv/{session.name}"]).stdout.split()
    assert set(left) <= {"supervisor.log", "tailscaled.log", "pasta.log"}


def test_persistent_keeps_the_node_and_needs_no_key_again(own: Session, lab: Lab) -> None:
    key = lab.control.auth_key(ephemeral=False)
    up(own, "--persistent", "--hostname", own.name, "--auth-key-file", "-", input=key, check=True)
    first = own.status()
    assert first["ephemeral"] is False
    done = own.machine.run(["ls", "-l", f"/home/tsenv-lab/.local/state/tsenv/{own.name}/tailscaled.state"])
    assert done.stdout.startswith("-rw-------"), done
    own.tsenv("down", check=True)
    assert lab.control.find(own.name)

    done = up(own, "--hostname", own.name, check=True)
    assert "visit" not in done.stderr
    again = own.status()
    assert again["addresses"] == first["addresses"]
    assert again["dns_name"] == first["dns_name"]
    assert again["ephemeral"] is False
    assert own.exec("curl", "-sS", "http://my-server/").stdout == "my-server of tailnet A\n"


def test_login_by_url(own: Session, lab: Lab, terminal: Terminal) -> None:
    """Without a key: the URL and its QR code are shown, `up` goes on when somebody has been there, the node stays."""
    words = ["tsenv", "-n", own.name, "up", "--login-server", own.control.url, "--hostname", own.name]
    child = terminal(words)
    child.expect(r"visit:\s+(http://[^/]+:8080/register/\S+)")
    url = child.match[1]
    child.expect("[█▄▀]{9}")
    child.expect("waiting for the login")
    lab.control.register(url)
    child.expect(f"{own.name}: up, 100.*{own.name}.tail-a.test")
    assert ended(child) == 0
    assert own.status()["ephemeral"] is False
    own.tsenv("down", check=True)
    done = up(own, "--hostname", own.name, check=True)
    assert "visit" not in done.stderr


def test_login_by_url_into_a_pipe(own: Session) -> None:
    """Not a terminal: the URL is on stderr as a line of its own, and stdout has the one line in the end."""
    words = ["--login-server", own.control.url, "--hostname", own.name, "--ephemeral"]
    said = log_in(own, ["tsenv", "-n", own.name, "up", *words])
    assert re.fullmatch(rf"{own.name}: up, 100[.0-9]+, {own.name}.tail-a.test\n", said)
    # --ephemeral: `down` logs out, and the next `up` must log in again.
    assert own.status()["ephemeral"] is True
    own.tsenv("down", check=True)
    done = up(own, "--hostname", own.name, "--timeout", "2")
    assert "nobody logged in" in done.stderr, done


def test_nobody_logs_in(own: Session, lab: Lab) -> None:
    done = up(own, "--timeout", "2", "--hostname", own.name)
    assert done.returncode == 125
    assert "nobody logged in within 2 s" in done.stderr, done
    assert own.tsenv("status").stderr.startswith(f"tsenv: no session '{own.name}' is up"), done


# --- waiting --------------------------------------------------------------------------------------------------------


def test_wait_for(new_session: NewSession, lab: Lab) -> None:
    """By name, by name and port, by IPv6 address and port; all of them."""
    node = lab.control.find("my-server")
    assert node
    six = next(address for address in node.addresses if ":" in address)
    targets = ["my-server", "my-server:22", f"[{six}]:80", "my-server.tail-a.test:7"]
    session = new_session(*(word for target in targets for word in ("--wait-for", target)))
    assert session.exec("curl", "-sS", "http://my-server/").returncode == 0


def test_wait_for_a_service_that_comes_later(own: Session, lab: Lab, background: list[subprocess.Popen[bytes]]) -> None:
    """`up` returns when it is there, and not before."""
    port = some_port()
    words = ["--login-server", own.control.url, "--auth-key-file", "-", "--wait-for", f"my-server:{port}"]
    with own.machine.popen(["tsenv", "-n", own.name, "up", *words], stdin=-1) as child:
        assert child.stdin
        assert child.stderr
        child.stdin.write(lab.control.auth_key().encode())
        child.stdin.close()
        while "waiting for my-server" not in (line := child.stderr.readline().decode()):
            assert line, "it did not come to wait"
        assert own.status()["state"] == "starting"
        assert own.exec("true").stderr.startswith(f"tsenv: session '{own.name}' is still going up")
        background.append(lab.my_server.popen(server("::", port, "here")))
        await_ready(background[-1])
        assert child.wait(timeout=20) == 0
    assert own.status()["state"] == "up"


@pytest.mark.parametrize(
    ("target", "reason"),
    [("nobody:22", "Name or service not known"), ("my-server:12399", "Connection refused"), ("nobody", "")],
)
def test_wait_for_nobody(up: Callable[..., Completed], lab: Lab, session_name: str, target: str, reason: str) -> None:
    begin = time.monotonic()
    done = up("--timeout", "3", "--wait-for", target, check=False)
    assert time.monotonic() - begin < 12
    assert done.returncode == 125, done
    assert f"{target} does not answer" in done.stderr, done
    assert reason in done.stderr, done
    assert lab.control.find(session_name) is None


# --- flags for tailscale, names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["before", "after", "environment"])
def test_flags_for_tailscale(own: Session, lab: Lab, named: str) -> None:
    """What follows -- goes to `tailscale up`, with the session named anywhere."""
    options = ["--login-server", own.control.url, "--auth-key-file", "-"]
    flags = ["--", "--advertise-routes=10.99.0.0/24", "--netfilter-mode=off"]
    words, env = {
        "before": (["-n", own.name, "up", *options, *flags], None),
        "after": (["up", own.name, *options, *flags], None),
        "environment": (["up", *options, *flags], {"TSENV_SESSION": own.name}),
    }[named]
    own.machine.run(["tsenv", *words], input=lab.control.auth_key(), env=env, check=True)
    told = preferences(own)
    assert told["AdvertiseRoutes"] == ["10.99.0.0/24"]
    assert told["NetfilterMode"] == 0


def test_a_flag_without_its_dashes_is_refused(own: Session) -> None:
    """One that is meant for tailscale, but stands before --."""
    done = up(own, "--advertise-routes=10.99.0.0/24")
    assert done.returncode == 2, done
    assert done.stderr.startswith("tsenv: unknown option or argument --advertise-routes"), done


def test_an_unknown_flag_for_tailscale(up: Callable[..., Completed]) -> None:
    done = up("--", "--no-such-flag", check=False)
    assert done.returncode == 125, done
    assert "tailscale up does not know a flag" in done.stderr, done
    assert "-no-such-flag" in done.stderr


@pytest.mark.parametrize("flag", ["--auth-key=tskey-x", "--authkey=tskey-x", "-auth-key=tskey-x", "--auth-key"])
def test_a_key_after_the_dashes_is_refused(own: Session, flag: str) -> None:
    done = up(own, "--", flag)
    assert done.returncode == 2
    assert "would show in ps" in done.stderr, done


def test_which_session_is_meant(session: Session) -> None:
    """-n, else TSENV_SESSION, else the nearest .tsenv.toml, else "default"."""
    folder = session.machine.run(["mktemp", "-d"], check=True).stdout.strip()
    session.machine.run(["sh", "-c", f"mkdir -p {folder}/a/b; echo 'name = \"from-file\"' >{folder}/.tsenv.toml"], check=True)

    def asked(words: Sequence[str], env: str | None, cwd: str) -> str:
        done = session.machine.run(["tsenv", *words, "exec", "true"], env={"TSENV_SESSION": env}, cwd=cwd)
        return done.stderr.partition("'")[2].partition("'")[0]

    assert asked(["-n", "given"], "from-env", f"{folder}/a/b") == "given"
    assert asked(["--name=given"], "from-env", f"{folder}/a/b") == "given"
    assert asked([], "from-env", f"{folder}/a/b") == "from-env"
    assert asked([], None, f"{folder}/a/b") == "from-file"
    assert asked([], "", f"{folder}") == "from-file"
    session.machine.run(["rm", "-r", folder], check=True)


@pytest.mark.parametrize("name", ["-x", ".x", "a/b", "a b", "", "é", "x" * 64, "a\nb", "$(id)", "..", "_x"])
def test_what_is_no_name(machine: Machine, name: str) -> None:
    for words in (["-n", name, "status"], ["-n", name, "exec", "true"]):
        done = machine.run(["tsenv", *words], env={"TSENV_SESSION": "other"})
        assert done.returncode in (2, 125), done
        assert done.stderr.startswith("tsenv: "), done
        assert len(done.stderr.splitlines()) == 2, done


def test_a_long_name_with_all_that_is_allowed(new_session: NewSession, session_name: str) -> None:
    name = f"{session_name}-A.b_c-"
    session = new_session("--hostname", session_name, name=name + "x" * (63 - len(name)))
    assert session.exec("sh", "-c", "echo $TSENV_SESSION").stdout == f"{session.name}\n"

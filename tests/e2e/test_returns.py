"""`up` gives back its terminal and its pipes, and the session stays when both are gone (issue 3, 10)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab_box import PATH
from lab_state import wait_for_line
from rig import Session, ended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Terminal
    from lab import Lab
    from lab_box import Machine

# The key's file goes to the shell as $KEY, the rest of the command line as $UP.
UP = 'tsenv -n {name} up --login-server {url} --hostname {name} --auth-key-file "$KEY"'


@pytest.fixture
def case(lab: Lab, machine: Machine, session_name: str) -> Iterator[Session]:
    """A session that the test brings up itself; the file with its key is named as the session."""
    session = Session(session_name, machine, lab.control)
    machine.run(["sh", "-c", f"umask 077; cat >/tmp/{session_name}"], input=lab.control.auth_key(), check=True)
    yield session
    session.tsenv("down", "--force")
    machine.run(["rm", "-f", f"/tmp/{session_name}"])


def command(case: Session) -> str:
    """The command line, in shell words."""
    return UP.format(name=case.name, url=case.control.url).replace('"$KEY"', f"/tmp/{case.name}")


def assert_works(case: Session) -> None:
    assert case.exec("curl", "-sS", "http://my-server/").stdout == "my-server of tailnet A\n"


@pytest.mark.parametrize(
    "script",
    [
        "{up} | cat",
        "{up} 2>&1 | cat",
        'x=$({up}); echo "$x"',
        'x=$({up} 2>&1); echo "$x"',
        "cat <({up})",
        "{up} </dev/zero",
        "{up} <&- | cat",
        "{up} 2>&- | cat",
        "{up} 2>&- <&- | cat",
        "echo | {up}",
        "exec 9> >(cat); {up} | cat",
        "{{ {up} & }} | cat",
        "timeout 60 {up}",
        "nohup {up} 2>/dev/null",
        "ulimit -c 0; umask 000; cd /proc/self; {up}",
    ],
)
def test_every_pipe_is_given_back(case: Session, script: str) -> None:
    """The lab reads until all ends of its pipes are closed: a daemon that held one would be a timeout here."""
    done = case.machine.run(["bash", "-c", script.format(up=command(case))], timeout=40)
    assert done.returncode == 0, done
    assert f"{case.name}: up, 100." in done.stdout, done
    assert_works(case)


def test_nothing_of_the_session_holds_what_up_had(case: Session, tmp_path: Path) -> None:
    """No file, no working directory, no terminal, no environment: all of its processes."""
    script = f"mkdir -p /tmp/{case.name}.d && cd /tmp/{case.name}.d && exec 7>mine && CANARY=tweet {command(case)}"
    done = case.machine.run(["bash", "-c", script], check=True)
    for part, pid in case.status()["pids"].items():
        folder = Path(f"/proc/{pid}")
        held = {os.readlink(fd) for fd in (folder / "fd").iterdir()}
        assert not [path for path in held if case.name in path and "/tsenv/" not in path], (part, held)
        assert os.readlink(folder / "cwd") in ("/", case.status()["dir"]), part
        assert (folder / "stat").read_text().rpartition(")")[2].split()[4] == "0", (part, "terminal")
        if part in ("supervisor", "anchor", "inner"):
            assert b"tskey" not in (folder / "environ").read_bytes()
    assert done.returncode == 0
    case.machine.run(["rm", "-r", f"/tmp/{case.name}.d"], check=True)


def test_a_terminal_is_given_back(case: Session, terminal: Terminal) -> None:
    """It shows phases, ends in one line, and the session survives the terminal."""
    child = terminal(["bash", "-c", command(case)])
    child.expect(f"{case.name}: up, 100[.][0-9.]+, {case.name}.tail-a.test\r\n")
    shown = child.before
    assert ended(child) == 0
    assert "login" in shown  # the phases before are over in less than a frame
    assert_works(case)


def test_a_closed_terminal_takes_no_session_with_it(case: Session, terminal: Terminal) -> None:
    """The window is closed (SIGHUP to all that run in it) right after `up`."""
    shell = terminal(["bash", "--norc", "-i"])
    shell.sendline(command(case))
    shell.expect(f"{case.name}: up")
    shell.close(force=True)
    assert_works(case)


def test_ctrl_c_in_the_terminal_of_up_is_not_for_the_session(case: Session, terminal: Terminal) -> None:
    shell = terminal(["bash", "--norc", "-i"], env={"PS1": "<$?> "})
    shell.sendline(command(case))
    shell.expect(f"{case.name}: up.*<0> ")
    shell.sendline("sh -c 'echo rea\"\"dy; exec sleep 30'")  # one job: the signal finds it, whatever it is at
    shell.expect("ready")
    shell.sendintr()
    shell.expect("<130> ")
    shell.sendline("exit")
    ended(shell)
    assert_works(case)


def test_in_tmux(case: Session) -> None:
    """The tmux server that was started in a shell survives, and so does the session that was started in tmux."""
    socket = f"/tmp/{case.name}.tmux"
    tmux = ["tmux", "-S", socket, "-f", "/dev/null"]
    signal = f"{' '.join(tmux)} wait-for -S done"
    case.machine.run([*tmux, "new-session", "-d", f"{command(case)} >/tmp/{case.name}.out 2>&1; {signal}; cat"], check=True)
    case.machine.run([*tmux, "wait-for", "done"], timeout=30)
    case.machine.run([*tmux, "kill-server"], check=True)
    done = case.machine.run(["cat", f"/tmp/{case.name}.out"])
    assert f"{case.name}: up, 100." in done.stdout, done
    assert_works(case)
    case.machine.run(["sh", "-c", f"rm -f {socket} /tmp/{case.name}.out"])


@pytest.fixture
def ssh(new_machine: Callable[[], Machine]) -> tuple[Machine, list[str]]:
    """A computer with an sshd, and the words that lead to it from itself."""
    machine = new_machine()
    daemon = machine.spawn(
        f"sshd-{machine.name}", ["/usr/sbin/sshd", "-D", "-e", "-f", "/run/tsenv-lab/ssh/sshd_config"]
    )
    wait_for_line(daemon, "Server listening on ::")
    words = ["ssh", "-i", "/home/tsenv-lab/.ssh/tsenv_lab_key", "-o", "BatchMode=yes"]
    words += ["-o", "UserKnownHostsFile=/home/tsenv-lab/.ssh/tsenv_lab_known_hosts", "-o", "LogLevel=ERROR", "localhost"]
    return machine, words


@pytest.mark.parametrize("tty", [[], ["-tt"]], ids=["plain", "tty"])
def test_by_ssh(lab: Lab, ssh: tuple[Machine, list[str]], session_name: str, tty: list[str]) -> None:
    """`ssh localhost tsenv up` returns, and the session is there in the next login; a login has no XDG_RUNTIME_DIR."""
    machine, words = ssh
    key = f"/tmp/{session_name}"
    machine.run(["sh", "-c", f"cat >{key}"], input=lab.control.auth_key(), check=True)
    up = UP.format(name=session_name, url=lab.control.url).replace('"$KEY"', key)
    done = machine.run([*words[:1], *tty, *words[1:], f"PATH={PATH} {up}"], timeout=40)
    assert done.returncode == 0, done
    assert f"{session_name}: up, 100." in done.stdout
    session = Session(session_name, machine, lab.control)
    assert_works(session)
    done = machine.run([*words, f"PATH={PATH} tsenv -n {session_name} exec curl -sS http://my-server/"])
    assert done.stdout == "my-server of tailnet A\n", done
    done = machine.run([*words, f"PATH={PATH} tsenv -n {session_name} down"], timeout=40)
    assert done.returncode == 0, done
    assert lab.control.find(session_name) is None

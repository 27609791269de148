"""A command inside is as it is without tsenv: who it is, where, its bytes, terminal, signals, end (issue 3, 2)."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from lab_state import wait_until
from rig import ended

if TYPE_CHECKING:
    from conftest import Terminal
    from lab_box import Completed
    from rig import Session

SECRETS = ("TS_AUTHKEY", "TS_AUTH_KEY", "TS_CLIENT_SECRET", "TS_API_KEY", "TAILSCALE_AUTHKEY")

# Each is run by a shell in a scratch folder, once as it stands and once with PREFIX as `tsenv exec`.
SAME = {
    "id": "$RUN id",
    "whoami": "$RUN whoami",
    "home": """$RUN sh -c 'echo "$HOME"; echo ~'""",
    "umask 022": "umask 022; $RUN sh -c umask",
    "umask 077": "umask 077; $RUN sh -c 'umask; >made; stat -c %a made'; rm -f made",
    "owner of files": "$RUN sh -c '>made; ls -ln made | cut -c1-20; stat -c %u:%g made'; rm -f made",
    "limits": "ulimit -n 77; $RUN sh -c 'ulimit -a'",
    "nice": "nice -n 5 $RUN nice",
    "cwd": "$RUN pwd",
    "cwd with spaces": "mkdir -p 'a b/ c'; cd 'a b/ c'; $RUN pwd",
    "cwd with a newline": "mkdir -p $'n\\nl'; cd $'n\\nl'; $RUN pwd",
    "cwd with a dash": "mkdir -p ./-x; cd ./-x; $RUN pwd",
    "cwd by a link": "mkdir -p real; ln -sfn real link; cd link; $RUN sh -c 'pwd; pwd -P; echo $PWD'",
    "cwd in /tmp": "cd /tmp; $RUN pwd",
    "cwd /": "cd /; $RUN pwd",
    "cwd in /proc": "cd /proc/self/fdinfo/..; $RUN true",
    "deleted cwd": "mkdir gone; cd gone; rmdir ../gone; $RUN readlink /proc/self/cwd; $RUN sh -c 'echo $PWD'; $RUN cat ./x",
    "stdin": "printf 'a\\nb' | $RUN cat -A",
    "closed stdin": "$RUN sh -c 'readlink /proc/self/fd/0 || echo closed' <&-",
    "open files": "$RUN sh -c 'echo 3 >&3; read x <&4; echo $x' 3>made 4</etc/hostname; cat made; rm -f made",
    "no more files": "$RUN sh -c 'for f in /proc/self/fd/*; do readlink $f; done | grep -c -v /proc/'",
    "stderr": "$RUN sh -c 'echo out; echo err >&2' 2>&1 >/dev/null",
    "status 0": "$RUN true",
    "status 3": "$RUN sh -c 'exit 3'",
    "status 255": "$RUN sh -c 'exit 255'",
    "not executable": "$RUN /etc/passwd 2>/dev/null",
    "a folder": "$RUN /tmp 2>/dev/null",
    "not found": "$RUN no-such-command-here 2>/dev/null",
    "path not found": "$RUN ./no-such 2>/dev/null",
    "no interpreter": "printf '#!/no/such\\n' >made; chmod +x made; $RUN ./made 2>/dev/null; echo $?; rm made",
    "no #!": "echo 'echo ran $1' >made; chmod +x made; $RUN ./made x; rm made",
    "hostile arguments": """$RUN printf '<%s>\\n' '' ' ' "a'b" 'a"b' '$HOME' '`id`' '*' -n -- --help '\\' $'c\\nd' é 💥 $'\\xff'""",
    "hostile command": """printf '#!/bin/sh\\necho "$0"' >"a 'b\\$(id)"; chmod +x "a 'b\\$(id)"; $RUN "./a 'b\\$(id)"; rm a*b*""",
    "SIGTERM": "$RUN sh -c 'kill -TERM $$'",
    "SIGKILL": "$RUN sh -c 'kill -KILL $$'",
    "SIGSEGV": "$RUN sh -c 'kill -SEGV $$'",
    "broken pipe": "$RUN yes | head -n1; echo ${PIPESTATUS[0]}",
    "signals": "$RUN grep -E '^Sig(Blk|Ign)' /proc/self/status",
    "ignored signals": "trap '' HUP INT; $RUN grep -E '^Sig(Blk|Ign)' /proc/self/status",
    "processes": "$RUN sh -c 'readlink /proc/self/ns/pid; ps -o comm= -p 1'",
    "hostname": "$RUN hostname; $RUN uname -a",
    "time": "TZ=Asia/Tokyo $RUN date +%Z",
    "no PATH": "(unset PATH; ${RUN:+/opt/tsenv-lab/venv/bin/tsenv exec --} /bin/echo ok)",
    "empty variables": """A= B=' ' C=$'x\\ny' $RUN sh -c 'printf "<%s>" "${A-unset}" "$B" "$C"'""",
    "variables of ours": "line=1 started=2 rest=3 clean=4 entry=5 name=6 cmd=7 $RUN env | grep -E '^[a-z]+=[0-9]$' | sort",
    "exported functions": "f() { echo from f; }; export -f f; $RUN bash -c f",
    "odd variables": "env a.b=1 a-b=2 3=3 é=4 $RUN env | grep -aE '^(a.b|3|é)=' | sort",
    "odd variables and a cwd": "mkdir -p 'o d'; cd 'o d'; env a.b=1 $RUN sh -c 'pwd; exit 4'",
    "exec in exec": "$RUN $RUN sh -c 'exit 5'",
    "exec in exec, odd variables": "env a.b=1 $RUN $RUN env | grep a.b",
    "exec in exec, deleted cwd": "mkdir gone; cd gone; rmdir ../gone; $RUN $RUN whoami",
}


@pytest.fixture(scope="module")
def scratch(session: Session) -> str:
    """A folder of the lab's user, the same for all of this module's tests."""
    return session.machine.run(["mktemp", "-d", "/tmp/tsenv-e2e-as-is.XXXXXX"], check=True).stdout.strip()


def bash(session: Session, script: str, run: str, cwd: str) -> Completed:
    """Run a script in which $RUN stands before each command."""
    return session.machine.run(["bash", "-c", script], env={"RUN": run, "TSENV_SESSION": session.name}, cwd=cwd)


@pytest.mark.parametrize("script", SAME.values(), ids=SAME.keys())
def test_as_without_tsenv(session: Session, scratch: str, script: str) -> None:
    plain = bash(session, script, "", scratch)
    inside = bash(session, script, "tsenv exec --", scratch)
    assert (inside.returncode, inside.stdout) == (plain.returncode, plain.stdout), f"{plain}\n{inside}"
    assert inside.stderr == plain.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_it_as_it_would(session: Session, number: signal.Signals) -> None:
    """Sent to the process that the caller started: that *is* the command, nothing stands between."""
    child = session.popen("sleep", "60")
    wait_until("sleep", lambda: os.readlink(f"/proc/{child.pid}/exe").endswith("/sleep"))
    child.send_signal(number)
    child.communicate(timeout=5)
    assert child.returncode == -number


def test_nothing_of_tsenv_stays(session: Session) -> None:
    script = "echo $$; exec tsenv exec sh -c 'echo $$; cat /proc/$PPID/comm'"
    done = session.machine.run(["sh", "-c", script], env={"TSENV_SESSION": session.name})
    before, after, parent = done.stdout.splitlines()
    assert before == after, done
    assert parent not in ("nsenter", "tsenv", "sh")


def test_environment_is_the_callers_less_the_secrets(session: Session) -> None:
    env = {"TSENV_SESSION": session.name, **dict.fromkeys(SECRETS, "tskey-secret"), "MINE": "a b\nc"}
    plain = session.machine.run(["env", "-0"], env=env).stdout.split("\0")
    inside = session.machine.run(["tsenv", "exec", "env", "-0"], env=env).stdout.split("\0")
    expected = {line for line in plain if "tskey-secret" not in line}
    # PWD is what every sh exports; the lab starts commands without one.
    assert {line for line in inside if not line.startswith("PWD=")} == expected
    assert "MINE=a b\nc" in inside


def test_the_secrets_do_not_reach_it_by_proc_either(session: Session) -> None:
    env = {"TSENV_SESSION": session.name, "TS_AUTHKEY": "tskey-secret"}
    done = session.machine.run(["tsenv", "exec", "cat", "/proc/self/environ"], env=env)
    assert "TSENV_SESSION" in done.stdout
    assert "secret" not in done.stdout


def test_session_is_named_inside(session: Session) -> None:
    assert session.exec("sh", "-c", "echo $TSENV_SESSION").stdout == f"{session.name}\n"


def test_bytes_come_through(session: Session) -> None:
    data = bytes(range(256)) * 5000
    assert session.exec("cat", input=data).stdout_bytes == data


def test_options_after_the_command_are_its_own(session: Session) -> None:
    done = session.tsenv("exec", "curl", "-v", "http://my-server/")
    assert done.returncode == 0, done
    assert "> GET / HTTP" in done.stderr
    assert session.tsenv("exec", "printf", "%s ", "-n", "x", "--help", "--").stdout == "-n x --help -- "
    assert session.tsenv("exec", "--", "printf", "%s ", "--", "-f").stdout == "-- -f "


@pytest.mark.parametrize("words", [["-x"], ["--no-such"], ["--", "--"]])
def test_what_looks_like_an_option_is_a_command(session: Session, words: list[str]) -> None:
    done = session.tsenv("exec", *words)
    assert done.returncode == 127, done
    assert done.stderr.startswith(f"tsenv: {words[-1]}: command not found"), done


def test_exec_inside_of_exec(session: Session) -> None:
    done = session.exec("tsenv", "exec", "tsenv", "exec", "curl", "-sS", "http://my-server/")
    assert done.stdout == "my-server of tailnet A\n", done


def test_sudo_is_refused_by_sudo_not_by_us(session: Session) -> None:
    done = session.exec("sh", "-c", "su -c id root; echo $?", input="")
    assert done.stdout.strip() not in ("", "0"), done


# --- terminals ------------------------------------------------------------------------------------------------------


def inside(session: Session, *words: str) -> list[str]:
    return ["tsenv", "-n", session.name, "exec", *words]


def test_it_has_the_terminal(session: Session, terminal: Terminal) -> None:
    child = terminal(inside(session, "sh", "-c", "tty; stty size; test -t 0 -a -t 1 -a -t 2 && echo all three"))
    child.expect(r"/dev/pts/\d+\r\n37 91\r\nall three")
    assert ended(child) == 0


def test_a_new_window_size_reaches_it(session: Session, terminal: Terminal) -> None:
    child = terminal(inside(session, "bash", "-c", "trap 'stty size; exit 5' WINCH; echo ready; sleep 20 & wait"))
    child.expect("ready")
    child.setwinsize(11, 42)
    child.expect("11 42")
    assert ended(child) == 5


def test_ctrl_c_ends_it(session: Session, terminal: Terminal) -> None:
    child = terminal(inside(session, "cat"))
    child.sendline("hello")
    child.expect("hello\r\nhello")
    child.sendintr()
    assert ended(child) == -signal.SIGINT


def test_ctrl_c_is_its_own_to_handle(session: Session, terminal: Terminal) -> None:
    child = terminal(inside(session, "bash", "-c", "trap 'echo caught; exit 9' INT; echo ready; sleep 20 & wait"))
    child.expect("ready")
    child.sendintr()
    child.expect("caught")
    assert ended(child) == 9


def test_job_control(session: Session, terminal: Terminal) -> None:
    """Ctrl-Z, bg, fg and Ctrl-C in an interactive shell outside, as with any program."""
    shell = terminal(
        ["bash", "--norc", "-i"], env={"PS1": "<$?> ", "TSENV_SESSION": session.name, "PROMPT_COMMAND": None}
    )
    shell.expect("<0> ")
    shell.sendline("tsenv exec cat")
    shell.sendline("one")
    shell.expect("one\r\none")
    shell.send("\x1a")
    shell.expect("Stopped.*tsenv exec cat.*<148> ")
    shell.sendline("jobs -l")
    shell.expect(r"\[1\]\+ +\d+ Stopped")
    shell.expect("<0> ")
    shell.sendline("fg")
    shell.expect("tsenv exec cat")
    shell.sendline("two")
    shell.expect("two\r\ntwo")
    shell.sendintr()
    shell.expect("<130> ")
    shell.sendline("tsenv exec sleep 0.1 & wait $!")
    shell.expect("<0> ")
    shell.sendline("exit")
    assert ended(shell) == 0


def test_closing_the_terminal_ends_it(session: Session, terminal: Terminal) -> None:
    child = terminal(inside(session, "sh", "-c", "echo $$; exec sleep 60"))
    child.expect(r"(\d+)\r\n")
    pid = int(child.match[1])
    child.close(force=False)
    wait_until("sleep to end", lambda: not os.path.exists(f"/proc/{pid}"))


def test_ssh_with_a_terminal(session: Session, terminal: Terminal) -> None:
    child = terminal(inside(session, "ssh", "-t", "my-server", "stty size; read line; echo got $line; exit 4"))
    child.expect("37 91")
    child.sendline("this")
    child.expect("got this")
    assert ended(child) == 4


def test_a_full_screen_program(session: Session, terminal: Terminal) -> None:
    child = terminal(inside(session, "top", "-b", "-n1"))
    child.expect("PID USER")
    assert ended(child) == 0
    child = terminal(inside(session, "top"))
    child.expect("PID USER")
    child.send("q")
    assert ended(child) == 0


def test_tmux_inside_and_outside(session: Session, terminal: Terminal) -> None:
    """A tmux server that starts inside keeps its windows inside; one that runs outside can have some."""
    socket = f"/tmp/tsenv-e2e-tmux-{os.getpid()}"
    child = terminal(inside(session, "tmux", "-S", socket, "-f", "/dev/null", "new", "sh"))
    child.sendline("curl -sS http://my-server/; echo in $TSENV_SESSION")
    child.expect("my-server of tailnet A")
    child.expect(f"in {session.name}")
    child.sendline("exit")
    assert ended(child) == 0
    session.machine.run(["rm", "-f", socket])

"""Parts die, are stopped or are taken away: a session comes back, or says that it is over. It is never in between."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from typing import TYPE_CHECKING

import lab_control
import pytest
from faults import (
    UID,
    back_after,
    connection,
    folder,
    gone_after,
    is_well,
    kill,
    log,
    measured,
    memory_cgroup,
    mounts,
    pid,
    reaches,
    record,
    until,
)
from lab_box import allocate_octet
from lab_state import start_time, wait_until
from rig import Session

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from lab import Lab
    from lab_box import Completed, Machine
    from lab_control import Control

    from tests.e2e.conftest import NewSession

pytestmark = pytest.mark.xdist_group("faults")

# tailscaled, when it has to connect to its control server twice in two minutes, tries port 443 alone, unless the server's
# URL is http with a private address (tailscale.com/control/ts2021). Faults make it connect anew, and the lab has no 443.
CONTROL = dataclasses.replace(lab_control.CONTROL_A, host=lab_control.ADDRESS)


@pytest.fixture(scope="module")
def session(lab: Lab) -> Iterator[Session]:
    """One for all faults that a session survives."""
    found = Session(f"faults-{os.getpid()}", lab.machine, CONTROL)
    words = ["up", "--login-server", CONTROL.url, "--auth-key-file", "-", "--hostname", found.name]
    found.tsenv(*words, input=CONTROL.auth_key(), check=True)
    yield found
    found.tsenv("down", "--force", check=True)
    assert CONTROL.find(found.name) is None


PEER = ("curl", "-sS", "--max-time", "5", "http://my-server/")
INTERNET = ("curl", "-sS", "--max-time", "5", "http://internet.lab.test/")


def works(session: Session) -> None:
    """Tailnet and internet can be reached, by name."""
    for command, page in ((PEER, "my-server of tailnet A\n"), (INTERNET, "internet\n")):
        done = session.exec(*command)
        assert done.stdout == page, str(done)


# --- it comes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_the_daemon_dies_and_an_open_ssh_connection_goes_on(session: Session, number: signal.Signals) -> None:
    before = session.status()
    with connection(session) as ask:
        silences: list[float] = []
        # The line is sent into the gap; its echo ends the silence.
        back = back_after(session, "tailscaled", number=number, meanwhile=lambda: silences.append(ask()))
    after = session.status()
    assert after["addresses"] == before["addresses"]
    assert after["restarts"]["tailscaled"] == before["restarts"].get("tailscaled", 0) + 1
    assert after["state"] == "up"
    assert len([n for n in session.control.nodes() if n.name == session.name]) == 1
    works(session)
    measured(
        f"tailscaled: {number.name}", "status: degraded, until then; an open connection is silent",
        "the same node and address; open connections go on", {"back": back, "silence": silences[0]},
    )  # fmt: skip


def test_status_says_meanwhile_what_is_wrong(session: Session) -> None:
    for _ in range(3):
        back_after(session, "tailscaled")  # the pauses grow
    kill(session, "tailscaled")
    until(lambda: session.status()["state"] == "degraded", "status to say so", 3)
    status, words = session.status(), session.tsenv("status")
    told = "tailscaled ended (SIGKILL), again in "
    assert told in " ".join(status["health"]) or is_well(session)
    assert told in log(session)
    assert words.returncode == 0, "it can be used, for the most part"
    until(lambda: is_well(session), "the session to be whole again")


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "a cgroup's OOM kill"])
def test_the_daemon_runs_out_of_memory(session: Session, limit: str) -> None:
    victim = pid(session, "tailscaled")
    with contextlib.ExitStack() as stack:
        if limit == "RLIMIT_AS":
            session.machine.run(["prlimit", f"--pid={victim}", "--as=1:1"], check=True)
        else:
            oom_kills = stack.enter_context(memory_cgroup(victim, 1 << 20))
        begin = time.monotonic()

        def spent() -> bool:
            session.machine.run(["tsenv", "-n", session.name, "tailscale", "netcheck"], timeout=20)
            session.status()
            return pid(session, "tailscaled") != victim

        until(spent, "tailscaled to have asked for more memory than it may have", 30)
        until(lambda: is_well(session), "the session to be whole again")
        back = time.monotonic() - begin
        assert "tailscaled ended" in log(session)
        if limit != "RLIMIT_AS":
            assert oom_kills() >= 1  # a child of its may go with it
            assert "tailscaled ended (SIGKILL)" in log(session)
    works(session)
    measured(f"tailscaled: no memory ({limit})", "status: degraded, until then", "the same node and address", {
        "back": back
    })  # fmt: skip


def test_pasta_dies(session: Session) -> None:
    with connection(session) as ask:
        silences: list[float] = []
        back = back_after(session, "pasta", meanwhile=lambda: silences.append(ask()))
        works(session)
        # The second is another kind of process: it was attached, and has a watcher.
        back = max(back, back_after(session, "pasta"))
        works(session)
    measured("pasta: SIGKILL", "connections to the internet break", "internet; the tailnet never went", {
        "back": back, "silence": silences[0]
    })  # fmt: skip


def test_pasta_dies_under_the_daemon(new_session: NewSession) -> None:
    """With the pasta underlay the tailnet's packets go by pasta, too: they pause."""
    session = new_session("--underlay", "pasta", control=CONTROL)
    with connection(session) as ask:
        silences: list[float] = []
        back = back_after(session, "pasta", meanwhile=lambda: silences.append(ask()))
        works(session)
    measured("pasta: SIGKILL, with --underlay pasta", "the tailnet is silent, too", "internet and tailnet; open "
             "connections to peers go on", {"back": back, "silence": silences[0]})  # fmt: skip


def test_both_die_at_once_while_twenty_commands_run(session: Session) -> None:
    script = "sleep 0.2; curl -sS --retry 20 --retry-all-errors --retry-delay 1 --max-time 5 http://my-server/"
    children = [session.popen("sh", "-c", script) for _ in range(20)]
    back = back_after(session, "tailscaled", "pasta")
    answers = [child.communicate(timeout=60) for child in children]
    assert [out for out, _ in answers] == [b"my-server of tailnet A\n"] * 20, answers
    assert session.status()["processes"] == []
    works(session)
    measured("tailscaled and pasta: SIGKILL, 20 exec running", "no command fails to start, none is ended", "all", {
        "back": back
    })  # fmt: skip


def test_the_watcher_of_a_second_pasta_is_replaced(session: Session) -> None:
    back_after(session, "pasta")
    pasta = pid(session, "pasta")

    def watchers() -> list[int]:
        found = session.machine.run(["pgrep", "-f", f"read -r _; .* sh {pasta} "], user="root").stdout
        return [int(word) for word in found.split()]

    first = watchers()
    assert len(first) == 1
    os.kill(first[0], signal.SIGKILL)
    until(lambda: watchers() not in ([], first), "another watcher")


@pytest.mark.parametrize("address", ["100.99.99.99", "fd7a:115c:a1e0::9999"])
def test_what_is_for_the_tailnet_leaves_by_it_or_not_at_all(session: Session, address: str) -> None:
    """Also without --isolated: else a connection to a peer went to whoever has its address on the host's network."""
    until(lambda: is_well(session), "the session to be whole")
    kill(session, "supervisor", number=signal.SIGSTOP)  # so that the daemon stays away
    try:
        kill(session, "tailscaled")
        until(lambda: "tailscale0" not in session.exec("ip", "-br", "link").stdout, "its interface to go")
        done = session.exec("ip", "route", "get", address)
    finally:
        kill(session, "supervisor", number=signal.SIGCONT)
    assert "dev eth0" not in done.stdout, str(done)
    until(lambda: is_well(session), "the daemon to be back")


def test_a_suspended_machine_goes_on(session: Session) -> None:
    """All that suspend does to processes. TTLs count the time asleep (tests/unit/test_loop.py)."""
    found = record(session)
    parts = [p["pid"] for p in found["pids"].values()]
    with connection(session) as ask:
        for part in parts:
            os.kill(part, signal.SIGSTOP)
        time.sleep(3)  # this is the test: time passes
        for part in parts:
            os.kill(part, signal.SIGCONT)
        silence = ask()
        works(session)
    assert record(session)["pids"] == found["pids"]
    measured("suspend and resume", "nothing", "all; open connections go on", {"silence": silence})


# --- it is over -----------------------------------------------------------------------------------------------------


def take_away(session: Session, what: str) -> None:
    """Break a session for good."""
    if what == "directory":
        session.machine.run(["rm", "-rf", str(folder(session))])  # of etc/work not even its owner may list all
    elif what == "moved":
        session.machine.run(["mv", str(folder(session)), f"{folder(session)}.moved"], check=True)
    elif what == "supervisor, after a second pasta":  # which was attached: another kind of process
        kill(session, "supervisor")
    elif what == "supervisor and anchor":
        kill(session, "supervisor", "anchor")
    elif what == "everything":  # the machine goes down
        for inside in session.status()["processes"]:
            os.kill(inside["pid"], signal.SIGKILL)
        kill(session, "supervisor", "anchor", "inner", "tailscaled", "pasta")
    else:
        kill(session, what)


ENDS = {
    "anchor": "its anchor ended",
    "supervisor": "its supervisor was killed",
    "directory": "its directory was removed",
    "moved": "its directory was removed",
    "supervisor, after a second pasta": "its supervisor was killed",
    "supervisor and anchor": "its supervisor was killed",
    "everything": "its supervisor was killed",
}


@pytest.mark.parametrize("what", ENDS)
def test_without_it_nothing_runs_on_and_the_next_command_says_so(
    new_session: NewSession, up: Callable[..., Completed], background: list[subprocess.Popen[bytes]], what: str
) -> None:
    session = new_session(control=CONTROL)
    commands = [session.popen(*words, stdout=None, stderr=None) for words in (
        ("sleep", "1000"), ("unshare", "-Urnm", "sleep", "1001")  # in namespaces of its own, too
    )]  # fmt: skip
    background += commands
    until(lambda: len(session.status()["processes"]) == len(commands), "the commands to run inside")
    if what == "supervisor, after a second pasta":
        back_after(session, "pasta")
    found = record(session)
    take_away(session, what)
    gone = gone_after(found, 1.5)  # 1 s is the promise, kept where the machine has nothing else to do
    assert all(command.wait(1) for command in commands)
    watchers = session.machine.run(["pgrep", "-f", f"read -r _; .* sh {found['pids']['pasta']['pid']} "], user="root")
    assert watchers.stdout == ""
    if "supervisor" not in ENDS[what]:
        # In a hurry: half a second. Where that was not enough, it says so.
        until(lambda: node_is_gone(session) or "could not log out" in log(session), "its logout", 5)
    said = session.exec("true")
    assert said.returncode == 125
    killed = ENDS[what] == ENDS["supervisor"]
    expected = "supervisor or its anchor was killed" if killed else ENDS[what]
    assert session.name in said.stderr, said.stderr
    assert expected in said.stderr, said.stderr
    assert f"tsenv -n {session.name} up" in said.stderr
    assert session.tsenv("status").returncode == 125
    if killed:
        assert ENDS[what] in session.tsenv("status").stdout
    up(control=CONTROL)
    assert session.exec(*PEER).stdout == "my-server of tailnet A\n"
    session.tsenv("down", check=True)
    assert not mounts(session)
    session.machine.run(["rm", "-rf", f"{folder(session)}.moved"])
    fault = {"directory": "directory: removed", "moved": "directory: moved", "everything": "the machine goes down"}
    row = fault.get(what, f"{what}: SIGKILL")
    measured(row, f"“session … {ENDS[what]}”", "nothing runs on; `tsenv up` works anew", {"over": gone})


def test_the_directory_above_is_moved(new_machine: Callable[..., Machine], new_session: NewSession) -> None:
    machine = new_machine()  # there, all sessions go
    session = new_session(on=machine, control=CONTROL)
    pids = session.status()["pids"].values()
    machine.run(["mv", f"/run/user/{UID}/tsenv", f"/run/user/{UID}/elsewhere"], check=True)
    begin = time.monotonic()
    until(lambda: not any(start_time(pid) for pid in pids), "its parts to end", 2)
    over = time.monotonic() - begin
    assert "its directory was removed" in session.exec("true").stderr
    measured("the directory above: moved", "“session … its directory was removed”", "nothing runs on", {"over": over})


def test_a_new_session_is_not_removed_by_the_one_whose_place_it_took(
    new_session: NewSession, up: Callable[..., Completed]
) -> None:
    session = new_session(control=CONTROL)
    session.machine.run(["rm", "-rf", str(folder(session))])
    up(control=CONTROL)  # at once: the old one is still going down
    until(lambda: log(session).rstrip().endswith(" down") or " down\n" in log(session), "the old one's end")
    assert session.exec("true").returncode == 0


# --- its life -------------------------------------------------------------------------------------------------------


def node_is_gone(session: Session) -> bool:
    """Whether the control server has no such node."""
    return session.control.find(session.name) is None


def test_with_pid_ends_with_a_killed_process_and_logs_out(machine: Machine, new_session: NewSession) -> None:
    """A CI runner that is killed: nothing is told to anybody, and still the node goes."""
    runner = machine.popen(["sleep", "1000"])
    session = new_session("--with-pid", str(runner.pid), control=CONTROL)
    found = record(session)
    runner.kill()
    runner.communicate()
    gone = gone_after(found, 10)
    assert node_is_gone(session)
    assert not folder(session).exists()
    assert f"process {runner.pid} has ended" in session.exec("true").stderr
    measured("the process of --with-pid: SIGKILL", "nothing", "the session ends and logs out", {"over": gone})


def test_with_pid_of_a_process_that_ends_meanwhile(lab: Lab, up: Callable[..., Completed], session_name: str) -> None:
    """While it goes up, before anybody could use it."""
    runner = lab.machine.popen(["sleep", "1.5"])
    done = up("--with-pid", str(runner.pid), "--wait-for", "nobody", control=CONTROL, check=False)
    assert done.returncode == 125, done
    assert f"process {runner.pid} has ended" in done.stderr
    runner.communicate()
    assert CONTROL.find(session_name) is None


def test_the_programs_are_removed_while_it_is_up(
    lab: Lab, new_machine: Callable[..., Machine], session_name: str
) -> None:
    """A CI tool directory that goes before the session: it cannot log out, and ends all the same."""
    machine = new_machine()
    machine.run(["cp", "/opt/tsenv-lab/bin/tailscale", "/opt/tsenv-lab/bin/tailscaled", "/tmp"], check=True)
    session = Session(session_name, machine, CONTROL)
    env = {"PATH": "/tmp:/opt/tsenv-lab/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    words = ["up", "--login-server", CONTROL.url, "--auth-key-file", "-", "--hostname", session_name]
    machine.run(["tsenv", "-n", session_name, *words], env=env, input=CONTROL.auth_key(), check=True)
    machine.run(["rm", "/tmp/tailscale", "/tmp/tailscaled"], check=True)
    session.tsenv("down", check=True)
    assert session.tsenv("list").stdout == ""
    assert "could not log out" in machine.run(["tsenv", "-n", session_name, "logs", "--supervisor"]).stdout
    if node := CONTROL.find(session_name):
        CONTROL.delete(node)


def test_a_directory_that_takes_no_file_ends_nothing(new_session: NewSession) -> None:
    """As a full disk: peers come and go, parts die, and no file can be written."""
    session = new_session(control=CONTROL)
    before = record(session)["pids"]["supervisor"]
    folder(session).chmod(0o500)
    new_session(name=f"{session.name}-peer", control=CONTROL)
    kill(session, "pasta")
    time.sleep(2)  # it waits half a second for more peers, and starts another pasta
    assert start_time(before["pid"]) == before["start"]
    folder(session).chmod(0o700)
    works(session)


def _daemons(session: Session) -> list[int]:
    found = session.machine.run(["pgrep", "-f", f"tailscaled .*/{session.name}/tailscaled.sock"], user="root").stdout
    return [int(word) for word in found.split()]


def test_a_daemon_that_does_not_answer_is_replaced(new_session: NewSession) -> None:
    session = new_session(control=CONTROL)
    first = pid(session, "tailscaled")
    kill(session, "tailscaled")
    hung = wait_until("another", lambda: next((found for found in _daemons(session) if found != first), None))
    os.kill(hung, signal.SIGSTOP)  # before it could answer
    begin = time.monotonic()
    until(lambda: pid(session, "tailscaled") not in (first, hung) and is_well(session), "a third", 30)
    works(session)
    measured("tailscaled hangs at its start", "status: degraded, until then", "the same node and address", {
        "back": time.monotonic() - begin
    })  # fmt: skip


def test_ttl_ends_it_and_logs_out(new_session: NewSession) -> None:
    session = new_session("--ttl", "4s", control=CONTROL)
    found = record(session)
    gone_after(found, 10)
    assert node_is_gone(session)
    assert "its time is over" in session.exec("true").stderr
    measured("the time of --ttl is over", "nothing", "as `tsenv down`: logged out, nothing left", {})


def test_sigterm_to_the_supervisor_is_down(new_session: NewSession) -> None:
    session = new_session(control=CONTROL)
    found = record(session)
    kill(session, "supervisor", number=signal.SIGTERM)
    gone = gone_after(found, 10)
    assert node_is_gone(session)
    assert not folder(session).exists()
    measured("supervisor: SIGTERM", "nothing", "as `tsenv down`: logged out, nothing left", {"over": gone})


def test_down_while_the_daemon_is_dead_logs_out_all_the_same(new_session: NewSession) -> None:
    session = new_session(control=CONTROL)
    kill(session, "tailscaled")
    session.tsenv("down", check=True)
    assert node_is_gone(session)


def test_a_killed_ci_step_leaves_the_session(lab: Lab, up: Callable[..., Completed], session_name: str) -> None:
    """The runner kills the step's whole process group; the session is for the next step, too."""
    del up  # it only ends the session
    command = f"tsenv -n {session_name} up --login-server {lab.control.url} --hostname {session_name}; sleep 1000"
    step = lab.machine.popen(["sh", "-c", command], env={"TS_AUTHKEY": lab.control.auth_key()})
    session = Session(session_name, lab.machine, lab.control)
    until((folder(session) / "ready").exists, "the step to bring the session up")
    os.killpg(step.pid, signal.SIGKILL)
    step.communicate()
    works(session)
    session.tsenv("down", check=True)
    measured("a CI step's process group: SIGKILL", "nothing", "the session was never gone", {})


# --- the control server ---------------------------------------------------------------------------------------------


def test_the_control_server_is_away_and_comes_back_without_memory(new_session: NewSession) -> None:
    """Away: all goes on. Back as another: what is up stays up, and ends in time, though it cannot log out."""
    port = 9000 + allocate_octet()
    with lab_control.testcontrol(port) as server:
        session = new_session(control=Server(server.url))
        server.process.signal(signal.SIGSTOP)
        back_after(session, "pasta")
        assert session.exec(*INTERNET).stdout == "internet\n"
        server.process.signal(signal.SIGCONT)
        assert session.exec("getent", "hosts", session.status()["dns_name"]).returncode == 0
    with lab_control.testcontrol(port):
        assert session.exec(*INTERNET).stdout == "internet\n"
        assert session.status()["state"] == "up"
        begin = time.monotonic()
        session.tsenv("down", check=True)
        over = time.monotonic() - begin
        assert over < 15
        assert "could not log out" in log(session)
    measured("control server away, then back without its memory", "in the log, at the end: could not log out",
             "all that was up goes on", {"down takes": over})  # fmt: skip


def test_the_control_server_forgets_a_node(
    new_session: NewSession, own_control: Control, up: Callable[..., Completed]
) -> None:
    """Its database is lost. What is up goes on, and says what to do."""
    session = new_session(control=own_control)
    peer = new_session("--allow-incoming", name=f"{session.name}-peer", control=own_control)
    assert reaches(session, peer)
    assert session.status()["health"] == []
    own_control.stop()
    for file in own_control.folder.glob("db.sqlite*"):
        file.unlink()
    own_control.start()
    begin = time.monotonic()
    advice = f"does not know this node: what is up goes on; anew: tsenv -n {session.name} down, then up with a new key"
    until(lambda: advice in " ".join(session.status()["health"]), "status to say so", 60)
    told = time.monotonic() - begin
    assert session.status()["state"] == "up"
    assert reaches(session, peer)
    begin = time.monotonic()
    session.tsenv("down", check=True)
    over = time.monotonic() - begin
    own_control.cli("users", "create", "lab")
    up(control=own_control)
    assert session.status()["health"] == []
    measured("the control server loses its database", "status: what to type", "what is up goes on, until then",
             {"told": told, "down takes": over})  # fmt: skip


class Server:
    """A test control server as the fixture `up` wants one: any key will do."""

    def __init__(self, url: str) -> None:
        self.url = url

    @staticmethod
    def auth_key() -> str:
        """Any."""
        return "tskey-any"


def test_a_node_whose_key_expires_says_what_to_do(new_session: NewSession) -> None:
    session = new_session(control=CONTROL)
    node = session.control.find(session.name)
    assert node
    begin = time.monotonic()
    session.control.expire(node)
    until(lambda: session.status()["state"] == "degraded", "the session to say so", 20)
    told = time.monotonic() - begin
    health = " ".join(session.status()["health"])
    assert f"tsenv -n {session.name} down, then up with a new key" in health
    assert session.exec(*INTERNET).stdout == "internet\n"
    session.tsenv("down", check=True)
    measured("the node's key expires", "status: degraded, with the words to type", "nothing by itself", {"told": told})

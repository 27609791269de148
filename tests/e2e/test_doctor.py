"""doctor on a real machine, whose gates are closed for one command; the ✗ and ! that it cannot be made to show are
provoked in tests/unit/test_doctor_words.py.
"""

from __future__ import annotations

import json
import os
import pwd
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lab import Lab
    from lab_box import Completed, Machine

DENY = f"/usr/bin/python3 -I {shlex.quote(str(Path(__file__).with_name('deny.py')))}"
# Its files may be read by root alone; the filter is installed as root, and stays.
OVER = "d=$(mktemp -d -p /mnt); mount -t tmpfs none $d; mkdir $d/up $d/work; mount -t overlay -o lowerdir={0},upperdir=$d/up,workdir=$d/work none {0}; cd {0}; "
USR_BIN = OVER.format("/usr/bin")
OURS = OVER.format("/opt/tsenv-lab/bin")
TUN = "mount -t tmpfs {} none /dev/net; "


def run(
    machine: Machine, words: str, prepare: str = "", deny: str = "", env: dict[str, str] | None = None, **how: Any
) -> Completed:
    """Run tsenv as the lab's user, in a mount namespace that root has prepared, maybe with system calls denied."""
    account = pwd.getpwnam("tsenv-lab")
    drop = f"setpriv --reuid={account.pw_uid} --regid={account.pw_gid} --init-groups --inh-caps=-all --"
    script = f"{prepare}cd /; exec {DENY + ' ' + deny + ' -- ' if deny else ''}{drop} {words}"
    login = {"HOME": account.pw_dir, "USER": account.pw_name, "XDG_RUNTIME_DIR": f"/run/user/{account.pw_uid}"}
    # setpriv must be there even where the script took programs away.
    script = script.replace(drop, f"$setpriv {drop.partition(' ')[2]}")
    argv = [
        "unshare",
        "--mount",
        "sh",
        "-ec",
        f"mount -t tmpfs -o mode=0755 none /mnt; cp /usr/bin/setpriv /mnt/; setpriv=/mnt/setpriv; {script}",
    ]
    return machine.run(argv, user="root", env={**login, **(env or {})}, **how)


def asked(machine: Machine, *options: str, **how: Any) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit status and checks by id of `tsenv doctor --json`."""
    offline = [] if "--login-server" in options else ["--offline"]
    done = run(machine, shlex.join(["tsenv", "doctor", "--json", *offline, *options]), **how)
    found = json.loads(done.stdout)
    assert found["ok"] == (done.returncode == 0), done
    return done.returncode, {check["id"]: check for check in found["checks"]}


def test_all_is_well(lab: Lab) -> None:
    status, found = asked(lab.machine, "--login-server", lab.control.url)
    assert status == 0
    assert {"namespace", "userns", "control", "clock", "udp", "underlay", "tun"} <= set(found)
    assert {name: c for name, c in found.items() if c["state"] != "ok"} == {}


def test_words_for_people(machine: Machine) -> None:
    done = machine.run(["tsenv", "doctor", "--offline"], check=True)
    lines = done.stdout.splitlines()
    assert all(line.startswith(("✓ ", "! ", "✗ ", "    ")) for line in lines), done
    assert "✓ /dev/net/tun can be opened" in lines


# What closes the gate, the check that says so, a part of its words and of its fix.
CLOSED = {
    "no tun": ({"prepare": TUN.format("")}, "tun", "/dev/net/tun is missing", "tun"),
    "tun of root": ({"prepare": TUN.format("") + "mknod -m 0600 /dev/net/tun c 10 200; "}, "tun", "may not be opened", "tun"),
    "tun of no driver": ({"prepare": TUN.format("") + "mknod -m 0666 /dev/net/tun c 10 250; "}, "tun", "does not work: No such device", "tun"),
    "tun behind nodev": (
        {"prepare": TUN.format("-o nodev") + "mknod -m 0666 /dev/net/tun c 10 200; "}, "tun", "device cgroup refuses", "/dev/net/tun"),
    "no pasta": ({"prepare": USR_BIN + "rm pasta; "}, "pasta", "pasta is not installed", "apt install passt"),
    "dead pasta": ({"prepare": USR_BIN + "chmod 644 pasta; "}, "pasta", "/usr/bin/pasta is not executable", "chmod +x /usr/bin/pasta"),
    "no tailscaled": ({"prepare": OURS + "rm tailscaled; "}, "tailscaled", "tailscaled is not installed", "install.sh"),
    "no tailscale": ({"prepare": OURS + "rm tailscale; "}, "tailscale", "tailscale is not installed", "install.sh"),
    "no nsenter": ({"prepare": USR_BIN + "rm nsenter; "}, "nsenter", "nsenter is not installed", "apt install util-linux"),
    "busybox": ({"prepare": USR_BIN + "ln -sf busybox unshare; "}, "unshare", "is busybox's", "apt install util-linux"),
    "namespaces off": (
        {"prepare": "echo 0 >/mnt/zero; mount --bind /mnt/zero /proc/sys/user/max_user_namespaces; "},
        "userns-switch", "switched off (user.max_user_namespaces=0)", "sudo sysctl user.max_user_namespaces=",
    ),
    "foreign runtime": ({"env": {"XDG_RUNTIME_DIR": "/run/lock/.."}}, "runtime", "cannot make /run/lock/../tsenv", "XDG_RUNTIME_DIR"),
    "old kernel": ({"wrap": "setarch --uname-2.6 "}, "kernel", "is too old: tsenv needs 5.3", "kernel"),
}  # fmt: skip


@pytest.mark.parametrize("gate", CLOSED)
def test_a_closed_gate_is_named_and_up_says_the_same(lab: Lab, session_name: str, gate: str) -> None:
    how, check, says, fix = CLOSED[gate]
    how = dict(how)
    wrap = how.pop("wrap", "")
    how.setdefault("env", {})
    done = run(lab.machine, f"{wrap}tsenv doctor --json --offline", **how)
    found = {c["id"]: c for c in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1
    assert found[check]["state"] == "fail"
    assert says in found[check]["says"]
    assert fix in found[check]["fix"]
    if wrap:
        return  # under that personality Go's runtime would not start, which is not what this is about
    words = f"tsenv -n {session_name} up --login-server {lab.control.url} --auth-key-file -"
    up = run(lab.machine, words, input="tskey-none", **how)
    assert up.returncode == 125
    assert up.stderr.splitlines()[:2] == [f"tsenv: {found[check]['says']}", f"  hint: {found[check]['fix']}"], up


def test_old_kernel_stops_up(lab: Lab, session_name: str) -> None:
    words = f"setarch --uname-2.6 tsenv -n {session_name} up --login-server {lab.control.url} --auth-key-file -"
    done = run(lab.machine, words, input="tskey-none")
    assert done.returncode == 125
    assert "is too old: tsenv needs 5.3" in done.stderr


# What a container's filter or AppArmor refuses, found by doing.
DENIED = {
    "docker": ("unshare=EPERM clone:10000000=EPERM clone3=ENOSYS setns=EPERM", "userns", "a user namespace cannot be made: Operation not permitted"),
    "no capabilities": ("unshare:40020000=EPERM", "userns", "a user namespace gives no capabilities: Operation not permitted"),
}  # fmt: skip


@pytest.mark.parametrize("gate", DENIED)
def test_what_only_a_trial_shows(machine: Machine, gate: str) -> None:
    calls, check, says = DENIED[gate]
    status, found = asked(machine, deny=calls)
    assert status == 1
    assert found["namespace"]["state"] == "fail"
    assert found[check]["state"] == "fail"
    assert says in found[check]["says"]
    assert found[check]["fix"]


def test_up_explains_what_only_a_trial_shows(lab: Lab, session_name: str) -> None:
    calls, _, says = DENIED["docker"]
    words = f"tsenv -n {session_name} up --login-server {lab.control.url} --auth-key-file -"
    done = run(lab.machine, words, input="tskey-none", deny=calls)
    assert done.returncode == 125
    assert says in done.stderr, done


def test_a_read_only_proc_forbids_the_map(machine: Machine) -> None:
    status, found = asked(machine, prepare="mount -o remount,bind,ro /proc; ")
    assert status == 1
    assert "writing its uid_map: Read-only file system" in found["userns"]["says"]


def script(text: str, name: str) -> str:
    """Put a program of that name first on PATH."""
    return f"d=$(mktemp -d -p /mnt); chmod 755 $d; printf '#!/bin/sh\\n%s\\n' {shlex.quote(text)} >$d/{name}; chmod 755 $d/{name}; PATH=$d:$PATH; "


FAKES = {
    "pasta that fails": ("pasta", "echo No routable interface >&2; exit 1", "namespace", "fail", "pasta cannot make a network namespace: No routable"),
    "no mounts": ("mount", "exit 1", "namespace", "fail", "the session's namespaces cannot be set up: no layer over /etc"),
    "old pasta": ("pasta", "echo Usage: --quiet --config-net", "pasta-options", "fail", "lacks --no-map-gw --dns-forward"),
    "old daemon": ("tailscaled", "echo 1.48.2", "tailscale-version", "fail", "tailscaled 1.48.2 is too old"),
    "two versions": ("tailscaled", "echo 1.98.0", "tailscale-version", "warn", "tailscaled is 1.98.0 but tailscale is 1."),
}  # fmt: skip


@pytest.mark.parametrize("case", FAKES)
def test_wrong_programs(machine: Machine, case: str) -> None:
    name, text, check, state, says = FAKES[case]
    status, found = asked(machine, prepare=script(text, name))
    assert found[check]["state"] == state
    assert says in found[check]["says"]
    assert status == (state == "fail")


def test_less_than_the_best(machine: Machine) -> None:
    """All that only warns, in one run: no nft, no swap, no tmpfs, no resolver."""
    home = pwd.getpwnam("tsenv-lab").pw_dir
    prepare = (
        OVER.format("/usr/sbin") + "rm -f nft iptables; mount --bind /dev/null /etc/resolv.conf; "
        f"install -d -m 700 -o tsenv-lab {home}/runtime-{os.getpid()}; "
    )
    runtime = f"{home}/runtime-{os.getpid()}"
    status, found = asked(machine, prepare=prepare, deny="seccomp=EPERM", env={"XDG_RUNTIME_DIR": runtime})
    machine.run(["rm", "-rf", runtime])
    assert status == 0, found
    warned = {name for name, check in found.items() if check["state"] == "warn"}
    assert warned >= {"firewall", "underlay", "tmpfs", "resolver"}, found
    assert "neither nft nor iptables is installed" in found["firewall"]["says"]


def test_as_root(machine: Machine) -> None:
    done = machine.run(["tsenv", "doctor"], user="root")
    assert done.returncode == 1
    assert "✗ tsenv does not run as root" in done.stdout


def test_control_servers(lab: Lab) -> None:
    assert "cannot be reached: connection refused" in online(lab, "http://control.lab.test:1")["control"]["says"]
    assert "nowhere.lab.test does not resolve" in online(lab, "http://nowhere.lab.test")["control"]["says"]
    assert "HTTP 404" in online(lab, "http://internet.lab.test")["control"]["says"]


def online(lab: Lab, server: str) -> dict[str, dict[str, str]]:
    """The failed and warned checks with that control server."""
    status, found = asked(lab.machine, "--login-server", server)
    assert status == 1
    return found


WRONG_TIME = """
import http.server, sys
class Late(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"{}")
    def date_time_string(self, timestamp=None):
        return "Tue, 01 Jan 2019 00:00:00 GMT"
server = http.server.HTTPServer(("127.0.0.1", 0), Late)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_a_wrong_clock(lab: Lab) -> None:
    child = lab.machine.popen(["/usr/bin/python3", "-I", "-c", WRONG_TIME])
    try:
        assert child.stdout
        found = online(lab, f"http://127.0.0.1:{int(child.stdout.readline())}")
    finally:
        child.kill()
        child.communicate()
    assert found["clock"]["state"] == "fail"
    assert "s ahead" in found["clock"]["says"]
    assert "timedatectl" in found["clock"]["fix"]
    assert found["udp"]["state"] == "warn"
    assert "no UDP answer from 127.0.0.1:3478" in found["udp"]["says"]


def test_through_a_session(lab: Lab, up: Any, session_name: str) -> None:
    up()
    done = lab.machine.run(["tsenv", "-n", session_name, "doctor"], check=True)
    assert "✓ " in done.stdout
    assert f"✓ '{session_name}' is up" in done.stdout
    assert f"resolves in '{session_name}'" in done.stdout
    assert "answers a ping" in done.stdout
    assert "packets of 1280 bytes reach" in done.stdout
    etc = ["tsenv", "-n", session_name, "exec", "sh", "-c"]
    lab.machine.run(
        [*etc, "cp /etc/nsswitch.conf /etc/nsswitch.was; echo hosts: files >/etc/nsswitch.conf"], check=True
    )
    done = lab.machine.run(["tsenv", "-n", session_name, "doctor", "--offline"])
    lab.machine.run([*etc, "mv /etc/nsswitch.was /etc/nsswitch.conf"], check=True)  # else it cannot log out
    assert done.returncode == 1
    assert f"✗ {session_name}.tail-a.test does not resolve in '{session_name}'" in done.stdout


def test_the_cheap_checks_are_cheap(machine: Machine) -> None:
    measure = "import time; from tsenv import bringup, doctor; t=[]\nfor _ in range(9):\n a=time.perf_counter(); list(doctor.cheap()); t.append(time.perf_counter()-a)\nprint(min(t))"
    done = machine.run([f"{Path(sys.executable).parent}/python", "-I", "-c", measure], check=True)
    assert float(done.stdout) < 0.005

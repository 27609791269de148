"""Nothing on the host changes, and nothing inside can change the session's network (issue 3, 4)."""

from __future__ import annotations

import contextlib
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import NewSession
    from lab_box import Machine
    from rig import Session

# Any node that joins the tailnet meanwhile is a route in each session; any computer of the lab, a mount on the host.
pytestmark = pytest.mark.alone

# What may not differ, each asked as root on the computer. Sockets are asked for without their pids and counters.
LOOKS = {
    "addresses": "ip -o addr",
    "links": "ip -o link",
    "routes": "ip -4 route show table all; ip -6 route show table all | sed 's/ expires [0-9]*sec//'",
    "rules": "ip rule; ip -6 rule",
    "firewall": "nft list ruleset; iptables-save 2>/dev/null | grep -v '^#'",
    "TCP ports": "ss -Hltn | sort",
    "UDP ports": "ss -Hlun | sort",
    "other sockets": "ss -Hlwn; ss -Hl0n",
    "files in /etc": "find /etc -printf '%p %y %m %u %g %s %T@ %l\\n' | sort; find /etc -type f -exec cat {} + | cksum",
    "files in /tmp and /run": "find /tmp /run -xdev -not -path '/run/tsenv-lab*' -printf '%p %y %m %u\\n' | sort",
    "mounts": "sed 's/^[0-9]* [0-9]* //' /proc/self/mountinfo | sort",
    "sysctls": "cd /proc/sys/net && grep -rs . ipv4/ip_forward ipv4/conf ipv6/conf ipv4/ping_group_range",
    "modules": "cut -d' ' -f1 /proc/modules | sort",
}
# These may not differ even while the session is up: it opens no port but the UDP ones of the underlay.
ALWAYS = tuple(set(LOOKS) - {"UDP ports", "files in /tmp and /run"})


def look(machine: Machine) -> dict[str, str]:
    """See everything that a session could have changed."""
    return {what: machine.run(["sh", "-c", script], user="root").stdout for what, script in LOOKS.items()}


def strangers(*networks: int) -> set[str]:
    """Processes of other users than the lab's in these networks (inodes)."""
    user = pwd.getpwnam("tsenv-lab").pw_uid
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "ns/net").stat().st_ino in networks and folder.stat().st_uid != user:
                found.add(f"{folder.name} {(folder / 'comm').read_text().strip()}")
    return found


@pytest.mark.parametrize("underlay", ["host", "pasta"])
def test_the_host_is_as_before(new_machine: Callable[[], Machine], new_session: NewSession, underlay: str) -> None:
    machine = new_machine()
    # The one folder that stays, empty.
    machine.run(["mkdir", "-m", "700", f"/run/user/{pwd.getpwnam('tsenv-lab').pw_uid}/tsenv"], check=True)
    home = Path("/run/netns", machine.netns).stat().st_ino
    before, people = look(machine), strangers(home)

    session = new_session("--underlay", underlay, "--accept-routes", on=machine)
    session.exec("curl", "-sS", "http://my-server/", "http://internet.lab.test/", check=True)
    session.exec("ssh", "my-server", "true", check=True)
    inside = Path(session.status()["netns"]).stat().st_ino
    during, crowd = look(machine), strangers(home, inside)
    session.tsenv("down", check=True)
    after, left = look(machine), strangers(home, inside)

    for what in ALWAYS:
        assert during[what] == before[what], what
    for what in LOOKS:
        assert after[what] == before[what], what
    assert crowd == people
    assert left == people


def test_while_up_nobody_else_can_enter(session: Session) -> None:
    """The LocalAPI's socket has mode 0666: the folder is what protects it."""
    status = session.status()
    for path in (status["dir"], str(Path(status["dir"]).parent), f"/home/tsenv-lab/.local/state/tsenv/{session.name}"):
        done = session.machine.run(["stat", "-c", "%a %U", path])
        assert done.stdout == "700 tsenv-lab\n", done
    done = session.machine.run(["ls", status["dir"]], user="tsenv-other")
    assert "Permission denied" in done.stderr
    socket = f"{status['dir']}/tailscaled.sock"
    done = session.machine.run(["curl", "-sS", "--unix-socket", socket, "http://x/"], user="tsenv-other")
    assert done.returncode == 7, done  # could not connect
    for part, pid in status["pids"].items():
        assert Path(f"/proc/{pid}").stat().st_uid == pwd.getpwnam("tsenv-lab").pw_uid, part


SUPER = "PATH=$PATH:/usr/sbin:/sbin; "
# A link-local address is tentative for its first second, and has its route only then: that changes by itself.
NETWORK = "ip addr | sed 's/ tentative//'; ip route show table all | grep -v fe80:; ip rule"
ATTEMPTS = {
    "a route": "ip route add 198.51.100.0/24 dev eth0",
    "the default route": "ip route del default",
    "an address": "ip addr add 198.51.100.1/32 dev tailscale0",
    "a link": "ip link set tailscale0 down",
    "a new link": "ip link add dummy9 type dummy",
    "a rule": "ip rule add from all lookup 99 priority 1",
    "the firewall, nft": "nft add table inet mine",
    "the firewall, flush": "nft flush ruleset",
    "the firewall, iptables": "iptables -P OUTPUT DROP",
    "a sysctl": "echo 1 >/proc/sys/net/ipv4/ip_forward",
    "the network, by a packet socket": "python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'",
    "the network, by a raw socket": "python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)'",
    "the mark that bypasses": "python3 -c 'import socket; socket.socket().setsockopt(1, 36, 0x80000)'",
    "the mounts": "mount --bind /tmp /etc",
    "the resolver": "umount /etc",
    "the anchor's rights": "nsenter -t $(cat $DIR/anchor.pid) -U --preserve-credentials true",
    "the anchor's network": "nsenter -t $(cat $DIR/anchor.pid) -U -n --preserve-credentials ip link set tailscale0 down",
    "a new user's rights": "unshare -Ur ip link set tailscale0 down",
    "a low port": "python3 -c 'import socket; socket.create_server((\"127.0.0.1\", 81))'",
}


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS.keys())
def test_a_command_cannot_change(session: Session, attempt: str) -> None:
    folder = session.status()["dir"]
    before = session.exec("sh", "-c", SUPER + NETWORK).stdout
    done = session.exec("sh", "-c", f"{SUPER} DIR={folder}; {attempt}")
    assert done.returncode, done
    assert any(word in done.stderr for word in ("not permitted", "ermission denied", "must be superuser")), done
    assert session.exec("sh", "-c", SUPER + NETWORK).stdout == before
    assert session.exec("curl", "-sS", "http://my-server/").returncode == 0


def test_a_command_has_no_rights(session: Session) -> None:
    done = session.exec("grep", "^Cap", "/proc/self/status")
    rights = dict(line.split(":\t") for line in done.stdout.splitlines())
    assert {rights[kind] for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}


def test_etc_is_the_hosts_but_for_names(session: Session) -> None:
    """Inside, /etc shows the host's files; only the resolver's and ssh's are the session's own."""
    inside = session.exec("cat", "/etc/passwd", "/etc/hosts").stdout
    assert inside == session.machine.run(["cat", "/etc/passwd", "/etc/hosts"]).stdout
    plain = session.machine.run(["cat", "/etc/resolv.conf"]).stdout
    assert "100.100.100.100" in session.exec("cat", "/etc/resolv.conf").stdout
    assert "100.100.100.100" not in plain
    # Its layer over /etc is the user's, for tailscaled must rename files there: what is written stays in the session.
    session.exec("sh", "-c", f"echo x >/etc/{session.name}")
    assert session.machine.run(["test", "-e", f"/etc/{session.name}"]).returncode

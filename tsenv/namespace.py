"""The session's namespaces: pasta makes them, the anchor holds them, nsenter joins them.

Argv builders are pure functions; `seed` writes what the anchor mounts over /etc. DESIGN.md 1, 2, 4 and 7.
"""

import contextlib
import os
import re
import shlex
import shutil
import socket
from dataclasses import dataclass

from tsenv import daemon, paths
from tsenv.errors import USAGE, TsenvError
from tsenv.scrub import NOT_INSIDE
from tsenv.session import Process, Session, replace, up_again
from tsenv.tools import find

# Where a resolver of the host that listens on loopback only is found from inside: pasta takes queries to this
# link-local address out of the tap and asks the host's resolver (pasta(1), --dns-forward).
DNS_FORWARD = "169.254.1.1"
RESOLV = "/etc/resolv.conf"
RESOLVED_REAL = "/run/systemd/resolve/resolv.conf"  # the real resolvers behind the 127.0.0.53 stub
BEFORE_TAILSCALE = "/etc/resolv.pre-tailscale-backup.conf"
QUAD_100 = "100.100.100.100"
INNER_MADE = "inner.made"  # a fifo, by which anchor.sh hears of the inner namespace
COVERED = "tailscale.real"  # by anchor.sh, with the tailscale binary: elsewhere it is empty


def pasta_argv(publish: tuple[str, ...], host_port: tuple[str, ...], *, dns_forward: bool, pasta: str) -> list[str]:
    """Pasta with everything closed that is not asked for; the namespace to work in is to be added (DESIGN 7)."""
    return [
        pasta,
        "--config-net",  # addresses and routes of the host's uplink, inside
        "--quiet",
        "--no-map-gw",  # else the gateway's address is the host's loopback
        *_forward("-t", [spec for spec in publish if "udp" not in spec]),
        *_forward("-u", [spec.removesuffix("/udp") for spec in publish if "udp" in spec]),
        *_forward("-T", [spec for spec in host_port if "udp" not in spec]),
        *_forward("-U", [spec.removesuffix("/udp") for spec in host_port if "udp" in spec]),
        *(["--dns-forward", DNS_FORWARD] if dns_forward else []),
    ]


def _forward(flag: str, specs: list[str]) -> list[str]:
    # Without any, pasta's default is "auto": every listening port, both ways.
    return [word for spec in specs or ["none"] for word in (flag, spec)]


def holder_argv() -> list[str]:
    """What pasta starts: says that it lives, then blocks on the lifeline. Only /bin and /usr/bin (AppArmor)."""
    return ["/bin/sh", "-c", "echo; exec /bin/cat >/dev/null"]


def has_way_out(session: Session) -> bool:
    """Whether there are routes inside by an interface of pasta's, as `/proc` shows them from outside."""
    folder = f"/proc/{session.pids['anchor'].pid}/net"
    for table, column in (("route", 0), ("ipv6_route", -1)):
        with contextlib.suppress(OSError), open(f"{folder}/{table}", encoding="ascii") as file:
            rows = [line.split() for line in file if line[:2] not in ("fe", "ff")]  # link-local is there from the start
            if any(row[column] not in ("lo", "tailscale0", "Iface") for row in rows):
                return True
    return False


def watcher_argv(watched: Process) -> list[str]:
    """Ends `watched` when stdin, the lifeline, ends; a process of another start time has only inherited its pid."""
    script = (
        'read -r _; { read -r line <"/proc/$1/stat"; } 2>/dev/null || exit 0; '
        'pid=$1 start=$2; set -- ${line##*")"}; [ "${20}" != "$start" ] || kill -KILL "$pid"'
    )
    return ["/bin/sh", "-c", script, "sh", str(watched.pid), str(watched.start)]


def attach_argv(anchor: int) -> list[str]:
    """A pasta that comes later works in the anchor's namespaces."""
    return ["--foreground", "--userns", f"/proc/{anchor}/ns/user", "--netns", f"/proc/{anchor}/ns/net"]


def anchor_argv(holder: int, session: str, state: str, tailscale: str, firewall: list[str]) -> list[str]:
    """The anchor, entered from outside: setns gives every capability in the holder's user namespace.

    `firewall`: see `firewall_words`; empty unless --isolated.
    """
    return [
        find("nsenter"), f"--target={holder}", "--user", "--net", "--preserve-credentials", "--",
        "unshare", "--mount", "--propagation=slave", "--",  # the host's mounts come in, ours never go out
        "/bin/sh", paths.data_file("shell/anchor.sh"), session, state, str(os.getuid()), str(os.getgid()), tailscale,
        *firewall,
    ]  # fmt: skip


def firewall_words() -> list[str]:
    """How the anchor isolates the session: nft, else iptables; TsenvError where the host has neither."""
    with contextlib.suppress(TsenvError):
        return ["nft", find("nft"), paths.data_file("shell/isolated.nft")]
    with contextlib.suppress(TsenvError):
        return ["iptables", find("iptables"), find("ip6tables")]
    raise TsenvError(
        "--isolated needs nft, or iptables and ip6tables, and this machine has neither",
        "apt install nftables, dnf install nftables; or without --isolated",
    )


def uplink_argv(anchor: int) -> list[str]:
    """Fits the routes that a pasta has made to it (shell/uplink.sh says why)."""
    return [*enter_argv(anchor), "/bin/sh", paths.data_file("shell/uplink.sh")]


def enter_argv(anchor: int) -> list[str]:
    """Into the session as fake root: for tailscaled only."""
    return [find("nsenter"), f"--target={anchor}", "--user", "--net", "--mount", "--preserve-credentials", "--"]


def join_argv(anchor: int, inner: int, workdir: str) -> list[str]:
    """Into the session as the user. `workdir` is an option of nsenter: without one the command would start in /."""
    nsenter = find("nsenter")
    return [
        nsenter, "-t", str(anchor), "-U", "-n", "-m", "--preserve-credentials", workdir, "--",
        nsenter, "-t", str(inner), "-U", "--preserve-credentials", "--",
    ]  # fmt: skip


def join_script(session: Session, *, wdns: bool) -> str:
    """The text of `join`. `wdns`: nsenter has --wdns (util-linux 2.38), else a shell inside changes directory."""
    anchor, inner = session.pids["anchor"], session.pids["inner"]
    argv = join_argv(anchor.pid, inner.pid, "@WD@")
    if not wdns:
        # cd fails where the directory is gone; then the command starts in / rather than not at all.
        argv = [w for w in argv if w != "@WD@"]
        argv += ["/bin/sh", "-c", 'cd "$1" || cd /; shift; exec "$@"', "sh", "@WD@"]
    name = session.name
    values = {
        "NAME": shlex.quote(name),
        "ANCHOR": str(anchor.pid),
        "STARTED": str(anchor.start),
        "INNER": str(inner.pid),
        "COVERED": shlex.quote(session.file(COVERED)),
        "NOT_INSIDE": " ".join(NOT_INSIDE),
        "SHIMS": shlex.quote(paths.state_base()),
        "GONE": shlex.quote(f"session '{name}' has died: its supervisor or its anchor was killed"),
        "AGAIN": shlex.quote(up_again(name)),
        "FOREIGN": shlex.quote(foreign(name)[0]),
        "LEAVE": shlex.quote(foreign(name)[1]),
        "JOIN": shlex.join(argv).replace("@WD@", '--wdns="$PWD"' if wdns else '"$PWD"'),
    }
    return fill("shell/join.sh", values)


def foreign(name: str) -> tuple[str, str]:
    """Message and hint where a session cannot be joined from inside another."""
    return (
        f"session '{name}' cannot be joined from in here (another session?)",
        "leave the inner session first, or open another terminal",
    )


def has_wdns(session: Session) -> bool:
    """Whether nsenter has --wdns, as `up` has found out."""
    with open(session.file("join"), encoding="utf-8") as file:
        return "--wdns=" in file.read()


def fill(template: str, values: dict[str, str]) -> str:
    """A template of ours with its @MARKERS@ filled in one pass, so that no value is scanned again (STYLE rule 9)."""
    with open(paths.data_file(template), encoding="utf-8") as file:
        return re.sub(r"@([A-Z_]+)@", lambda hit: values[hit[1]], file.read())


def port_spec(text: str, *, loopback: bool) -> str:
    """Pasta's form of `[ADDRESS:]PORT[/udp]`; `loopback`: without an address only the host's loopback listens."""
    hit = re.fullmatch(r"(?:(?P<addr>[0-9.]+|\[[0-9a-fA-F:]+\]):)?(?P<port>[0-9]{1,5})(?P<udp>/udp|/tcp)?", text)
    if not hit or not 0 < int(hit["port"]) < 65536:  # noqa: PLR2004
        raise TsenvError(f"'{text}' is not a port", "PORT, ADDRESS:PORT, PORT/udp", USAGE)
    addr = (hit["addr"] or ("127.0.0.1" if loopback else "")).strip("[]")
    with contextlib.suppress(OSError):
        if not addr or socket.inet_pton(socket.AF_INET6 if ":" in addr else socket.AF_INET, addr):
            return (f"{addr}/" if addr else "") + hit["port"] + ("/udp" if hit["udp"] == "/udp" else "")
    raise TsenvError(f"'{addr}' is not an address", "PORT, ADDRESS:PORT, PORT/udp", USAGE)


# --- /etc -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resolvers:
    """How the session finds names outside the tailnet: lines for resolv.conf, and whether pasta must forward.

    `hosts`: lines that /etc/hosts gets.
    """

    lines: tuple[str, ...]
    forward: bool
    hosts: tuple[str, ...] = ()

    def isolated(self, login_server: str) -> "Resolvers":
        """The same for --isolated: none outside the tailnet."""
        kept = tuple(line for line in self.lines if not line.startswith("nameserver"))
        return Resolvers(kept, forward=False, hosts=isolated_hosts(login_server))


def resolvers(read: "type[Reader] | Reader | None" = None) -> Resolvers:
    """What the host's resolv.conf means from inside the session (PAINS 1.22, 4.2)."""
    reader = read or Reader()
    lines = reader.lines(RESOLV)
    servers = _servers(lines)
    if QUAD_100 in servers:
        # The host is on a tailnet itself: its resolver is inside its tunnel, not ours.
        lines = reader.lines(BEFORE_TAILSCALE) or lines
        servers = [s for s in _servers(lines) if s != QUAD_100]
    reachable = [s for s in servers if not _local(s)]
    if servers and not reachable:
        reachable = [s for s in _servers(reader.lines(RESOLVED_REAL)) if not _local(s)]
    forward = bool(servers) and not reachable
    kept = [line for line in lines if line.split()[:1] in (["search"], ["options"], ["domain"])]
    return Resolvers((*(f"nameserver {s}" for s in ([DNS_FORWARD] if forward else reachable)), *kept), forward)


def isolated_hosts(login_server: str) -> tuple[str, ...]:
    """Lines for /etc/hosts by which tailscaled finds its control server, asking no resolver.

    An isolated session has no resolvers outside the tailnet: tailscaled's own would carry any command's query to the
    internet, and with it data. But tailscaled itself must find its control server, also after a restart.
    """
    from urllib.parse import urlsplit  # 1.5 ms that only --isolated needs

    host = urlsplit(login_server or daemon.DEFAULT_SERVER).hostname or ""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()  # login will say what is wrong
    addresses = dict.fromkeys(str(address[0]) for *_, address in found)
    return tuple(f"{address} {host}" for address in addresses if address != host)


class Reader:
    """Reads the host's files; a test gives another."""

    @staticmethod
    def lines(path: str) -> list[str]:
        """The lines of `path` without comments, or none where it cannot be read."""
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return [line.strip() for line in file if line.strip() and line.strip()[0] not in "#;"]
        except OSError:
            return []


def _servers(lines: list[str]) -> list[str]:
    return [line.split()[1] for line in lines if line.startswith("nameserver") and len(line.split()) > 1]


def _local(server: str) -> bool:
    """Loopback, or an address that means something on one link of the host only."""
    return server.startswith("127.") or server in ("::1", "0.0.0.0", "::") or server.lower().startswith("fe80:")  # noqa: S104


def prepare(folder: str, found: Resolvers) -> None:
    """What anchor.sh finds in the directory of a session, or of doctor's trial."""
    seed(folder, found)
    _wrapper(folder)
    os.mkfifo(os.path.join(folder, INNER_MADE), 0o600)  # here: each program that the script need not start is 2 ms


def _wrapper(folder: str) -> None:
    """What covers the tailscale binary inside: the same program, on the session's socket (shell/anchor.sh)."""
    real, sock = (shlex.quote(os.path.join(folder, f)) for f in (COVERED, daemon.SOCKET))
    lines = (
        "#!/bin/sh",
        # Twice would be an error to tailscale: `tsenv tailscale` typed inside brings one along; before --version, too.
        f'case ${{1-}} in --socket* | -socket* | --version | -version) ;; *) set -- --socket={sock} "$@" ;; esac',
        f'exec {real} "$@"',
    )
    replace(os.path.join(folder, "tailscale"), "".join(f"{line}\n" for line in lines), 0o700)


def seed(folder: str, found: Resolvers) -> None:
    """Fill `folder`/etc/upper, the layer over /etc. Everything in it is the user's: see DESIGN 2 for why each."""
    upper = os.path.join(folder, "etc", "upper")
    os.makedirs(os.path.join(folder, "etc", "work"))
    os.makedirs(upper)
    # No comment in it: tailscaled looks for the names of resolver programs in comments, and would ask those.
    replace(os.path.join(upper, "resolv.conf"), "".join(f"{line}\n" for line in found.lines), 0o644)
    other = [line for line in Reader.lines("/etc/nsswitch.conf") if not line.startswith("hosts:")]
    # resolve, mdns4, myhostname… ask daemons of the host; files and dns stay inside.
    replace(os.path.join(upper, "nsswitch.conf"), "\n".join([*other, "hosts: files dns", ""]), 0o644)
    if found.hosts:
        with open("/etc/hosts", encoding="utf-8", errors="replace") as file:
            replace(os.path.join(upper, "hosts"), "\n".join([file.read().rstrip(), *found.hosts, ""]), 0o644)
    _own_ssh_config(upper)


def _own_ssh_config(upper: str) -> None:
    """Copies that belong to the user: ssh refuses files of root, who has no number in here ("Bad owner…")."""
    extra = "/etc/ssh/ssh_config.d"
    files = ["/etc/ssh/ssh_config"]
    if os.path.isdir(extra):
        files += [entry.path for entry in os.scandir(extra)]
    for path in files:
        target = os.path.join(upper, os.path.relpath(path, "/etc"))
        if os.path.isfile(path) and os.access(path, os.R_OK):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copyfile(path, target)

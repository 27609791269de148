"""tsenv status: what a session is, who is in the tailnet, what runs inside. The JSON is documented in docs/json.md."""

import argparse
import json
import time
from typing import Any

from tsenv import daemon, paths, session
from tsenv.cli import session_argument, session_name
from tsenv.daemon import Status
from tsenv.errors import FAILED, TsenvError
from tsenv.logs import Log
from tsenv.session import Session

HELP = "state, addresses, peers, processes inside"
EPILOG = "examples:\n  tsenv status\n  tsenv status work --json | jq -r '.addresses[0]'"


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = verbs.add_parser("status", help=HELP, description=HELP, epilog=EPILOG)
    session_argument(parser)
    parser.add_argument("--json", action="store_true", help="as JSON, with stable keys")


def main(args: argparse.Namespace) -> int:
    """Exit status 0 when the session can be used, 125 when not."""
    name = session_name(args)
    if not args.json and session.state(name) == "down":
        session.usable(name)
    found = report(name)
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        _show(found)
    return 0 if found["state"] in ("up", "degraded") else FAILED


def report(name: str) -> dict[str, Any]:
    """Everything, as documented in docs/json.md."""
    now, found = session.look(name)
    record = found or Session(name)
    status = _daemon_status(record) if now in ("up", "degraded") else None
    health = [*([record.degraded] if record.degraded else []), *(_health(name, status) if status else ())]
    if now == "dead":
        health = [session.cause_of_death(name)]
    if status is None and now in ("up", "degraded"):
        now, health = "degraded", [record.degraded or "tailscaled does not answer"]
    return {
        "name": name,
        "state": now,
        "addresses": list(status.addresses if status else record.addresses),
        "dns_name": status.dns_name if status else record.dns_name,
        "node": record.options.hostname,
        "tags": list(status.tags) if status else [],
        "login_server": record.options.login_server or daemon.DEFAULT_SERVER,
        "exit_node": record.options.exit_node,
        "ephemeral": bool(record.options.ephemeral),
        "underlay": record.underlay,
        "underlay_reason": record.underlay_reason,
        "isolated": record.options.isolated,
        "since": record.since,
        "until": record.until,
        "with_pid": record.with_pid,
        "health": health,
        "restarts": record.restarts,
        "peers": [
            {"name": p.name, "dns_name": p.dns_name, "addresses": list(p.addresses), "online": p.online,
             "path": p.path, "exit_node": p.exit_node}
            for p in (status.peers if status else ())
        ],
        "processes": [{"pid": pid, "command": command} for pid, command in _inside(record)],
        "netns": f"/proc/{record.pids['anchor'].pid}/ns/net" if "anchor" in record.pids else "",
        "pids": {
            part: record.pids[part].pid if part in record.pids else None
            for part in ("supervisor", "pasta", "anchor", "inner", "tailscaled")
        },
        "dir": paths.session_dir(name),
    }  # fmt: skip


def _health(name: str, status: Status) -> list[str]:
    """What tailscaled says, and what it says only after eight minutes: that the control server went away."""
    found = list(status.health)
    if status.state == "Running" and not status.online:
        said = Log.tail(name, "tailscaled", 100).rpartition("Program starting")[2]
        tries = [line for line in said.splitlines() if "PollNetMap" in line]
        refused = "initial fetch failed 4" in "".join(tries[-1:])  # an HTTP status
        why = "does not know this node" if refused else "cannot be reached"
        new = f"; anew: tsenv -n {name} down, then up with a new key" if refused else ""
        found.insert(0, f"the control server {why}: what is up goes on{new}")
    return found


def _inside(record: Session) -> list[tuple[int, str]]:
    return session.processes_inside(record) if record.netns else []


def _daemon_status(record: Session) -> Status | None:
    try:
        return daemon.LocalAPI(record.dir).status()
    except (OSError, TsenvError, ValueError):
        return None


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, markup=False, soft_wrap=True)
    colour = {"up": "green", "degraded": "yellow"}.get(found["state"], "red")
    console.print(Text.assemble((found["name"], "bold"), ": ", (found["state"], colour)))
    for title, value in _facts(found):
        if value:
            console.print(Text(f"  {title:<12} {value}"))
    if found["peers"]:
        table = Table("  peer", "address", "", "path", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for peer in found["peers"]:
            table.add_row(*map(Text, (
                f"  {peer['name']}", " ".join(peer["addresses"][:1]),
                "online" if peer["online"] else "offline", peer["path"],
            )))  # fmt: skip
        console.print(table)
    for process in found["processes"]:
        console.print(Text(f"  {process['pid']:>7}  {daemon.clean(process['command'])[:100]}"))


def _facts(found: dict[str, Any]) -> list[tuple[str, str]]:
    since, inside = found["since"], len(found["processes"])
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
    up_for = f"{began} ({_span(time.time() - since)})" if since else ""
    return [
        ("address", " ".join(found["addresses"])),
        ("name", found["dns_name"]),
        ("node", found["node"] + (" (ephemeral)" if found["ephemeral"] else " (persistent)")),
        ("tags", " ".join(found["tags"])),
        ("control", found["login_server"]),
        ("exit node", found["exit_node"]),
        ("underlay", found["underlay"] + (f" ({found['underlay_reason']})" if found["underlay_reason"] else "")),
        ("isolated", "yes: tailnet only" if found["isolated"] else ""),
        ("since", up_for),
        ("health", "; ".join(found["health"])),
        ("inside", f"{inside} process{'es' if inside > 1 else ''}" if inside else ""),
    ]


def _span(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"

"""tsenv doctor: can `up` work here, and if not, what to type. One line a check."""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from tsenv import doctor, paths, session
from tsenv.cli import session_name
from tsenv.doctor import FAIL, OK, WARN, Check
from tsenv.errors import TsenvError
from tsenv.session import Session

HELP = "can tsenv work here? what is missing, and how to mend it"
EPILOG = """\
examples:
  tsenv doctor
  tsenv doctor --login-server https://headscale.example.com
  tsenv doctor --offline --json
exit status: 0 `tsenv up` can work (! is a thing to know), 1 it cannot (✗)
"""
MARKS = {OK: ("✓", "green"), WARN: ("!", "yellow"), FAIL: ("✗", "red")}


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = verbs.add_parser(
        "doctor",
        help=HELP,
        description=HELP,
        epilog=EPILOG,
    )
    parser.add_argument("--json", action="store_true", help="as JSON, with stable keys")
    parser.add_argument("--login-server", metavar="URL", help="the control server to try (default: as `up` would)")
    parser.add_argument("--offline", action="store_true", help="leave out what needs the network")


def main(args: argparse.Namespace) -> int:
    """Exit status 0 when `up` can work, 1 when not."""
    found = []
    for check in checks(args):
        found.append(check)
        if not args.json:
            print(line(check), flush=True)
    failed = any(check.state == FAIL for check in found)
    if args.json:
        import dataclasses
        import json

        print(json.dumps({"ok": not failed, "checks": [dataclasses.asdict(check) for check in found]}, indent=1))
    return 1 if failed else 0


def checks(args: argparse.Namespace) -> Iterator[Check]:
    """All tiers; those that stand on a closed gate still say what they see."""
    name = session_name(args)
    now, record, damaged = _session(name)
    server = _server(args, record)
    yield from doctor.cheap()
    if doctor.user().state == FAIL:  # as root nothing below means anything
        return
    yield from doctor.local()
    if not args.offline:
        yield from doctor.network(server)
    if damaged is not None:
        yield damaged
    elif record is not None and now in ("up", "degraded"):
        yield from doctor.inside(record)


def _session(name: str) -> tuple[str, Session | None, Check | None]:
    """What `name` is and its record, as session.look has it, or why that cannot be known."""
    try:
        return (*session.look(name), None)
    except TsenvError as error:
        return "", None, Check("session", FAIL, error.message, error.hint)


def _server(args: argparse.Namespace, record: Session | None) -> str:
    """What --login-server says, else the session, else the nearest .tsenv.toml."""
    if args.login_server:
        if not doctor.is_url(args.login_server):
            raise TsenvError(f"'{args.login_server}' is not a URL", "--login-server https://headscale.example.com", 2)
        return str(args.login_server)
    if record is not None:
        return record.options.login_server
    path = paths.config_file()
    if path is not None:
        from tsenv import config

        return config.load(path).login_server or ""
    return ""


def line(check: Check) -> str:
    """The mark, the sentence, and the fix on a line of its own, ready to copy."""
    mark, colour = MARKS[check.state]
    if sys.stdout.isatty():
        mark = f"\x1b[{ {'green': 32, 'yellow': 33, 'red': 31}[colour] }m{mark}\x1b[0m"
    return f"{mark} {check.says}" + (f"\n    {check.fix}" if check.fix else "")

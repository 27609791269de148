"""tsenv list: all sessions of this user."""

import argparse
import json
import sys
from typing import Any

from tsenv import session

HELP = "all your sessions"
EPILOG = "examples:\n  tsenv list\n  tsenv list --json | jq -r '.[].name'"


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = verbs.add_parser("list", help=HELP, description=HELP, epilog=EPILOG)
    parser.add_argument("--json", action="store_true", help="[{name, state, addresses, dns_name, since}, …]")


def main(args: argparse.Namespace) -> int:
    """A line, or an object, each."""
    rows = [_row(name) for name in session.names()]
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    if not rows:
        print("no sessions", file=sys.stderr)
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        print(f"{row['name']:<{width}}  {row['state']:<9} {' '.join(row['addresses'][:1])}  {row['dns_name']}".rstrip())
    return 0


def _row(name: str) -> dict[str, Any]:
    from tsenv.errors import TsenvError

    try:
        state, found = session.look(name)
    except TsenvError:
        state, found = "broken", None
    return {
        "name": name,
        "state": state,
        "addresses": found.addresses if found else [],
        "dns_name": found.dns_name if found else "",
        "since": found.since if found else 0,
    }

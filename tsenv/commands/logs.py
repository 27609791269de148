"""tsenv logs: what the session's parts wrote, also after it ended."""

import argparse
import os
import sys
from typing import Any

from tsenv import logs
from tsenv.cli import session_argument, session_name
from tsenv.errors import TsenvError
from tsenv.execute import become, check_command

HELP = "the logs of a session, also of one that ended"
EPILOG = "examples:\n  tsenv logs --tailscaled\n  tsenv logs -f work"


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = verbs.add_parser("logs", help=HELP, description=HELP, epilog=EPILOG)
    session_argument(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on as more comes")
    for part in logs.PARTS:
        parser.add_argument(f"--{part}", dest="parts", action="append_const", const=part, help=f"the log of {part}")


def main(args: argparse.Namespace) -> int:
    """Hand over to tail: it knows rotation, pipes and Ctrl-C."""
    name = session_name(args)
    found = [path for part in args.parts or logs.PARTS if os.path.exists(path := logs.path(name, part))]
    if not found:
        raise TsenvError(f"there are no logs of '{name}'", "tsenv list")
    sys.stdout.flush()
    become(check_command("tail"), ["tail", "-n", "+1", *(["-F"] if args.follow else []), "--", *found])

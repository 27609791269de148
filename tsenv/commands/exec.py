"""tsenv exec [--] CMD…: the parser's view of it. The work is in tsenv/execute.py, reached without a parser."""

import argparse
from typing import Any

from tsenv.execute import execute

HELP = "run a command in the session"
EPILOG = "examples:\n  tsenv exec ssh my-server\n  tsenv -n work exec curl http://my-server/"


def add(verbs: Any) -> None:
    """For --help only: the command line itself is taken apart by __main__, which knows no options after `exec`."""
    says = HELP + "; exit status 125: tsenv failed, else the command's"
    usage = "tsenv [-n NAME] exec [--] CMD [ARGS…]"
    parser = verbs.add_parser("exec", help=HELP, description=says, epilog=EPILOG, usage=usage)
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD", help="the command and its arguments")


def main(args: argparse.Namespace) -> int:
    """The long way here, after options that __main__ does not know."""
    execute(args.name, args.command)

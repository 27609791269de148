"""tsenv tailscale …: the tailscale CLI on this session's daemon."""

import argparse
from typing import Any

from tsenv import daemon, paths, session
from tsenv.execute import become
from tsenv.tools import find

HELP = "the tailscale command on this session's daemon"
EPILOG = "examples:\n  tsenv tailscale ping my-server\n  tsenv -n work tailscale status --active"


def add(verbs: Any) -> None:
    """Register the verb; everything after it is tailscale's."""
    usage = "tsenv [-n NAME] tailscale ARGS…"
    parser = verbs.add_parser(
        "tailscale", help=HELP, description=HELP, usage=usage, epilog=EPILOG, add_help=False, prefix_chars="\0"
    )
    words = "a command of tailscale with its options: ping, status, lock …"
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="ARGS", help=words)


def main(args: argparse.Namespace) -> int:
    """Become it."""
    found = session.usable(paths.session_name(args.name))
    argv = daemon.tailscale_argv(find("tailscale"), found.dir, *args.words)
    if args.words == ["--version"]:
        argv = [argv[0], "--version"]  # which tailscale takes after no other option
    become(argv[0], argv)

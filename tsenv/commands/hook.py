"""`tsenv hook SHELL`: code for the rc file (the `tsenv` function, folders' sessions, the prompt)."""

import argparse
import os
import shutil
import sys

from tsenv.commands.activate import printing
from tsenv.shells import render


def add(sub: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verb."""
    parser = sub.add_parser(
        "hook",
        help="code for the rc file of bash, zsh or fish",
        description="Print code for the rc file: no eval, sessions of folders, the prompt.",
        epilog='in ~/.bashrc, ~/.zshrc:\n  eval "$(tsenv hook bash)"\nin config.fish:\n  tsenv hook fish | source',
    )
    parser.add_argument("words", nargs="?", metavar="SHELL", help="bash, zsh or fish (default: the one that asks)")
    parser.add_argument("--shell", help=argparse.SUPPRESS)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Print the hook."""
    args.shell, args.words = args.words or args.shell, []
    return printing(args, "hook", lambda shell, _: render.hook(shell, program()))


def program() -> str:
    """Return the path by which this tsenv was called: a virtualenv that held it may leave PATH later."""
    called = shutil.which(sys.argv[0]) if os.path.basename(sys.argv[0]) == "tsenv" else None
    return os.path.abspath(called) if called else "tsenv"

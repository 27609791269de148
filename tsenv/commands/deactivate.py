"""`tsenv deactivate`: code that undoes an activation, made from the environment alone (PAINS 2.8)."""

import argparse
import os
import sys

from tsenv.commands.activate import printing
from tsenv.shells import alive, plan, render


def add(sub: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verb."""
    parser = sub.add_parser(
        "deactivate",
        help="undo activate in this shell",
        description="Print code that undoes `tsenv activate`, all edits made meanwhile kept.",
        epilog='example:\n  eval "$(tsenv deactivate)"',
    )
    parser.add_argument("--shell", help="the shell to print code for (default: the one that asks)")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Print the code. Twice is safe."""
    if (here := alive.inside()) is not None:
        sys.stderr.write(f"tsenv: this whole shell is inside '{here}'; to leave it: exit\n")
    return printing(args, "deactivate", lambda shell, _: render.deactivate(shell, plan.deactivation(os.environ)))

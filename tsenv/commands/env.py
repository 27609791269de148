"""tsenv env: the session as environment variables, for shells, scripts and CI systems without a recipe of ours.

Import budget: as `activate` (no plumbum, subprocess, rich).
"""

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any

from tsenv import ci, paths
from tsenv.errors import TsenvError
from tsenv.shells import alive, detect, render

HELP = "print the session's environment variables"
EPILOG = """\
examples:
  eval "$(tsenv env)"            in a script: every program then joins
  tsenv env --json | jq -r .TSENV_DIR
  tsenv env --dotenv >job.env    without PATH: for variables, not for a shell
nushell:
  tsenv env --json | from json | load-env
"""


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = verbs.add_parser(
        "env", help=HELP, description=HELP, epilog=EPILOG,
    )  # fmt: skip
    parser.add_argument("words", nargs="?", metavar="NAME", help="the session (default: see tsenv --help)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--shell", metavar="SHELL", help="code for this shell (default: the one that asks)")
    form.add_argument("--json", action="store_true", help="one object, PATH included")
    form.add_argument("--dotenv", action="store_true", help="NAME=VALUE lines, without PATH")


def main(args: argparse.Namespace) -> int:
    """Print them; on failure only what makes a shell's eval fail, too."""
    shell = ""
    try:
        shell = "" if args.json or args.dotenv else detect.shell(args.shell)
        name = paths.session_name(args.words or args.name)
        alive.require(name)
        values, front = ci.variables(name, os.environ)
        path = {"PATH": f"{front}:{_without(front)}"}
    except TsenvError:
        if shell and not sys.stdout.isatty():
            render.write(render.SHELLS[shell].fail + "\n")
        raise
    if args.json:
        import json

        print(json.dumps(values | path, indent=1))
    elif args.dotenv:
        render.write("".join(f"{key}={value}\n" for key, value in values.items()))
    else:
        render.write(code(shell, values | path))
    return 0


def _without(front: str) -> str:
    from tsenv.shells import plan

    return plan.without(plan.deactivation(os.environ).path, front)


def code(shell: str, values: Mapping[str, str]) -> str:
    """Assignments in the shell's own words, each value quoted by it."""
    quoted = render.SHELLS[shell].quote
    word = {
        "fish": "set -gx {0} {1};\n", "tcsh": "setenv {0} {1};\n", "elvish": "set-env {0} {1}\n",
        "xonsh": "__xonsh__.env[{2}] = {1}\n",
    }.get(shell, "export {0}={1}\n")  # fmt: skip
    lines = "".join(word.format(key, quoted(value), repr(key)) for key, value in values.items())
    if shell == "fish":  # PATH is a list there, joined by colons when it is exported
        lines = lines.replace("set -gx PATH ", "set -gx --path PATH ")
    return lines

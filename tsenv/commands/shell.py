"""tsenv shell: the user's shell, wholly inside."""

import argparse
import os
import pwd
from typing import Any

from tsenv import session
from tsenv.cli import session_argument, session_name
from tsenv.execute import check_command, join

HELP = "your shell, wholly inside the session"
EPILOG = "examples:\n  tsenv shell\n  tsenv shell work"


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = verbs.add_parser("shell", help=HELP, description=HELP + "; exit leaves it", epilog=EPILOG)
    session_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Become `join SHELL`."""
    from pathlib import Path

    from tsenv.shells import subshell

    found = session.usable(session_name(args))
    shell = os.environ.get("SHELL") or pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"
    check_command(shell)
    argv, environment = subshell(shell, found.name, Path(found.dir))
    os.environ.update(environment)
    join(found.dir, argv)

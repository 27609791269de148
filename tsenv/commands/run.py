"""tsenv run [up options] -- CMD…: one shot, a session of its own around one command."""

import argparse
import contextlib
import dataclasses
import os
import secrets
import signal
import sys
from typing import Any

from tsenv import paths
from tsenv.bringup import bring_up
from tsenv.commands import down
from tsenv.commands.up import add_options, terminated, wanted_from
from tsenv.errors import USAGE, TsenvError
from tsenv.execute import DEFAULTED, check_command
from tsenv.progress import shown

HELP = "one command in a session of its own"
EPILOG = """\
options: those of `tsenv up` that shape the session; see tsenv up --help
examples:
  tsenv run --auth-key-file ~/.ts.key -- ssh my-server uptime
  tsenv run --wait-for db:5432 -- psql -h db -c 'select 1'
"""


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = verbs.add_parser(
        "run", help=HELP, description=HELP + "; exit status: the command's",
        usage="tsenv run [OPTIONS OF up] -- CMD [ARGS…]", epilog=EPILOG,
    )  # fmt: skip
    add_options(parser)
    parser.elsewhere = ("login", "network", "time")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD", help="the command and its arguments")


def main(args: argparse.Namespace) -> int:
    """Up, the command, down; also on Ctrl-C and SIGTERM."""
    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not words:
        raise TsenvError("run: no command", "tsenv run [OPTIONS] -- CMD", USAGE)
    check_command(words[0])
    args.extra = []
    base = args.name or "run"
    name = paths.valid_name(f"{base[:50]}-{secrets.token_hex(4)}")
    wanted = wanted_from(args, name)
    # Whatever ends us, SIGKILL too, ends the session.
    wanted = dataclasses.replace(wanted, with_pid=wanted.with_pid or os.getpid())
    try:
        with terminated():
            with shown() as progress:
                bring_up(name, wanted, progress)
            return _run(["/bin/sh", os.path.join(paths.session_dir(name), "join"), *words])
    finally:
        with contextlib.suppress(TsenvError), _deaf():
            down.end(name, force=True, quiet=True)


def _run(argv: list[str]) -> int:
    """Run it in our place: signals that we get reach it, its status is ours (128 + n for a signal)."""
    sys.stdout.flush()
    pid = os.posix_spawn(argv[0], argv, os.environ, setsigdef=DEFAULTED)
    before = {number: signal.signal(number, lambda n, _: os.kill(pid, n)) for number in (signal.SIGTERM, signal.SIGHUP)}
    # Ctrl-C and Ctrl-\ reach the command from the terminal itself; we only must survive them.
    before |= {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


@contextlib.contextmanager
def _deaf() -> Any:
    """A second Ctrl-C must not leave the node behind."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

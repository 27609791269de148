"""tsenv down: end a session; its node leaves the tailnet when it is ephemeral."""

import argparse
import os
import signal
import sys
import time
from typing import Any

from tsenv import logs, paths, session
from tsenv.bringup import LEAVE_SECONDS, clear, lock
from tsenv.cli import session_argument, session_name
from tsenv.daemon import clean
from tsenv.errors import TsenvError
from tsenv.supervisor import remove

HELP = "end a session"
EPILOG = "examples:\n  tsenv down\n  tsenv down --all --force"


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = verbs.add_parser("down", help=HELP, description=HELP, epilog=EPILOG)
    session_argument(parser)
    parser.add_argument("--all", action="store_true", help="all sessions of this user")
    parser.add_argument("--force", action="store_true", help="also when processes run inside: they are ended")


def main(args: argparse.Namespace) -> int:
    """End one or all."""
    if not args.all:
        end(session_name(args), force=args.force)
        return 0
    failed = 0
    for name in session.names():
        try:
            end(name, force=args.force)
        except TsenvError as error:
            print(error, file=sys.stderr)
            failed = error.code
    return failed


def end(name: str, *, force: bool, quiet: bool = False) -> None:
    """End session `name`; TsenvError when there is none, or when processes inside keep it and `force` is not given."""
    folder = paths.session_dir(name)
    paths.check_private(os.path.dirname(folder))
    paths.check_private(folder)
    if not os.path.isdir(folder):
        raise TsenvError(f"no session '{name}' is up", "tsenv list")
    if force and session.is_locked(folder):
        _stop(name)  # it may be the one that goes up
    with lock(name, time.monotonic() + LEAVE_SECONDS):
        now = _state(name, force=force)
        if now in ("up", "degraded") and not force:
            _refuse_when_busy(name)
        told = logs.size(name, "supervisor")
        stopped = _stop(name)
        clear(name)
        remove(folder)
    if session.NOT_LOGGED_OUT in logs.Log.tail(name, "supervisor", 20, since=told):
        stays = "the control server keeps the node until it drops it"
        print(f"tsenv: {name}: {session.NOT_LOGGED_OUT}: {stays}", file=sys.stderr)
    if not quiet:
        print(f"{name}: {'down' if stopped else f'was {now}, removed'}")


def _state(name: str, *, force: bool) -> str:
    """session.state; with `force` also of one whose record cannot be read. It ends with its directory."""
    try:
        now = session.state(name)
    except TsenvError:
        if not force:
            raise
        return "broken"
    if now != "starting":
        return now
    # We hold the lock, and nobody else is at it. Another `down` may just have removed what we waited for.
    if os.listdir(paths.session_dir(name)) == ["lock"]:
        remove(paths.session_dir(name))
        raise TsenvError(f"no session '{name}' is up", "tsenv list")
    return "half-made"


def _refuse_when_busy(name: str) -> None:
    found = session.usable(name)
    inside = session.processes_inside(found)
    if inside:
        listed = "\n".join(f"  {pid:>7}  {clean(command)[:100]}" for pid, command in inside[:20])
        print(listed, file=sys.stderr)
        counted = "1 process still runs" if len(inside) == 1 else f"{len(inside)} processes still run"
        raise TsenvError(
            f"{counted} in '{name}'",
            f"tsenv -n {name} down --force   ends them",
        )


def _stop(name: str) -> bool:
    """Tell the supervisor to end the session and wait until it has; False when there is none that runs."""
    try:
        found = session.load(name)
    except TsenvError:
        return False
    supervisor = found.pids.get("supervisor") if found else None
    if supervisor is None or not supervisor.alive():
        return False
    if not supervisor.wait(LEAVE_SECONDS, signal.SIGTERM):
        supervisor.wait(2.0, signal.SIGKILL)
        trouble = f"the supervisor of '{name}' did not end and was killed"
        raise TsenvError(trouble, f"tsenv -n {name} logs --supervisor")
    return True

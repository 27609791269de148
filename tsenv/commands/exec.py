"""tsenv exec [--] CMD…: become CMD inside the session. Nothing of tsenv stays."""

import argparse
import os
from typing import Any, NoReturn

from tsenv import paths, scrub
from tsenv.errors import CANNOT_RUN, NOT_FOUND, USAGE, TsenvError

HELP = "run a command in the session"


def add(verbs: Any) -> None:
    """For --help only: the command line itself is taken apart by __main__, which knows no options after `exec`."""
    says = HELP + "; exit status 125: tsenv failed, else the command's"
    parser = verbs.add_parser("exec", help=HELP, description=says)
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD", help="the command and its arguments")


def main(args: argparse.Namespace) -> int:
    """The long way here, after options that __main__ does not know."""
    execute(args.name, args.command)


def execute(given: str | None, words: list[str]) -> NoReturn:
    """Become `words` in the session."""
    if words[:1] in (["-h"], ["--help"]):
        print(f"usage: tsenv [-n NAME] exec [--] CMD [ARGS…]\n\n{HELP}; what follows CMD is its own\n\n"
              "  tsenv exec ssh my-server\n  tsenv exec curl -v http://my-server/\n\n"
              "exit status: CMD's; 125 no session, 126 CMD cannot run, 127 CMD not found")  # fmt: skip
        raise SystemExit(0)
    words = words[1:] if words[:1] == ["--"] else words
    if not words:
        raise TsenvError("exec: no command", "tsenv exec ssh HOST", USAGE)
    name = paths.session_name(given)
    folder = paths.session_dir(name)
    join = os.path.join(folder, "join")
    paths.check_private(os.path.dirname(folder))
    paths.check_private(folder)
    if not os.path.exists(os.path.join(folder, "ready")):
        from tsenv import session

        session.usable(name)  # says what is the matter
    _check_command(words[0])
    try:
        os.getcwd()
    except FileNotFoundError:
        _execute_nowhere(name, words)
    os.execv("/bin/sh", ["sh", join, *words])


def _check_command(command: str) -> None:
    """A message of ours, where nsenter's would be about nsenter."""
    if "/" in command:
        candidates = [command]
    else:
        candidates = [os.path.join(folder or ".", command) for folder in os.environ.get("PATH", os.defpath).split(":")]
    found = [path for path in candidates if os.path.exists(path)]
    if not found:
        raise TsenvError(f"{command}: command not found", "", NOT_FOUND)
    if not any(os.access(path, os.X_OK) and not os.path.isdir(path) for path in found):
        raise TsenvError(f"{found[0]}: not an executable file", f"ls -ld {found[0]}", CANNOT_RUN)


def _execute_nowhere(name: str, words: list[str]) -> NoReturn:
    """From a deleted directory: no shell, since each complains of it, and a directory without a path to enter."""
    from tsenv import namespace, session

    found = session.usable(name)
    environment = scrub.scrubbed() | {"TSENV_SESSION": name}
    base = paths.state_base()
    folders = environment.get("PATH", os.defpath).split(":")
    environment["PATH"] = ":".join(f for f in folders if not (f.startswith(f"{base}/") and f.endswith("/bin")))
    argv = namespace.join_argv(found.pids["anchor"].pid, found.pids["inner"].pid, "--wd=.")
    os.execvpe(argv[0], [*argv, *words], environment)

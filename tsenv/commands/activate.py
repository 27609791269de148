"""`tsenv activate`: code for the asking shell; after it, every program found on PATH runs in the session.

Import budget: no plumbum, subprocess, rich, json or dataclasses.
"""

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from tsenv import paths
from tsenv.errors import USAGE, TsenvError
from tsenv.shells import alive, detect, plan, render, shims

EPILOG = """\
examples:
  eval "$(tsenv activate)"            bash, zsh, sh
  tsenv activate | source             fish
  eval "`tsenv activate`"             tcsh
  execx($(tsenv activate))            xonsh
  eval (tsenv activate | slurp)       elvish
With `tsenv hook SHELL` in the rc file a plain `tsenv activate` does.
"""


def add(sub: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verb."""
    parser = sub.add_parser(
        "activate",
        help="lead every command of this shell into the session",
        description="Print code that leads every program on PATH into the session.",
        epilog=EPILOG,
    )
    parser.add_argument("words", nargs="*", metavar="NAME", help="the session, and the shell if it must be said")
    parser.add_argument("--shell", help="the shell to print code for (default: the one that asks)")
    parser.add_argument("--auto", metavar="FILE", help=argparse.SUPPRESS)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Print the code; on failure only what makes the shell's eval fail, too (`eval "$(failing)"` is status 0)."""
    make = (lambda shell, _: _automatic(args, shell)) if args.auto else _activate
    return printing(args, "activate", make)


def printing(args: argparse.Namespace, verb: str, make: Callable[[str, str | None], str]) -> int:
    """Find shell and session in ARGS, print what MAKE makes of them, and `false` if it fails."""
    shell = "sh"
    try:
        name, asked = words(args)
        shell = detect.shell(asked)
        code = make(shell, name)
    except TsenvError:
        if not sys.stdout.isatty():
            render.write(render.SHELLS[shell].fail + "\n")
        raise
    render.write(code)
    if sys.stdout.isatty():
        typed = render.SHELLS[shell].how.format(command=f"tsenv {verb}")
        sys.stderr.write(f"tsenv: this only prints code; to run it, type:\n  {typed}\n")
    return 0


def words(args: argparse.Namespace) -> tuple[str | None, str | None]:
    """Tell session name and shell apart in `activate NAME`, `activate fish`, `activate NAME fish`."""
    name, shell = getattr(args, "name", None), args.shell
    given = list(getattr(args, "words", []))
    if given and given[-1] in detect.KNOWN and shell is None:
        shell = given.pop()
    if len(given) > 1:
        raise TsenvError(f"one session at a time, not {len(given)}", "tsenv activate NAME", USAGE)
    return (given[0] if given else name), shell


def _activate(shell: str, given: str | None) -> str:
    # After an activation TSENV_SESSION names it, so `tsenv activate` again means the same session, as it should.
    name = paths.session_name(given)
    if (here := alive.inside()) is not None:
        if here != name:
            raise TsenvError(f"this shell is inside '{here}': it cannot activate '{name}'", "exit, then try again")
        sys.stderr.write(f"tsenv: this whole shell is inside '{name}' already\n")
        return ""
    alive.require(name)
    return _code(shell, name)


def _code(shell: str, name: str, auto: str = "") -> str:
    changes = plan.activation(name, os.environ, auto)
    only, skip = _wrap(name)
    shims.renew(name, changes.path, only, skip)
    return render.activate(shell, changes)


def _wrap(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return [wrap] of the .tsenv.toml that holds here, if it is about this session and was allowed."""
    if not paths.config_file():
        return (), ()
    from tsenv import config  # dataclasses and tomllib only where a file exists

    found = config.nearest()
    if found is None or (found.name or "default") != name or found.wrap == config.Wrap():
        return (), ()
    if not found.trusted:
        sys.stderr.write(f"tsenv: [wrap] of {found.path} is not used before: tsenv allow\n")
        return (), ()
    return found.wrap.only, found.wrap.skip


def _automatic(args: argparse.Namespace, shell: str) -> str:
    """Answer the hook, which has entered the folder of an allowed file. Trust is checked again, with the content."""
    from tsenv import config

    found = config.load(args.auto)
    if not found.trusted:
        raise TsenvError(f"{found.path} is not allowed", "tsenv allow")
    name = found.name or "default"
    if alive.is_up(name):
        return _code(shell, name, args.auto)
    if not found.up:
        sys.stderr.write(f"tsenv: session '{name}' of this folder is not up\n  hint: tsenv up\n")
    # The hook waits for `ready` with a builtin at each prompt, and starts `tsenv up` in the background where asked.
    return render.pending(shell, name, paths.session_dir(name), _log(name) if found.up else "")


def _log(name: str) -> str:
    log = os.path.join(paths.private_dir(paths.state_dir(name)), "up.log")
    # The background job writes this when it fails; here, before it starts, so that no earlier failure is taken for it.
    with suppress(FileNotFoundError):
        os.unlink(f"{log}.failed")
    return log

"""Becoming a command: `tsenv exec` ends here, and so do all verbs that end in another program.

Import budget of this way: os, a builtin module and, of ours, errors, paths and scrub (tests/unit/test_imports.py);
annotations are strings, so that typing is not needed either.
"""

# `signal` wraps these in enums and costs more than the rest of this way.
import _signal  # type: ignore[import-not-found]
import os

from tsenv import paths, scrub
from tsenv.errors import CANNOT_RUN, NOT_FOUND, USAGE, TsenvError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

USAGE_TEXT = """\
usage: tsenv [-n NAME] exec [--] CMD [ARGS…]

run a command in the session; what follows CMD is its own

  tsenv exec ssh my-server
  tsenv exec curl -v http://my-server/

exit status: CMD's; 125 no session, 126 CMD cannot run, 127 CMD not found
"""

# The interpreter ignores these at its start, and a program that is exec'd would inherit that: `tsenv exec yes | head`
# would not end silently, and pasta of 2023-03 would not even start.
DEFAULTED = (_signal.SIGPIPE, _signal.SIGXFSZ)


def become(path: str, argv: "list[str]", environment: "dict[str, str] | None" = None) -> "NoReturn":
    """Execute `path` in our place, as if it had been started by the shell itself."""
    for number in DEFAULTED:
        _signal.signal(number, _signal.SIG_DFL)
    os.execve(path, argv, os.environ if environment is None else environment)


def execute(given: "str | None", words: "list[str]") -> "NoReturn":
    """Become `words` in the session that is meant."""
    if words[:1] in (["-h"], ["--help"]):
        os.write(1, USAGE_TEXT.encode())
        raise SystemExit(0)
    words = words[1:] if words[:1] == ["--"] else words
    if not words:
        raise TsenvError("exec: no command", "tsenv exec ssh HOST", USAGE)
    if words[0] in ("-n", "--name"):
        raise TsenvError("exec: -n stands before the verb", "tsenv -n NAME exec CMD", USAGE)
    name = paths.session_name(given)
    folder = paths.session_dir(name)
    paths.check_private(os.path.dirname(folder))
    paths.check_private(folder)
    if not _is_ready(folder):
        from tsenv import session

        session.usable(name)  # says what is the matter
    program = check_command(words[0])
    try:
        cwd = os.getcwd()
    except FileNotFoundError:
        cwd = ""
    if not cwd or not all(v.isascii() and v.isidentifier() for v in os.environ):
        _execute_without_shell(name, program, words, cwd)
    join(folder, words)


def _is_ready(folder: str) -> bool:
    try:
        # A crash of the machine can leave empty files: an empty `join` would do nothing, with exit status 0.
        return os.path.exists(os.path.join(folder, "ready")) and os.path.getsize(os.path.join(folder, "join")) > 0
    except OSError:
        return False


def join(folder: str, words: "list[str]") -> "NoReturn":
    """Become `words` in the session at `folder`. By sh: the runtime directory may be mounted noexec."""
    become("/bin/sh", ["sh", os.path.join(folder, "join"), *words])


def check_command(command: str) -> str:
    """The file that `command` means; a message of ours, where nsenter's would be about nsenter."""
    if "/" in command:
        candidates = [command]
    else:
        candidates = [os.path.join(folder or ".", command) for folder in os.environ.get("PATH", os.defpath).split(":")]
    found = [path for path in candidates if os.path.exists(path)]
    if not found:
        raise TsenvError(f"{command}: command not found", "", NOT_FOUND)
    for path in found:
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    raise TsenvError(f"{found[0]}: not an executable file", f"ls -ld {found[0]}", CANNOT_RUN)


def _execute_without_shell(name: str, program: str, words: "list[str]", cwd: str) -> "NoReturn":
    """As `join` does it, where no shell may stand between.

    Each complains of a directory that was deleted (`cwd` is "" then), and dash drops all variables that no shell could
    have made, such as the functions that bash exports.
    """
    from tsenv import namespace, session, tools

    found = session.usable(name)
    environment = scrub.scrubbed() | {"TSENV_SESSION": name}
    environment["PATH"] = paths.without_shims(environment.get("PATH", os.defpath))
    if os.stat("/proc/self/ns/net").st_ino == found.netns:
        become(program, words, environment)
    anchor = found.pids["anchor"].pid
    if not os.access(f"/proc/{anchor}/ns/user", os.R_OK):
        raise TsenvError(*namespace.foreign(name))
    # A directory without a path is entered by descriptor; it then belongs to the mount namespace outside.
    workdir = f"--wdns={cwd}" if cwd and namespace.has_wdns(found) else "--wd=."
    become(tools.find("nsenter"), [*namespace.join_argv(anchor, found.pids["inner"].pid, workdir), *words], environment)

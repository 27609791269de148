"""The entry. `tsenv [-n NAME] exec …` takes a short way: it only finds the session and becomes its `join`.

Import budget of that way: os, sys and, of ours, errors, execute, paths and scrub (tests/unit/test_imports.py).
"""

import os
import sys

from tsenv.errors import TsenvError


def main() -> int:
    """Run the command line; the exit status. The only place where errors are printed."""
    try:
        if (words := _exec_words(sys.argv[1:])) is not None:
            from tsenv.execute import execute

            execute(*words)
        _open_missing()
        from tsenv import cli

        return cli.main(sys.argv[1:])
    except TsenvError as error:
        _open_missing()  # print(file=None) would be on stdout
        print(error, file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader went away; so may we
        return 141
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        refused = TsenvError(f"{error.strerror or error}{where}", "df -h, ls -ld: is there room, is it yours?")
        print(refused, file=sys.stderr)
        return 125


def _open_missing() -> None:
    """A caller may have closed 0, 1 or 2 (`tsenv up 2>&-`): then the next file that is opened would be taken for it.

    A command that `exec` runs gets them closed, as it would without us.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), fd)
            setattr(sys, name, open(fd, "w" if fd else "r", encoding="utf-8"))  # noqa: SIM115 - as long as we live


def _exec_words(argv: "list[str]") -> "tuple[str | None, list[str]] | None":
    """(NAME or None, the words after `exec`) when this is `[-n NAME] exec …`, else None."""
    name = None
    while argv and argv[0].startswith("-n"):
        if len(argv[0]) > 2:  # noqa: PLR2004 - -nNAME
            name, argv = argv[0][2:], argv[1:]
        elif len(argv) > 1:
            name, argv = argv[1], argv[2:]
        else:
            return None
    return (name, argv[1:]) if argv and argv[0] == "exec" else None


def run() -> None:
    """The program: `main`, then the end at once: the interpreter's tidying up takes 15 ms, and tidies nothing."""
    status = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        status = 141
    except OSError as error:  # a full disk
        os.write(2, f"tsenv: cannot write what was said: {error.strerror}\n".encode())
        status = 125
    os._exit(status)


if __name__ == "__main__":
    run()

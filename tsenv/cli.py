"""The parser and the way to a verb. Plumbum's cli is not used: it prints errors to stdout (DESIGN 8)."""

import argparse
import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from tsenv import __version__
from tsenv.errors import USAGE, TsenvError

VERBS = (
    "up", "exec", "run", "shell", "status", "list", "logs", "tailscale", "down",
    "activate", "deactivate", "hook", "rehash", "allow", "deny", "completion", "env", "doctor",
)  # fmt: skip

# What other tools call it.
OTHERS_WORDS = {"help": "--help", "start": "up", "stop": "down", "ls": "list", "ps": "status", "ssh": "exec ssh"}

EPILOG = """\
each verb has its own: tsenv VERB --help
a first session:
  tsenv up --auth-key-file KEY    bring a session up, with a key of your tailnet
  tsenv exec ssh my-server        any command joins it
  tsenv down                      the node is gone

NAME: -n, else $TSENV_SESSION, else .tsenv.toml, else "default"
"""


# Their stdout is run by a shell, for which `eval "$(failing)"` is a success: a failure prints `false` (STYLE rule 1).
CODE_VERBS = ("activate", "deactivate", "hook", "completion", "env")


class Formatter(argparse.RawDescriptionHelpFormatter):
    """As wide as the terminal. Argparse itself asks shutil for that, at each option: 2 ms of `tsenv activate`."""

    def __init__(self, prog: str) -> None:
        try:
            columns = os.get_terminal_size(1).columns
        except OSError:
            columns = 100
        super().__init__(prog, max_help_position=30, width=max(columns, 60) - 2)

    def add_argument(self, action: argparse.Action) -> None:
        """Without --help itself: who reads this has found it."""
        if not isinstance(action, argparse._HelpAction):  # noqa: SLF001 - nor has it another mark
            super().add_argument(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """`--[no-]this` instead of `--this, --no-this`, `-n, --name NAME` for `-n NAME, --name NAME`: a line each."""
        if isinstance(action, argparse.BooleanOptionalAction):
            return action.option_strings[0].replace("--", "--[no-]", 1)
        if len(action.option_strings) > 1 and isinstance(action.metavar, str):
            return f"{', '.join(action.option_strings)} {action.metavar}"
        return super()._format_action_invocation(action)


class Parser(argparse.ArgumentParser):
    """One line for what is wrong and one for what to type, through the one door for errors."""

    elsewhere: tuple[str, ...] = ()  # groups of options that another verb's help tells about

    def format_help(self) -> str:
        """As argparse has it, without the groups that are told about elsewhere."""
        groups, self._action_groups = self._action_groups, [
            group for group in self._action_groups if group.title not in self.elsewhere
        ]
        try:
            return super().format_help()
        finally:
            self._action_groups = groups

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "formatter_class": Formatter, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the whole usage."""
        verb = _verb(sys.argv[1:]) if self.prog == "tsenv" else ""  # what is not known is found by the whole parser
        help_of = f"{self.prog} {verb}" if verb in VERBS else self.prog
        raise TsenvError(_with_guess(message, self), f"{help_of} --help", USAGE)


def _with_guess(message: str, parser: argparse.ArgumentParser) -> str:
    """`message`, with the nearest known verb or option where a word was not known."""
    if hit := re.search(r"invalid choice: (['\"])(.*)\1 \(choose from (.*)\)", message):
        word, known = hit[2], re.findall(r"[\w-]+", hit[3])
        if message.startswith("argument VERB"):
            message = f"no verb '{word}'"
            if word in OTHERS_WORDS:
                return f"{message}; did you mean {OTHERS_WORDS[word]}?"
    elif "unrecognized arguments: " in message:
        word = message.partition("unrecognized arguments: ")[2].split(" ")[0]
        known = [o for action in _all_actions(parser) for o in action.option_strings]
        if re.match(r"-n|--name\b", word):
            return "-n stands before the verb: tsenv -n NAME VERB"
        message = f"unknown option or argument {word}"
    else:
        return message
    import difflib

    near = difflib.get_close_matches(word.partition("=")[0], known, 1)
    return f"{message}; did you mean {near[0]}?" if near else message


def _all_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    found = list(parser._actions)  # noqa: SLF001 - argparse has no public list
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            found += [a for sub in action.choices.values() for a in sub._actions]  # noqa: SLF001
    return found


def parser(only: str | None = None) -> Parser:
    """The whole parser, or with `only` the one verb: each verb's module costs its import."""
    top = Parser(prog="tsenv", description="A virtualenv for the tailnet.", epilog=EPILOG)
    top.add_argument("-n", "--name", metavar="NAME", help="the session")
    top.add_argument("--version", action="version", version=f"tsenv {__version__}")
    verbs: Any = top.add_subparsers(prog="tsenv", dest="verb", metavar="VERB", parser_class=Parser)
    for verb in VERBS:
        if only is None or verb == only:
            _module(verb).add(verbs)
    return top


def _module(verb: str) -> Any:
    return importlib.import_module(f"tsenv.commands.{verb}")


def main(argv: Sequence[str]) -> int:
    """Run one command line; its exit status."""
    verb = _verb(argv)
    words, extra = list(argv), []
    if verb == "up" and "--" in words:
        # Argparse would take all that follows NAME for these flags: options of ours too.
        at = words.index("--")
        words, extra = words[:at], words[at + 1 :]
    try:
        args = parser(verb if verb in VERBS else None).parse_args(words)
    except TsenvError:
        if verb in CODE_VERBS and not sys.stdout.isatty():
            print("false")
        raise
    args.extra = extra
    if args.verb is None:
        parser().print_help(sys.stderr)
        return USAGE
    return int(_module(args.verb).main(args) or 0)


def _verb(argv: Sequence[str]) -> str | None:
    """The first word that is neither a global option nor its value."""
    words = iter(argv)
    for word in words:
        if word in ("-n", "--name"):
            next(words, None)
        elif not word.startswith("-"):
            return word
        elif word in ("-h", "--help"):
            return None
    return None


def session_argument(sub: argparse.ArgumentParser) -> None:
    """Verbs about one session take its name as a word, too: `tsenv status ci`."""
    sub.add_argument("session", nargs="?", metavar="NAME", help="the session (default: see tsenv --help)")


def session_name(args: argparse.Namespace) -> str:
    """The session that the command line means."""
    from tsenv import paths

    return paths.session_name(getattr(args, "session", None) or args.name)

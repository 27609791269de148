"""Writes docs/reference/commands.md and docs/man/tsenv.1 from the parser. `make docs` runs it; a test holds both true.

python docs/generate.py [--check]      exit status 1 where a file is not what it would write
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tsenv import __version__, cli  # noqa: E402

# What no parser knows: one sentence more on a verb, and its exit status where it is not the usual one.
MORE = {
    "exec": "Becomes CMD: exit status, signals, terminal, working directory and environment are CMD's own.",
    "run": "Exit status: CMD's; the session is gone afterwards, also after Ctrl-C.",
    "up": "On a session that is up with the same options it does nothing and succeeds.",
    "status": "Exit status 0 when the session can be used, else 125.",
    "doctor": "Exit status 1 when `tsenv up` cannot work here.",
    "down": "An ephemeral node is logged out first, so that it leaves the tailnet at once.",
    "tailscale": "Everything after the verb is tailscale's own.",
}
EXITS = (
    ("0", "done"),
    ("1", "`doctor`: something that `up` needs is missing"),
    ("2", "the command line is wrong"),
    ("125", "tsenv failed; no command was started"),
    ("126", "CMD was found and cannot be run"),
    ("127", "CMD was not found"),
    ("130", "interrupted (Ctrl-C)"),
    ("other", "`exec`, `run`: CMD's own; 128 + N where signal N ended it"),
)


def verbs() -> dict[str, argparse.ArgumentParser]:
    """Verb → its parser, in the order of --help."""
    top = cli.parser()
    action = next(a for a in top._actions if isinstance(a, argparse._SubParsersAction))  # noqa: SLF001
    return dict(action.choices)


def helps() -> dict[str, str]:
    """Verb → the words of `tsenv --help`."""
    action = next(a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))  # noqa: SLF001
    return {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001


def arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(title of a group, its arguments as (how it is written, what it is))."""
    for group in parser._action_groups:  # noqa: SLF001
        rows = [(written(a), str(a.help)) for a in group._group_actions if a.help != argparse.SUPPRESS]  # noqa: SLF001
        rows = [row for row in rows if not row[0].startswith("-h")]
        if rows and group.title not in parser.elsewhere:  # type: ignore[attr-defined]
            yield ("" if group.title in ("positional arguments", "options") else str(group.title)), rows


def written(action: argparse.Action) -> str:
    """`--option VALUE`, `--[no-]option`, `NAME`."""
    if isinstance(action, argparse.BooleanOptionalAction):
        return action.option_strings[0].replace("--", "--[no-]", 1)
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if not action.option_strings:
        return metavar
    return ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {metavar}")


def usage(parser: argparse.ArgumentParser) -> str:
    """One line."""
    text = re.sub(r"\s+", " ", parser.format_usage().removeprefix("usage: ")).strip()
    return text.replace("[-h] ", "")


# --- Markdown ---------------------------------------------------------------------------------------------------------


def markdown() -> str:
    """The page of all verbs."""
    lines = ["<!-- made by docs/generate.py -->", "# Commands", "", "`tsenv [-n NAME] VERB …`", ""]
    lines += [
        "The session is the one that `-n` names, else `$TSENV_SESSION`, else the nearest `.tsenv.toml`'s, else",
        "`default`.",
        "Verbs about one session take the name as a word, too: `tsenv status work`.",
        "",
    ]
    words = helps()
    for verb, parser in verbs().items():
        lines += [f"## {verb}", "", f"{sentence(words[verb])}", "", "```", usage(parser), "```", ""]
        if verb in MORE:
            lines += [MORE[verb], ""]
        for title, rows in arguments(parser):
            lines += [f"**{title}**", ""] if title else []
            lines += ["| | |", "|---|---|", *(f"| `{how}` | {what.replace('|', '&#124;')} |" for how, what in rows), ""]
        if parser.epilog:
            lines += ["```", parser.epilog.strip("\n"), "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[:1].upper() + text[1:].rstrip(".") + "."


# --- roff -------------------------------------------------------------------------------------------------------------


def man() -> str:
    """tsenv(1)."""
    lines = [
        '.\\" made by docs/generate.py', f'.TH TSENV 1 "" "tsenv {__version__}" "User Commands"',
        ".SH NAME", "tsenv \\- a virtualenv for the tailnet",
        ".SH SYNOPSIS", ".B tsenv", "[\\fB\\-n\\fR \\fINAME\\fR] \\fIVERB\\fR [\\fIARGS\\fR...]",
        ".SH DESCRIPTION",
        "One terminal, or one CI job, on a Tailscale or headscale network, without root, the machine unchanged.",
        "A session is a network namespace with a Tailscale node of its own; any number of commands join it.",
        ".PP",
        "The session is the one that \\fB\\-n\\fR names, else $TSENV_SESSION, else that of the nearest .tsenv.toml,",
        "else \\(lqdefault\\(rq.",
        ".SH VERBS",
    ]  # fmt: skip
    words = helps()
    for verb, parser in verbs().items():
        lines += [f".SS {roff(verb)}", roff(sentence(words[verb])), ".PP", f"\\fB{roff(usage(parser))}\\fR"]
        lines += [".PP", roff(MORE[verb].replace("`", ""))] if verb in MORE else []
        for title, rows in arguments(parser):
            lines += [".PP", f"{roff(title)}:"] if title else []
            for how, what in rows:
                lines += [".TP", f"\\fB{roff(how)}\\fR", roff(what)]
        if parser.epilog:
            lines += [".PP", ".nf", *(roff(line) for line in parser.epilog.strip("\n").splitlines()), ".fi"]
    lines += [".SH EXIT STATUS"]
    for code, what in EXITS:
        lines += [".TP", f"\\fB{code}\\fR", roff(what.replace("`", ""))]
    lines += [
        ".SH FILES",
        ".TP", "\\fI$XDG_RUNTIME_DIR/tsenv/NAME/\\fR", "The running session.",
        ".TP", "\\fI$XDG_STATE_HOME/tsenv/NAME/\\fR", "Logs, shims, and the node of a session that is not ephemeral.",
        ".TP", "\\fI.tsenv.toml\\fR", "A folder's session; counts after \\fBtsenv allow\\fR.",
        ".SH SEE ALSO",
        "tailscale(8), tailscaled(8), pasta(1), nsenter(1), network_namespaces(7), user_namespaces(7)",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def roff(text: str) -> str:
    """Plain text, safe for troff: no line is a request, every hyphen is one that can be copied."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...").replace("'", "\\(aq").replace("`", "\\(ga")
    text = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in text)
    return "\\&" + text if text.startswith((".", "\\(aq")) else text


PAGES = {"reference/commands.md": markdown, "man/tsenv.1": man}


def main() -> int:
    """Write them, or with --check only look."""
    wrong = 0
    for name, make in PAGES.items():
        path, text = HERE / name, make()
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text() != text:
                print(f"{path} is not what the parser says: python docs/generate.py")
                wrong = 1
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    return wrong


if __name__ == "__main__":
    sys.exit(main())

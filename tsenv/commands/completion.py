"""`tsenv completion SHELL`: the completion file, for who has not got it by the package."""

import argparse

from tsenv.commands.activate import printing
from tsenv.errors import USAGE, TsenvError
from tsenv.paths import data_file
from tsenv.shells import render

FILES = {"bash": "tsenv.bash", "zsh": "_tsenv", "fish": "tsenv.fish"}


def add(sub: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verb."""
    parser = sub.add_parser(
        "completion",
        help="print the completion for bash, zsh or fish",
        description="Print the completion file of a shell.",
        epilog=(
            'in ~/.bashrc:\n  eval "$(tsenv completion bash)"\nzsh: into a folder of $fpath, as _tsenv, or:\n'
            '  eval "$(tsenv completion zsh)"   after compinit\n'
            "fish:\n  tsenv completion fish > ~/.config/fish/completions/tsenv.fish"
        ),
    )
    parser.add_argument("words", nargs="?", metavar="SHELL", help="bash, zsh or fish (default: the one that asks)")
    parser.add_argument("--shell", help=argparse.SUPPRESS)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Print the file as it is."""
    args.shell, args.words = args.words or args.shell, []
    return printing(args, "completion", lambda shell, _: _file(shell))


def _file(shell: str) -> str:
    if shell not in FILES:
        hint = f"{', '.join(FILES)} have one; {render.SHELLS[shell].how.format(command='tsenv activate')} works"
        raise TsenvError(f"no completion for {shell}", hint, USAGE)
    with open(data_file(f"completions/{FILES[shell]}"), encoding="utf-8") as file:
        return file.read()

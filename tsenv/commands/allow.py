"""`tsenv allow`: trust this folder's .tsenv.toml, as it is now."""

import argparse
import sys

from tsenv import config


def add(sub: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verb."""
    parser = sub.add_parser(
        "allow",
        help="trust this folder's .tsenv.toml, as it is now",
        description="Trust .tsenv.toml with its present content: the hook activates it.",
        epilog="example:\n  cat .tsenv.toml && tsenv allow",
    )
    parser.add_argument("path", nargs="?", help="the file or its folder (default: the nearest upward)")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Keep the decision, with a copy of the content."""
    path = config.chosen(args.path)
    config.allow(path)
    sys.stderr.write(f"tsenv: {path} is allowed\n")
    return 0

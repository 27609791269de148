"""`tsenv deny`: withdraw the trust in this folder's .tsenv.toml."""

import argparse
import sys

from tsenv import config


def add(sub: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verb."""
    parser = sub.add_parser(
        "deny",
        help="trust this folder's .tsenv.toml no longer",
        description="Trust .tsenv.toml no longer, and let the hook stop asking.",
        epilog="example:\n  tsenv deny ~/src/strange",
    )
    parser.add_argument("path", nargs="?", help="the file or its folder (default: the nearest upward)")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Keep the decision."""
    path = config.chosen(args.path)
    config.deny(path)
    sys.stderr.write(f"tsenv: {path} is denied\n")
    return 0

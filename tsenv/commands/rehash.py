"""`tsenv rehash`: renew the shims after programs were installed. The hook does it by itself."""

import argparse
import os

from tsenv import paths
from tsenv.errors import TsenvError
from tsenv.shells import shims


def add(sub: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verb."""
    parser = sub.add_parser(
        "rehash",
        help="renew the shims after programs were installed",
        description="Renew the active session's shims: one for each program on PATH.",
        epilog="example:\n  pip install httpie && tsenv rehash",
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Make bin/ fit PATH. Prints nothing."""
    active = os.environ.get("TSENV_BIN")
    name = getattr(args, "name", None) or (os.path.basename(os.path.dirname(active)) if active else None)
    if not name:
        raise TsenvError("nothing is activated in this shell", 'eval "$(tsenv activate)"')
    shims.renew(paths.valid_name(name), os.environ.get("PATH", ""))
    return 0

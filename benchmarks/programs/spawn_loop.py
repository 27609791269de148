"""Times the start and end of commands, in turns: one of each, then again. JSON on stdin and stdout.

    in:  {"rows": {NAME: [ARGV…]}, "count": N}        out: {NAME: [milliseconds, …]}

Why not hyperfine: it does all runs of one command before it begins with the next, so what else happens on a small
machine meanwhile falls on one of them; and a process of its own for each run costs more than what is measured here.
posix_spawn (vfork) is the cheapest start that there is, the same for all.
"""

from __future__ import annotations

import json
import os
import sys
import time

WARM = 3


def once(argv: list[str], environment: dict[str, str]) -> float:
    """Milliseconds from before the start to after the end."""
    begin = time.perf_counter()
    pid = os.posix_spawnp(argv[0], argv, environment, file_actions=QUIET)
    status = os.waitpid(pid, 0)[1]
    took = (time.perf_counter() - begin) * 1000
    if status:
        sys.exit(f"{argv}: status {status}")
    return took


QUIET = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]


def main() -> None:
    """Measure what stdin asks for."""
    asked = json.load(sys.stdin)
    took: dict[str, list[float]] = {name: [] for name in asked["rows"]}
    for turn in range(-WARM, asked["count"]):
        for name, argv in asked["rows"].items():
            ms = once(argv, dict(os.environ))
            if turn >= 0:
                took[name].append(ms)
    json.dump(took, sys.stdout)


if __name__ == "__main__":
    main()

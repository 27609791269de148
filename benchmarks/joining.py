"""What it costs to run a command in a session, and what the shell costs."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import lab_state
import ways
from measure import PYTHON, MeasurementError, spread

if TYPE_CHECKING:
    from lab import Lab
    from lab_box import Machine
    from plan import Plan

INTERPRETER = f"{lab_state.VENV}/bin/python"


def joining(lab: Lab, plan: Plan) -> dict[str, Any]:
    """Milliseconds of each way into a session, against the bare programs."""
    with ways.tsenv(lab, "host") as inside:
        where, name = inside.machine, "bench-host"
        values: dict[str, list[float]] = _starts(where, _rows(where, name), plan.starts)
        for shell in ("bash", "zsh", "fish"):
            values.update(_shell(where, shell, name, plan.starts))
    return {row: spread(found) for row, found in values.items()}


def _rows(where: Machine, name: str) -> dict[str, list[str]]:
    """Every command does nothing, in the same way: /bin/true, or a shell that is told to."""
    pids = {part: str(process["pid"]) for part, process in ways.session(where, name)["pids"].items()}
    enter = ["nsenter", "-t", pids["anchor"], "-U", "-n", "-m", "--preserve-credentials"]
    again = ["nsenter", "-t", pids["inner"], "-U", "--preserve-credentials", "--"]
    session = ways.folder(where, name)
    return {
        "true": ["true"],
        "nsenter -U -n -m": [*enter, "--", "true"],
        "two nsenter": [*enter, "--wdns=/", "--", *again, "true"],
        "join": ["sh", f"{session}/join", "true"],
        "shim": [_shimmed(where, name)],
        "python -c pass": [INTERPRETER, "-c", "pass"],
        "tsenv exec": ["tsenv", "-n", name, "exec", "true"],
        "sh": ["sh"],
        # Its stdin is empty: the shell starts, reads its file and ends.
        "tsenv shell": ["env", "SHELL=/bin/sh", "tsenv", "-n", name, "shell"],
    }


def _shimmed(where: Machine, name: str) -> str:
    """The shim of a program that does nothing. `true` itself is of those that get none."""
    home = where.run(
        ["sh", "-c", "mkdir -p ~/bench-bin && cp /bin/true ~/bench-bin/bench-true && cd && pwd"], check=True
    )
    words = f'PATH=~/bench-bin:$PATH && eval "$(tsenv activate {name} --shell bash)" && type -P bench-true'
    shim = where.run(["bash", "-c", words], check=True).stdout.strip()
    if not shim or shim.startswith(home.stdout.strip() + "/bench-bin"):
        raise MeasurementError(f"no shim of bench-true: {shim}")
    return shim


def _starts(where: Machine, rows: dict[str, list[str]], count: int) -> dict[str, list[float]]:
    asked = json.dumps({"rows": rows, "count": count})
    loop = [PYTHON, "-I", "-S", f"{ways.BENCH}/spawn_loop.py"]
    path = where.run(["sh", "-c", 'echo "$PATH"'], check=True).stdout.strip()
    # The real bench-true is found behind the shim.
    environment = {"PATH": f"{path}:/home/{ways.USER}/bench-bin"}
    done = where.run(loop, input=asked, env=environment, timeout=120, check=True)
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def _shell(where: Machine, shell: str, name: str, count: int) -> dict[str, list[float]]:
    """Lines "WHAT MILLISECONDS" of programs/prompt.SHELL."""
    argv = [shell, f"{ways.BENCH}/prompt.{shell}", name, str(max(3, count // 4))]
    rows = _rows(where, name)
    typed = {"TSENV_PYTHON": INTERPRETER, "TYPED": " ".join(rows["two nsenter"]), "JOIN": " ".join(rows["join"])}
    done = where.run(argv, env={**typed}, timeout=120)
    if done.returncode:
        raise MeasurementError(str(done))
    values: dict[str, list[float]] = defaultdict(list)
    # fish surrounds what it prints with escape sequences.
    for what, ms in re.findall(r"(python|activate|typed|join|prompt[a-z.]*) ([0-9.]+)$", done.stdout, re.MULTILINE):
        values[what if what.startswith("prompt") else f"shell {what}"].append(float(ms))
    return values

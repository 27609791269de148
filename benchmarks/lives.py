"""A session's life: up to ready, one command around which it is made, down. And many sessions at once."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import ways
from measure import MeasurementError, cpu_seconds, pss, quiet, spread, wakeups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab import Lab
    from lab_box import Machine
    from plan import Plan

SCRIPTS = ("by-hand", "tsexec-like")
WINDOWS = 5


def lives(lab: Lab, plan: Plan) -> dict[str, Any]:
    """Milliseconds of up, down and run of tsenv (both underlays) and of the two scripts, in turns."""
    where = ways.machine(lab, "bench-user")
    values: dict[str, list[float]] = defaultdict(list)
    warm = int(plan.lives > 1)
    for turn in range(plan.lives + warm):
        for who in (*SCRIPTS, "tsenv", "tsenv pasta"):
            for verb in ("up", "down", "run"):
                took = _timed(where, *_command(lab, who, verb))
                if turn >= warm:  # the first finds nothing in any cache
                    values[f"{who}.{verb}"].append(took)
    return {row: spread(found) for row, found in values.items()}


def _command(lab: Lab, who: str, verb: str) -> tuple[list[str], dict[str, str | None]]:
    """Argv and environment of one verb of one contestant; its key is made here, before the clock runs."""
    key = ways.key_file(lab, "life") if verb != "down" else ""
    node = f"bench-{who.replace(' ', '-')}"
    if who in SCRIPTS:
        environment: dict[str, str | None] = {"AUTH_KEY_FILE": key, "LOGIN_SERVER": lab.control.url, "NODE": node}
        return [f"{ways.BENCH}/{who}", verb, _own(node)], environment
    login = ["--login-server", lab.control.url, "--auth-key-file", key, "--hostname", node]
    login += ["--underlay", "pasta" if who.endswith("pasta") else "host"]
    words = {"up": ["up", *login], "down": ["down"], "run": ["run", *login, "--", "true"]}[verb]
    return ["tsenv", *(["-n", node] if verb != "run" else []), *words], {}


def _own(name: str) -> str:
    """A script's folder, of this run only: what a run that failed has left is not met again."""
    return f"/tmp/{name}-{os.getpid()}"


def _timed(where: Machine, argv: Sequence[str], environment: dict[str, str | None]) -> float:
    """Milliseconds from before the start to after the end. What runs on in the background holds no pipe of ours."""
    begin = time.perf_counter()
    child = where.popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # Not wait(60): with a deadline, Popen looks every 50 ms.
    handle = os.pidfd_open(child.pid)
    ended = select.select([handle], [], [], 60)[0]
    took = (time.perf_counter() - begin) * 1000
    os.close(handle)
    if not ended:
        child.kill()
        child.wait()
        raise MeasurementError(f"{' '.join(argv)}: no end after 60 s")
    if status := child.wait():
        raise MeasurementError(f"{' '.join(argv)}: exit status {status}")
    return took


# --- many at once -----------------------------------------------------------------------------------------------------


def crowds(lab: Lab, plan: Plan) -> dict[str, Any]:
    """1, 4, 16 sessions at once: time until all are ready, and what an idle one then costs."""
    where = ways.machine(lab, "bench-user")
    found: dict[str, Any] = {}
    for count in plan.crowds:
        for who in ("by-hand", "tsenv"):
            found |= {f"{who}.{count}.{what}": value for what, value in _crowd(lab, where, who, count, plan).items()}
    return found


def _crowd(lab: Lab, where: Machine, who: str, count: int, plan: Plan) -> dict[str, Any]:
    names = [f"bench-crowd-{number}" for number in range(count)]
    keys = {name: ways.key_file(lab, name) for name in names}
    begin = time.perf_counter()

    def one(name: str) -> float:
        _timed(where, *_crowd_command(lab, who, "up", name, keys[name]))
        return (time.perf_counter() - begin) * 1000

    try:
        with ThreadPoolExecutor(count) as pool:
            ready = list(pool.map(one, names))
        parts = [_parts(where, who, name) for name in names]
        return {"ready_all": spread([max(ready)]), "ready_each": spread(ready)} | _idle(
            parts, plan.settle_seconds, plan.idle_seconds
        )
    finally:
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda name: _timed(where, *_crowd_command(lab, who, "down", name, "")), names))


def _crowd_command(lab: Lab, who: str, verb: str, name: str, key: str) -> tuple[list[str], dict[str, str | None]]:
    if who == "tsenv":
        login = ["--login-server", lab.control.url, "--auth-key-file", key, "--hostname", name]
        return ["tsenv", "-n", name, verb, *(login if verb == "up" else ["--force"])], {}
    environment: dict[str, str | None] = {"AUTH_KEY_FILE": key, "LOGIN_SERVER": lab.control.url, "NODE": name}
    return [f"{ways.BENCH}/{who}", verb, _own(name)], environment


def _parts(where: Machine, who: str, name: str) -> dict[str, int]:
    """The pids of one session, by part."""
    if who == "tsenv":
        return {part: process["pid"] for part, process in ways.session(where, name)["pids"].items()}
    sock = f"^tailscaled .*--socket={_own(name)}/sock"
    pasta = f"^[^ ]*pasta .* inside {_own(name)}$"
    find = 'pgrep -o -f -- "$1"'
    return {
        part: int(where.run(["sh", "-c", find, "sh", pattern], check=True).stdout)
        for part, pattern in (("tailscaled", sock), ("pasta", pasta))
    }


def _idle(parts: list[dict[str, int]], settle: float, seconds: float) -> dict[str, Any]:
    """Memory of each session and its supervisor; processor time and wake-ups while nothing happens."""
    pids = [pid for one in parts for pid in one.values()]
    supervisors = [one["supervisor"] for one in parts if "supervisor" in one]
    quiet(settle)  # logging in has an aftermath
    before = cpu_seconds(pids)
    # In windows: every half a minute tailscaled looks at the network, with new sockets, and that wakes the supervisor.
    rates = [rate for _ in range(WINDOWS) for rate in _woken(supervisors, seconds / WINDOWS)]
    used = cpu_seconds(pids) - before
    found = {
        "pss_session": spread([sum(map(pss, one.values())) for one in parts]),
        "pss_tailscaled": spread([pss(one["tailscaled"]) for one in parts]),
        "idle_cpu_percent": spread([100 * used / seconds / len(parts)]),
    }
    if supervisors:
        found |= {"pss_supervisor": spread([pss(pid) for pid in supervisors]), "wakeups": spread(rates)}
    return found


def _woken(supervisors: list[int], seconds: float) -> list[float]:
    """Wake-ups a second of each."""
    before = [wakeups(pid) for pid in supervisors]
    quiet(seconds)
    return [(wakeups(pid) - count) / seconds for pid, count in zip(supervisors, before, strict=True)]

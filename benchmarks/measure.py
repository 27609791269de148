"""The single measurements: throughput, loss, round trips, processor time, starts, memory, wake-ups."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "lab"))

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lab_box import Box

PYTHON = "/usr/bin/python3"
TICKS = os.sysconf("SC_CLK_TCK")
Run = "Callable[[Sequence[str], float], str]"


class MeasurementError(Exception):
    """A measurement gave nothing; the message shows what the program said."""


@dataclass(frozen=True)
class Flow:
    """One transfer: Gbit/s that arrived, the share of datagrams that did not (UDP), bytes that arrived."""

    gbits: float
    lost: float
    size: int


@contextlib.contextmanager
def server(box: Box, argv: Sequence[str], ready: str) -> Iterator[None]:
    """Run a server on a computer of the lab for as long as the block takes. It is ready when it has said so."""
    child = subprocess.Popen(
        [*box.enter(), *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert child.stdout
    try:
        said = ""
        while ready not in said:
            line = child.stdout.readline()
            if not line:
                raise MeasurementError(f"{argv[0]} did not start: {said}")
            said += line
        yield
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def iperf_argv(address: str, port: int, seconds: float, *, down: bool, rate: str = "") -> list[str]:
    """The client's argv; `rate` like "100M" makes it UDP."""
    return [
        "iperf3",
        "--client",
        address,
        "--port",
        str(port),
        "--time",
        f"{seconds:g}",
        "--json",
        "--omit",
        "0" if rate or seconds < 2 else "1",  # slow start is not what is asked for
        *(["--reverse"] if down else []),
        # 1200 bytes: what goes through a tunnel of MTU 1280 in one piece.
        *(["--udp", "--bitrate", rate, "--length", "1200"] if rate else []),
    ]


def transfer(
    box: Box,
    port: int,
    address: str,
    run: Callable[[Sequence[str], float], str],
    seconds: float,
    *,
    down: bool = False,
    rate: str = "",
) -> Flow:
    """One iperf3 run between `run`'s side and a server on `box`, which `run`'s side calls `address`."""
    seconds = max(1, round(seconds))
    with server(box, ["iperf3", "--server", "--one-off", "--forceflush", "--port", str(port)], "listening"):
        said = run(iperf_argv(address, port, seconds, down=down, rate=rate), seconds + 15)
    try:
        end = json.loads(said)["end"]
    except (ValueError, KeyError):
        raise MeasurementError(f"iperf3 said: {said[-500:]}") from None
    if rate:
        total = end.get("sum_received") or end["sum"]
        if not total.get("bytes"):  # iperf 3.12 with --reverse
            total = end["sum"]
        lost = end["sum"]["lost_percent"] / 100
        sent = end.get("sum_sent", end["sum"])
        arrived = sent["bits_per_second"] * (1 - lost) if not down else total["bits_per_second"]
        return Flow(arrived / 1e9, lost, int(total["bytes"]))
    total = end["sum_received"]
    return Flow(total["bits_per_second"] / 1e9, 0.0, int(total["bytes"]))


def round_trips(
    box: Box, port: int, address: str, run: Callable[[Sequence[str], float], str], kind: str, seconds: float
) -> dict[str, float]:
    """p50 and p99 in ms of small messages, one at a time; `kind`: udp or tcp."""
    echo = [PYTHON, "-I", "-S", str(HERE / "programs/echo_server.py"), str(port)]
    client = [PYTHON, "-I", "-S", "/run/tsenv-lab/bench/echo_client.py", kind, address, str(port), f"{seconds:g}"]
    with server(box, echo, "ready"):
        said = run(client, seconds + 20)
    try:
        found = json.loads(said)
    except ValueError:
        raise MeasurementError(f"the echo client said: {said[-500:]}") from None
    times = found["ms"]
    return {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99), "lost": found["lost"], "count": len(times)}


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value at `share` of a sorted list."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, quartile spread, ends and number of measurements."""
    ordered = sorted(values)
    if not ordered:
        return {"median": None, "q1": None, "q3": None, "min": None, "max": None, "n": 0}
    q1, _, q3 = statistics.quantiles(ordered, n=4) if len(ordered) > 1 else (ordered[0],) * 3
    return {
        "median": round(statistics.median(ordered), 4),
        # quantiles may extrapolate beyond what was seen
        "q1": round(max(q1, ordered[0]), 4),
        "q3": round(min(q3, ordered[-1]), 4),
        "min": round(ordered[0], 4),
        "max": round(ordered[-1], 4),
        "n": len(ordered),
    }


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor time that these processes have used so far, user and system (proc(5), stat fields 14 and 15)."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def pss(pid: int) -> float:
    """Proportional set size in MB: shared pages count by the share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise MeasurementError(f"no Pss of {pid}")


def wakeups(pid: int) -> int:
    """How often the process (all its threads) has gone to sleep by itself: each needs a wake-up."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total


def quiet(seconds: float) -> None:
    """Let idle things be idle: the passing of time is what is measured here."""
    time.sleep(seconds)

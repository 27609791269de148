"""The supervisor's loop: what it is told to do happens, once, and nothing else."""

from __future__ import annotations

import glob
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from tsenv.loop import CLOCK_BOOTTIME, Loop


def ticking() -> tuple[Loop, list[str]]:
    """A loop that gives up after two seconds."""
    loop = Loop()
    loop.after(2, loop.stop)
    return loop, []


def test_timers_fire_in_order_and_once() -> None:
    loop, seen = ticking()
    loop.after(0.02, lambda: seen.append("second"))
    loop.after(0.01, lambda: seen.append("first"))
    loop.after(0.015, lambda: seen.append("never")).cancel()
    loop.after(0.03, loop.stop)
    loop.run()
    assert seen == ["first", "second"]


def test_a_lifetime_counts_the_time_asleep() -> None:
    """The kernel wakes it by CLOCK_BOOTTIME, which goes on in suspend; a deadline in the past fires at once."""
    loop, seen = ticking()
    loop.at(0.05, lambda: seen.append("later"))
    loop.at(-5, lambda: seen.append("overdue"))
    loop.at(0.06, loop.stop)
    told = [Path(entry).read_text() for entry in glob.glob("/proc/self/fdinfo/*") if os.path.exists(entry)]
    clocks = re.findall(r"^clockid: (\d+)$", "".join(told), re.MULTILINE)
    assert clocks == [str(CLOCK_BOOTTIME)] * 3
    loop.run()
    assert seen == ["overdue", "later"]


def test_it_sleeps_when_there_is_nothing_to_do() -> None:
    loop, _ = ticking()
    loop.at(0.3, loop.stop)
    before = time.process_time()
    loop.run()
    assert time.process_time() - before < 0.05


def test_a_child_is_reaped_and_its_status_told() -> None:
    loop, _ = ticking()
    statuses: list[int] = []
    loop.child(subprocess.Popen(["sh", "-c", "exit 7"]), statuses.append)
    victim = subprocess.Popen(["sleep", "100"])
    loop.child(victim, lambda status: (statuses.append(status), loop.stop()))  # type: ignore[func-returns-value]
    victim.kill()
    while len(statuses) < 2:
        loop.step(1)
    assert sorted(statuses) == [-signal.SIGKILL, 7]


def test_a_callback_may_forget_a_file_that_is_ready_too() -> None:
    loop, seen = ticking()
    pipes = [os.pipe() for _ in range(2)]

    def one(mine: int, other: int) -> None:
        seen.append(str(mine))
        loop.unwatch(pipes[mine][0])
        loop.unwatch(pipes[other][0])
        loop.stop()

    for number, (reader, writer) in enumerate(pipes):
        loop.watch(reader, lambda number=number: one(number, 1 - number))
        os.write(writer, b"x")
    loop.run()
    for reader, writer in pipes:
        os.close(reader)
        os.close(writer)
    assert len(seen) == 1

"""The supervisor's event loop: file descriptors, children and timers. Nothing polls; idle, it sleeps for ever."""

import heapq
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

CLOCK_BOOTTIME = 7  # linux/time.h


def _boottime_timer(seconds: float) -> int:
    """A file that is readable `seconds` from now by a clock that neither stops in suspend nor jumps."""
    import ctypes

    class Spec(ctypes.Structure):
        _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns")]

    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.timerfd_create(CLOCK_BOOTTIME, os.O_CLOEXEC | os.O_NONBLOCK))
    whole = max(0, int(seconds))
    rest = int((max(0.0, seconds) - whole) * 1e9)
    if fd < 0 or libc.timerfd_settime(fd, 0, ctypes.byref(Spec(0, 0, whole, rest or 1)), None) < 0:
        raise OSError(ctypes.get_errno(), "no timer")
    return fd


@dataclass(order=True)
class Timer:
    """One call at a time (monotonic seconds)."""

    when: float
    call: Callable[[], None] = field(compare=False)
    live: bool = field(default=True, compare=False)

    def cancel(self) -> None:
        """It will not fire."""
        self.live = False


class Loop:
    """`run` returns when `stop` was called. Callbacks take no arguments and must not block."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[Timer] = []
        self._stopped = False

    def watch(self, fd: int, call: Callable[[], None]) -> None:
        """Call `call` whenever `fd` is readable."""
        self._selector.register(fd, selectors.EVENT_READ, call)

    def unwatch(self, fd: int) -> None:
        """Forget `fd`; it may be closed afterwards."""
        self._selector.unregister(fd)

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call `call` once, `seconds` from now."""
        timer = Timer(time.monotonic() + seconds, call)
        heapq.heappush(self._timers, timer)
        return timer

    def at(self, seconds: float, call: Callable[[], None]) -> None:
        """Call `call` once, `seconds` from now, suspended or not: `after` counts only the time awake."""
        fd = _boottime_timer(seconds)

        def fired() -> None:
            self.unwatch(fd)
            os.close(fd)
            call()

        self.watch(fd, fired)

    def child(self, child: Any, call: Callable[[int], None]) -> None:
        """Call `call` with the exit status (negative: the signal) when `child`, a Popen, has ended; it is reaped then.

        The Popen is kept till then: plumbum's waits 0.2 s for a running process when it is forgotten.
        """
        fd = os.pidfd_open(child.pid)

        def ended() -> None:
            self.unwatch(fd)
            info = os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOWAIT)
            os.close(fd)
            if info is not None:
                # Reaped after the call: until then nobody else can have its pid, which underlay.SocketSwap relies on.
                call(info.si_status if info.si_code == os.CLD_EXITED else -info.si_status)
            child.wait()

        self.watch(fd, ended)

    def signals(self, *numbers: signal.Signals, call: Callable[[], None]) -> None:
        """Call `call` in the loop when one of these signals arrives."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.detach())
        for number in numbers:
            signal.signal(number, lambda *_: None)

        def arrived() -> None:
            reader.recv(64)
            call()

        self.watch(reader.fileno(), arrived)
        self._wakeup = reader  # kept open as long as the loop

    def run(self) -> None:
        """Until `stop`, which may have been called already, by a callback of a `step`."""
        while not self._stopped:
            self.step()

    def stop(self) -> None:
        """Let `run` return after the current callback."""
        self._stopped = True

    def step(self, limit: float | None = None) -> None:
        """Wait for one batch of events, at most `limit` seconds, and handle it."""
        while self._timers and not self._timers[0].live:
            heapq.heappop(self._timers)
        wait = self._timers[0].when - time.monotonic() if self._timers else None
        if limit is not None:
            wait = limit if wait is None else min(wait, limit)
        for key, _ in self._selector.select(None if wait is None else max(0.0, wait)):
            # An earlier callback of this batch may have unregistered the file.
            if key.fd in self._selector.get_map():
                key.data()
        while self._timers and self._timers[0].when <= time.monotonic():
            timer = heapq.heappop(self._timers)
            if timer.live:
                timer.call()

"""How far `up` is: on a terminal one living line with the time, else one plain line a phase. Always on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class Plain:
    """One line a phase."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._start = time.monotonic()
        self._stream = stream or sys.stderr

    def phase(self, text: str) -> None:
        """A new phase begins."""
        print(f"tsenv: {text} ({time.monotonic() - self._start:.1f} s)", file=self._stream, flush=True)

    def note(self, text: str) -> None:
        """Something to know."""
        print(f"tsenv: {text}", file=self._stream, flush=True)


class Living:
    """A spinner, what is going on, and for how long."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True, highlight=False, markup=False)
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        self.bar = Progress(*columns, console=self._console, transient=True)
        self._task = self.bar.add_task("starting", total=None)

    def phase(self, text: str) -> None:
        """A new phase begins."""
        self.bar.update(self._task, description=text)

    def note(self, text: str) -> None:
        """Something to know, above the line."""
        self.bar.print(text, soft_wrap=True)


@contextmanager
def shown() -> Iterator[Plain | Living]:
    """Progress for as long as the block runs."""
    if not sys.stderr.isatty():
        yield Plain()
        return
    living = Living()
    with living.bar:
        yield living

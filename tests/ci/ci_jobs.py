"""What the control server says of the nodes of a CI job."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lab_state import wait_until

if TYPE_CHECKING:
    from lab import Lab

ADDRESS = re.compile(r"\b100\.64\.\d+\.\d+\b")


def addresses(text: str) -> list[str]:
    """The tailnet addresses that a job's log shows, each once, in order."""
    return list(dict.fromkeys(ADDRESS.findall(text)))


def until_gone(lab: Lab, found: list[str]) -> None:
    """Wait until the control server knows none of these addresses any more."""
    assert found, "the job saw no node"
    wait_until(
        f"the nodes {' '.join(found)} to leave the tailnet",
        lambda: not {a for node in lab.control.nodes() for a in node.addresses} & set(found),
    )

"""Two minutes of the soak; `make soak` is an hour of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lab import Lab

pytestmark = [
    pytest.mark.alone,  # a load for the machine
    pytest.mark.timeout(480),  # killed sessions' nodes take their time to go
    pytest.mark.flaky(reruns=0),  # no leak goes away by a second try
]


def test_two_minutes_of_soak_leave_nothing(lab: Lab) -> None:
    del lab  # only that there is one
    done = subprocess.run([Path(__file__).with_name("run")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads(done.stdout)
    assert found["commands"] > 300
    assert found["sessions up"] > 8
    assert found["killed: tailscaled"] + found["killed: pasta"] > 10

"""A tailnet for a whole test run: tests that ask for it can reach peers, all others run as ever.

TS_AUTHKEY holds the key; without one, or where tsenv cannot work, these tests skip on a laptop and fail in CI.
"""

import os
from collections.abc import Iterator

import pytest
import tsenv


@pytest.fixture(scope="session")
def tailnet() -> Iterator[tsenv.Session]:
    """One session for all tests; its node is gone after the last."""
    if not os.environ.get("TS_AUTHKEY") and not os.environ.get("CI"):
        pytest.skip("no TS_AUTHKEY")
    with tsenv.up(login_server=os.environ.get("TS_LOGIN_SERVER", ""), wait_for=["my-server:22"]) as session:
        yield session

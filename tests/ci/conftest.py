"""Jobs of CI systems on the lab's computer: their folder, and what the control server says of their nodes."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def project() -> Iterator[Path]:
    """A repository of the lab's user with this checkout's docs/ci and action.yml beside it."""
    folder = Path(tempfile.mkdtemp(prefix="tsenv-ci-"))
    account = pwd.getpwnam("tsenv-lab")
    work = folder / "work"
    shutil.copytree(CHECKOUT / "docs/ci", work / "ci")
    shutil.copytree(CHECKOUT / "tests/ci/workflows", work / "faults")
    (folder / "action").mkdir()
    shutil.copy(CHECKOUT / "action.yml", folder / "action")
    shutil.copy(work / "ci/gitlab.yml", work / ".gitlab-ci.yml")
    git = [
        "git",
        "-C",
        str(work),
        "-c",
        "user.name=lab",
        "-c",
        "user.email=lab@lab.test",
        "-c",
        "init.defaultBranch=main",
    ]
    for words in (
        ["init", "-q"],
        ["remote", "add", "origin", "git@git.lab.test:lab/work.git"],
        ["add", "."],
        ["commit", "-qm", "all"],
    ):
        subprocess.run([*git, *words], check=True)
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, account.pw_uid, account.pw_gid)
    yield work
    shutil.rmtree(folder)

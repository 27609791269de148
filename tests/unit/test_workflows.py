"""The project's own workflow does what it promises; the recipes of docs/ci are of the form that their systems read.

Most recipes are run, too: tests/ci. Those without a secret need GitHub or GitLab themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]
RECIPES = sorted((CHECKOUT / "docs/ci").glob("*.yml"))
FOR_GITHUB = [path for path in RECIPES if path.name.startswith(("github", "forgejo"))]
FOR_GITLAB = [path for path in RECIPES if path.name.startswith("gitlab")]


def load(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(path.read_text())
    assert isinstance(found, dict)
    return {("on" if key is True else key): value for key, value in found.items()}  # YAML 1.1: `on` is a truth


def by_name(path: Path) -> str:
    return path.name


# --- our own ----------------------------------------------------------------------------------------------------------


def own(job: str) -> tuple[list[str], list[str]]:
    """(Its runners, the commands of its steps)."""
    found = load(CHECKOUT / ".github/workflows/ci.yml")["jobs"][job]
    assert found["runs-on"] == "${{ matrix.runner }}"
    assert found["strategy"]["fail-fast"] is False
    return found["strategy"]["matrix"]["runner"], [step["run"] for step in found["steps"] if "run" in step]


def test_make_test_runs_on_ubuntu_24_04_and_on_arm64() -> None:
    runners, commands = own("test")
    assert runners == ["ubuntu-24.04", "ubuntu-24.04-arm"]
    assert commands[-1] == 'sudo env "PATH=$PATH" CI=true make test'


def test_demo_and_doctor_run_under_apparmors_restriction() -> None:
    """The tests without it: some of them make user namespaces themselves."""
    _, commands = own("test")
    words = (
        "restrict_unprivileged_userns=1",
        "make demo",
        "tsenv doctor",
        "restrict_unprivileged_userns=0",
        "make test",
    )
    assert len(commands) == len(words)
    assert [word for word, command in zip(words, commands, strict=True) if word not in command] == []


def test_the_kernel_of_22_04_is_tried_with_debian_13() -> None:
    runners, commands = own("debian-13")
    assert runners == ["ubuntu-22.04", "ubuntu-24.04"]
    *before, last = commands
    assert last == 'sudo env "PATH=$PATH" CI=true tests/matrix/run'
    assert any("sysctl -e -w kernel.apparmor_restrict_unprivileged_userns=0" in command for command in before)


def test_when_it_runs() -> None:
    found = load(CHECKOUT / ".github/workflows/ci.yml")
    assert set(found["jobs"]) == {"test", "debian-13"}
    assert found["on"].keys() == {"push", "pull_request", "schedule"}
    assert found["permissions"] == {"contents": "read"}


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_every_recipe_is_in_a_page() -> None:
    pages = "".join(page.read_text() for page in (CHECKOUT / "docs/how-to").glob("*.md"))
    for path in (CHECKOUT / "docs/ci").rglob("*"):
        assert path.is_dir() or f'--8<-- "{path.relative_to(CHECKOUT)}"' in pages, path


@pytest.mark.parametrize("path", FOR_GITHUB, ids=by_name)
def test_a_recipe_for_github(path: Path) -> None:
    inputs = load(CHECKOUT / "action.yml")["inputs"]
    found = load(path)
    assert found["on"] == "push"
    for job in found["jobs"].values():
        first, *steps = job["steps"]
        if "uses" in first:
            assert first["uses"] == "tsenv/tsenv@v0"
            assert set(first["with"]) <= set(inputs)
        else:
            assert first["run"].startswith("tsenv up --github ")
        assert all("uses" not in step and step["run"] for step in steps)


def test_keyless_on_github() -> None:
    found = load(CHECKOUT / "docs/ci/github-oidc.yml")
    assert found["permissions"]["id-token"] == "write"
    (job,) = found["jobs"].values()
    assert set(job["steps"][0]["with"]) == {"oauth-client-id", "audience", "tags"}
    assert "secrets." not in str(job)


def test_forgejo() -> None:
    """No action of another instance; and the runner lives on, so the job itself ends its session, and a time does."""
    (job,) = load(CHECKOUT / "docs/ci/forgejo.yml")["jobs"].values()
    assert "uses" not in str(job)
    assert "--ttl" in job["steps"][0]["run"]
    assert job["steps"][-1] == {"if": "always()", "run": "tsenv down --force"}


@pytest.mark.parametrize("path", FOR_GITLAB, ids=by_name)
def test_a_recipe_for_gitlab(path: Path) -> None:
    """What a job takes from `default:` is whole: its own before_script would replace that one."""
    found = load(path)
    up, env = found["default"]["before_script"]
    assert up.startswith("tsenv up ")
    assert "--with-pid $$" in up
    assert env == 'eval "$(tsenv env --shell bash)"'
    assert found["default"]["after_script"] == ["tsenv down --force"]
    assert found["variables"]["TSENV_SESSION"] == "ci-$CI_JOB_ID"
    assert set(found["deploy"]) == {"script"}


def test_keyless_on_gitlab() -> None:
    found = load(CHECKOUT / "docs/ci/gitlab-oidc.yml")
    assert set(found["default"]["id_tokens"]["TS_ID_TOKEN"]) == {"aud"}
    words = found["default"]["before_script"][0].split()
    assert {"--client-id", "--advertise-tags"} <= set(words)

"""The documentation is true: generated where it can be, held against the sources where it cannot."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tsenv import cli, errors, scrub

if TYPE_CHECKING:
    import argparse

CHECKOUT = Path(__file__).parents[2]
DOCS = CHECKOUT / "docs"
SOURCES = "\n".join(
    path.read_text()
    for folder in ("tsenv", "shell")
    for path in sorted((CHECKOUT / folder).rglob("*"))
    if path.suffix != ".pyc" and path.is_file()
)


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def verbs() -> dict[str, argparse.ArgumentParser]:
    return generator().verbs()


def test_the_generated_pages_are_the_parsers() -> None:
    for name, make in generator().PAGES.items():
        assert (DOCS / name).read_text() == make(), f"docs/{name} is old: python docs/generate.py"


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    mkdocs = Path(sys.executable).with_name("mkdocs")
    if not mkdocs.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no mkdocs: tests/lab/setup")
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [mkdocs, "build", "--strict", "--site-dir", tmp_path],
        cwd=CHECKOUT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = {str(page.relative_to(tmp_path).parent) for page in tmp_path.rglob("index.html")}
    assert {".", "tutorial", "reference/commands", "how-to/github", "troubleshooting", "comparison"} <= pages
    # The recipes are in the pages, as they are tested.
    included = {
        "github": ("id: tailnet", "TS_AUDIENCE", "matrix.part", "tsenv down --force"),
        "gitlab": ("TS_LOGIN_SERVER", "TS_ID_TOKEN"),
        "other-ci": ("post {", "pre-exit", "BASH_ENV"),
    }
    for page, words in included.items():
        text = re.sub(r"<[^>]*>", "", (tmp_path / f"how-to/{page}/index.html").read_text())
        assert [word for word in words if word not in text] == [], page


def test_the_man_page_is_good_roff() -> None:
    if not shutil.which("groff"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no groff: tests/lab/setup")
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", DOCS / "man/tsenv.1"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "virtualenv for the tailnet" in done.stdout


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_fits_a_screen_and_has_an_example(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.get_terminal_size", lambda _: os.terminal_size((80, 45)))
    parser = verbs()[verb]
    lines = parser.format_help().splitlines()
    assert len(lines) <= 45
    assert [line for line in lines if len(line) > 80] == []
    if verb != "tailscale":  # its help is tailscale's
        assert f"tsenv {verb}" in (parser.epilog or "") or f" {verb} " in (parser.epilog or ""), parser.epilog


def test_exit_statuses() -> None:
    page = (DOCS / "reference/exit-status.md").read_text()
    assert dict(re.findall(r"^\| (\w+) \| (.*) \|$", page, re.MULTILINE)) | {"status": ""} == dict(
        generator().EXITS
    ) | {"status": ""}
    for code in (errors.USAGE, errors.FAILED, errors.CANNOT_RUN, errors.NOT_FOUND):
        assert f"| {code} |" in page


def test_every_variable_is_documented() -> None:
    page = (DOCS / "reference/environment.md").read_text()
    python = "\n".join(path.read_text() for path in (CHECKOUT / "tsenv").rglob("*.py"))
    read = set(re.findall(r"\benviron(?:\.get|\.pop)?[(\[]\"([A-Z_]+)\"", python))
    # Everybody knows these; the others are about a shell's own start.
    read -= {"PATH", "HOME", "SHELL", "PWD", "RES_OPTIONS", "ZDOTDIR", "ENV", "XDG_CONFIG_HOME", "XONSHRC"}
    assert {name for name in read if f"`{name}`" not in page} == set()
    for name in (*scrub.SECRETS, *scrub.TRACKERS):
        assert f"`{name}`" in page


def test_troubleshooting_is_by_words_that_tsenv_says() -> None:
    page = (DOCS / "troubleshooting.md").read_text()
    headings = [
        words for line in re.findall("^## (.*)$", page, re.MULTILINE) for words in re.findall("`([^`]+)`", line)
    ]
    assert len(headings) > 20
    for words in headings:
        for part in re.split(r"\b[A-Z]{3,}\b", words):
            assert part.strip() in SOURCES or part in SOURCES, f"nobody says {part!r}"


def test_every_file_of_a_session_is_documented() -> None:
    page = (DOCS / "reference/files.md").read_text()
    for name in (
        "ready",
        "session.json",
        "anchor.pid",
        "netns",
        "join",
        "peers",
        "tailscaled.sock",
        "tailscale",
        "lock",
        "bin.stamp",
    ):
        assert f"`{name}`" in page
        assert name in SOURCES


def test_figures_are_those_of_the_benchmarks() -> None:
    """Whoever measures anew (`make bench`) finds here which pages quote it."""
    measured = (CHECKOUT / "benchmarks/README.md").read_text()
    explanation, comparison = ((DOCS / f"{name}.md").read_text() for name in ("explanation", "comparison"))
    date = re.search(r"^Measured on ([\d-]+) ", measured, re.MULTILINE)
    assert date
    for page in (explanation, comparison):
        assert date[1] in page
    for way in ("tailscaled as root", "tsenv (host underlay)", "tsenv --underlay pasta", "userspace mode"):
        row = re.search(rf"^\| {re.escape(way)}.*? \| ([\d.]+) \(.*? \| ([\d.]+) \(", measured, re.MULTILINE)
        assert row, way
        assert f"| {row[1]} | {row[2]} |" in explanation, way
        if way in ("tailscaled as root", "userspace mode"):
            assert row[1] in comparison and row[2] in comparison, way
    join = re.search(r"^\| `join` \| ([\d.]+) ", measured, re.MULTILINE)
    assert join
    assert f"{join[1]} ms" in explanation


def test_the_comparison_is_dated() -> None:
    page = (DOCS / "comparison.md").read_text()
    assert re.search(r"As of \w+ 20\d\d", page)
    for other in ("tsexec", "sshuttle", "vopono", "oniux", "tailscale/github-action", "Userspace mode"):
        assert f"**{other}" in page, other

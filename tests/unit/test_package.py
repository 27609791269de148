"""Templates and completions are there however tsenv was installed: from the wheel, or editable from a checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
TOP = ("pyproject.toml", "README.md", "LICENSE", "tsenv", "shell", "completions", "docs/man")
SHOWN = "from tsenv import paths; print(open(paths.data_file({!r})).readline(), end='')"


def copy_of_checkout(to: Path) -> Path:
    """What a build reads, where a build may write."""
    for name in TOP:
        source = CHECKOUT / name
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, to / name)
    return to


def data() -> list[str]:
    """All files that the package reads at run time."""
    return sorted(f"{folder}/{file.name}" for folder in ("shell", "completions") for file in (CHECKOUT / folder).iterdir())


def test_wheel(tmp_path: Path) -> None:
    """As an index and distributions have it: the wheel is made from the sdist, so both hold all."""
    source = copy_of_checkout(tmp_path / "source")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, source]
    subprocess.run(build, check=True, capture_output=True, timeout=60)
    assert len(list(tmp_path.glob("*.tar.gz"))) == 1
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"tsenv/{name}" for name in data()} <= set(names)
    pyproject = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    shared = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert "docs/man/tsenv.1" in shared
    for place in shared.values():
        assert any(name.endswith(f".data/data/{place}") for name in names), place
    assert "tsenv/py.typed" in names


def test_editable(tmp_path: Path) -> None:
    source = copy_of_checkout(tmp_path / "source")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=60)
    # hatchling writes a .pth file: what `pip install --editable` installs, without asking a registry for anything.
    build = "import hatchling.build as b, os, sys; os.chdir(sys.argv[1]); print(b.build_editable(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", build, source, tmp_path], check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    (site,) = venv.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    for name in ("shell/join.sh", "completions/tsenv.bash"):
        argv = [venv / "bin/python", "-c", SHOWN.format(name)]
        done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60, cwd="/")
        assert done.stdout == (source / name).read_text().splitlines(keepends=True)[0]

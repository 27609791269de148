"""Real shells, an environment built from nothing, and a session that is up as far as a shell can tell.

Most tests need no tailnet: `fake` is a session directory whose anchor is a real process of ours and whose `join` sets
TSENV_TEST_JOINED and execs. Folders have hostile names, so that every path in every test is hostile.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pexpect
import pytest

REPOSITORY = Path(__file__).parents[2]
SHELLS = ["bash", "zsh", "sh", "dash", "ksh", "busybox", "fish", "tcsh", "xonsh", "elvish"]
POSIX = ["bash", "zsh", "dash", "ksh", "busybox"]
HOOKED = ["bash", "zsh", "fish"]
HOSTILE = "it's \"$(touch hacked)\" `x` \\ ! é😀; -a"
BASE_PATH = "/usr/local/bin:/usr/bin:/bin"

LAUNCHER = """#!{python} -I
import sys
sys.path.insert(0, {repository!r})
sys.dont_write_bytecode = True
sys.argv[0] = __file__
from tsenv.__main__ import main
sys.exit(main())
"""


def shell_path(name: str) -> str:
    """The shell to test: TSENV_SHELL_BIN where it names this one, else from PATH. Missing: a skip, in CI a failure."""
    given = os.environ.get("TSENV_SHELL_BIN", "")
    found = given if os.path.basename(given) == name else shutil.which(name)
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed (tests/lab/setup installs it)")
    return found


def start_time(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


@dataclass
class World:
    """A home, a PATH and sessions of one test."""

    root: Path
    anchors: dict[str, subprocess.Popen] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": f"{self.bin}:{BASE_PATH}",
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "XDG_RUNTIME_DIR": str(self.root / "run"),
            **self.extra,
        }

    def program(self, name: str, text: str) -> Path:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def session_dir(self, name: str) -> Path:
        return self.root / "run/tsenv" / name

    def shims(self, name: str) -> Path:
        return self.home / ".local/state/tsenv" / name / "bin"

    def up(self, name: str = "default") -> Path:
        """A session that is up as far as a shell can tell."""
        folder = self.session_dir(name)
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        folder.parent.chmod(0o700)
        anchor = subprocess.Popen(["sleep", "600"])
        self.anchors[name] = anchor
        (folder / "anchor.pid").write_text(f"{anchor.pid}\n")
        start = start_time(anchor.pid)
        (folder / "session.json").write_text(
            f'{{\n "name": "{name}",\n "pids": {{\n  "anchor": {{\n   "pid": {anchor.pid},\n   "start": {start}\n  }}\n }}\n}}\n'
        )
        (folder / "join").write_text(f'unset TSENV_BIN TSENV_DIR TSENV_OLD_SESSION TSENV_AUTO\nTSENV_TEST_JOINED={name} TSENV_SESSION={name}\nexport TSENV_TEST_JOINED TSENV_SESSION\nexec "$@"\n')
        (folder / "ready").touch()
        return folder

    def down(self, name: str = "default") -> None:
        anchor = self.anchors.pop(name)
        anchor.kill()
        anchor.wait()
        shutil.rmtree(self.session_dir(name))

    def run(self, shell: str, script: str, *options: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        """Run a script in a real shell, nothing on stderr unless the test looks for it."""
        argv = [shell_path(shell), *(["sh"] if shell == "busybox" else []), *options, "-c", script]
        done = subprocess.run(
            argv, env={**self.environment, **environment}, cwd=self.root / "work", capture_output=True, timeout=60, check=False
        )
        done.stdout = done.stdout.decode(errors="surrogateescape")
        done.stderr = done.stderr.decode(errors="surrogateescape")
        if check:
            assert done.returncode == 0, f"{shell}: {done.returncode}\n{script}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
        return done

    def tsenv(self, *words: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [self.bin / "tsenv", *words], env={**self.environment, **environment}, cwd=self.root / "work",
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, done
        return done

    def terminal(self, shell: str, rc: str = "", **environment: str) -> "Terminal":
        return Terminal(self, shell, rc, environment)


class Terminal:
    """A shell in a pty. Each command is answered by a marker that no input echo can be taken for."""

    def __init__(self, world: World, shell: str, rc: str, environment: dict[str, str]) -> None:
        self.shell = shell
        self.count = 0
        rc_file = {"bash": ".bashrc", "zsh": ".zshrc", "fish": ".config/fish/config.fish", "tcsh": ".tcshrc"}[shell]
        path = world.home / rc_file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rc)
        (world.home / ".hushlogin").touch()
        self.child = pexpect.spawn(
            shell_path(shell), ["-i"],
            env={**world.environment, **environment}, cwd=str(world.root / "work"),
            encoding="utf-8", codec_errors="replace", timeout=20, echo=False, dimensions=(50, 400),
        )  # fmt: skip
        self.child.delaybeforesend = None
        self.screen = ""
        self.run("true")

    def run(self, command: str) -> str:
        """Type a command, wait until it and the prompt's hook are done, return what was on the screen meanwhile."""
        self.count += 1
        marker = f"END{self.count}X"
        # The marker's parts are joined by the shell, so its echo is not the marker.
        self.child.sendline(command)
        self.child.sendline(f"echo END''{self.count}''X")
        try:
            self.child.expect(marker + r"[^\n]*\n")
        except (pexpect.TIMEOUT, pexpect.EOF) as error:
            pytest.fail(f"{self.shell}: no {marker} after {command!r}\n--- screen\n{self.tail()}{self.child.before}\n{error!r}")
        self.screen += self.child.before + self.child.after
        return self.child.before

    def value(self, expression: str) -> str:
        """The value of a shell word, from between two markers."""
        shown = self.run(f"printf '<%s[%s]>%s\\n' V {expression} E")
        assert "<V[" in shown, f"{self.shell}: {expression}\n{self.tail()}"
        return shown.rsplit("<V[", 1)[1].split("]>E", 1)[0]

    def tail(self) -> str:
        """The end of the screen for a failure message, zsh's and fish's rows of spaces left out."""
        return re.sub(r" {5,}", "    ", self.screen)[-3000:]

    def close(self) -> None:
        self.child.close(force=True)


@pytest.fixture
def world(tmp_path):
    root = tmp_path / HOSTILE
    made = World(root)
    for folder in ("bin", "home", "work", "run"):
        (root / folder).mkdir(parents=True, mode=0o700)
    made.program("tsenv", LAUNCHER.format(python=sys.executable, repository=str(REPOSITORY)))
    # What a command sees of where it runs.
    made.program("whereami", '#!/bin/sh\necho "${TSENV_TEST_JOINED-outside} $*"\n')
    yield made
    for anchor in made.anchors.values():
        anchor.kill()
        anchor.wait()
    assert not list(root.rglob("hacked")), "a hostile name was executed"


@pytest.fixture
def session(world):
    world.up()
    return world

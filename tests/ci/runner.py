"""Imitates the end of a job on GitHub's runner, which act does not have.

    python3 -I runner.py [--cancel-after WORD] STEP…      each STEP is a bash script

As the runner's worker does: each step is a file for bash, gets fresh GITHUB_ENV and GITHUB_PATH files whose content the
later ones inherit, and is over when its pipes are closed. A cancelled step gets SIGINT, then SIGTERM, then SIGKILL. At
the end every process that carries the job's RUNNER_TRACKING_ID is killed; then the worker itself ends.
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

WAITS = ((signal.SIGINT, 1.0), (signal.SIGTERM, 0.5), (signal.SIGKILL, 5.0))  # the runner's: 7.5 s, 2.5 s


def main() -> int:
    # The runner's worker is called so; comm has 15 letters.
    ctypes.CDLL(None).prctl(15, b"Runner.Worker", 0, 0, 0)
    argv = sys.argv[1:]
    word = argv[1] if argv[:1] == ["--cancel-after"] else ""
    steps = argv[2:] if word else argv
    folder = Path(tempfile.mkdtemp(prefix="runner-", dir=Path.cwd()))
    environ = {**os.environ, "RUNNER_TRACKING_ID": f"github_{uuid.uuid4()}", "RUNNER_TEMP": str(folder), "CI": "true",
               "GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": "77", "GITHUB_JOB": "deploy"}  # fmt: skip
    status = 0
    for number, step in enumerate(steps):
        status = run(number, step, environ, folder, word)
        if status:
            break
    killed = end_of_job(environ["RUNNER_TRACKING_ID"])
    print(f"killed at the end: {killed}", flush=True)
    return status


def run(number: int, step: str, environ: dict[str, str], folder: Path, word: str) -> int:
    files = {name: folder / f"{name.lower()}_{uuid.uuid4()}" for name in ("GITHUB_ENV", "GITHUB_PATH", "GITHUB_OUTPUT")}
    for file in files.values():
        file.touch()
    script = folder / f"{number}.sh"
    script.write_text(step)
    child = subprocess.Popen(
        ["bash", "-e", script],
        env={**environ, **{name: str(file) for name, file in files.items()}},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    assert child.stdout
    for line in child.stdout:  # until every holder of the pipe has closed it
        print(line, end="", flush=True)
        if word and word in line:
            cancel(child)
            word = ""
    status = child.wait()
    for line in files["GITHUB_ENV"].read_text().splitlines():
        name, _, value = line.partition("=")
        environ[name] = value
    for line in files["GITHUB_PATH"].read_text().splitlines():
        environ["PATH"] = f"{line}:{environ['PATH']}"
    return status


def cancel(child: "subprocess.Popen[str]") -> None:
    for number, seconds in WAITS:
        os.killpg(child.pid, number)
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        return


def end_of_job(tracking: str) -> list[str]:
    """Kill what carries the job's mark; the names of what was killed."""
    killed = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if f"RUNNER_TRACKING_ID={tracking}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                killed.append((entry / "comm").read_text().strip())
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue
    return sorted(killed)


if __name__ == "__main__":
    sys.exit(main())

"""A session for a CI job: named after it, ended with it, and made known to its later steps.

What runners do to what a job leaves running, and what a session does about it:

- GitHub's kills every process whose environment holds the job's RUNNER_TRACKING_ID, Jenkins' by a cookie of its own:
  no part of a session carries those (`scrub.TRACKERS`); the session ends when the job's process does, and logs out.
- All wait for a step's pipes to close: the supervisor holds none.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from tsenv import paths
from tsenv.errors import USAGE, TsenvError

# What runs a job of GitHub Actions, by the name that the kernel knows it by: the runner's worker lives for one job;
# act and the runners made of it (Gitea, Forgejo) for a run, or for all.
RUNNERS = ("Runner.Worker", "act", "act_runner", "gitea-runner", "forgejo-runner")

# A step's shell stays outside; what it starts joins. One that is inside would hold the session that its step ends.
SHELLS = ("sh", "bash", "dash", "zsh", "fish", "ksh", "pwsh")


def github_name(given: str | None, environ: Mapping[str, str]) -> str:
    """The session's name: the one asked for, else one that this job shares with no other on this machine."""
    if given or environ.get("TSENV_SESSION"):
        return paths.session_name(given)
    _github_file("GITHUB_ENV", environ)
    # Jobs of a matrix have run, attempt and job in common. The tracking id is each job's own; act has none, but its
    # jobs have folders of their own (the file's name is the step's).
    marks = [environ.get(name, "") for name in ("GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "GITHUB_JOB", "RUNNER_NAME")]
    marks += [environ.get("RUNNER_TRACKING_ID", ""), os.path.dirname(environ["GITHUB_ENV"])]
    job = re.sub(r"[^A-Za-z0-9]+", "-", environ.get("GITHUB_JOB", ""))[:40].strip("-") or "job"
    return paths.valid_name(f"{job}-{hashlib.sha256(chr(0).join(marks).encode()).hexdigest()[:8]}")


def runner_pid() -> int | None:
    """The process that ends with the job: the nearest known runner above us, else what started the step's shell."""
    above = list(_ancestors())
    for pid, name in above:
        if name in RUNNERS:
            return pid
    return above[1][0] if len(above) > 1 else None


def _ancestors() -> Iterator[tuple[int, str]]:
    """(pid, name) of our parent, its parent and so on, without init."""
    pid = os.getppid()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                head, _, rest = file.read().rpartition(")")
        except OSError:
            return
        yield pid, head.partition("(")[2]
        pid = int(rest.split()[1])


def variables(name: str, environ: Mapping[str, str], skip: Sequence[str] = ()) -> tuple[dict[str, str], str]:
    """What a program needs in its environment for session `name`, PATH excepted; and the folder for PATH's front.

    The folder is made to fit PATH: every program that is there now will join the session, those of `skip` excepted.
    """
    from tsenv.shells import plan, shims

    changes = plan.activation(name, environ)
    shims.renew(name, changes.path, (), skip)
    values = {key: value for key, value in changes.set.items() if value and key not in ("TSENV_PROMPT", "TSENV_AUTO")}
    return values, changes.set["TSENV_BIN"]


def export_to_github(name: str, environ: Mapping[str, str]) -> None:
    """Let the job's later steps know the session (GITHUB_ENV), and find its commands first (GITHUB_PATH)."""
    values, front = variables(name, environ, SHELLS)
    _append(_github_file("GITHUB_ENV", environ), [f"{key}={_one_line(value)}" for key, value in values.items()])
    _append(_github_file("GITHUB_PATH", environ), [_one_line(front)])


def _github_file(name: str, environ: Mapping[str, str]) -> str:
    path = environ.get(name, "")
    if not path:
        raise TsenvError(f"--github: no {name}: this is no step of GitHub Actions", "tsenv up, without --github", USAGE)
    return path


def _append(path: str, lines: list[str]) -> None:
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise TsenvError(f"cannot write {path}: {error.strerror}", f"ls -l {path}") from None


def _one_line(value: str) -> str:
    if "\n" in value or "\r" in value:
        raise TsenvError("a path with a line break cannot be handed to later steps", "set XDG_STATE_HOME to another")
    return value


def mask(secrets: list[str]) -> None:
    """Have the runner replace each secret by *** in all logs from now on."""
    for secret in dict.fromkeys(secrets):
        for line in secret.splitlines():
            if line.strip():
                print(f"::add-mask::{_escaped(line.strip())}", flush=True)


@contextmanager
def group(title: str) -> Iterator[None]:
    """Fold what is printed meanwhile; a failure shows in the job's summary, too."""
    print(f"::group::{_escaped(title)}", flush=True)
    try:
        yield
    except TsenvError as error:
        print(f"::endgroup::\n::error title=tsenv::{_escaped(error.message)}", flush=True)
        raise
    print("::endgroup::", flush=True)


def _escaped(text: str) -> str:
    """As the runner wants data of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

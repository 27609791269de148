"""The variables that carry secrets, and how they leave every environment that tsenv hands on.

Imported on the exec path: only os here.
"""

import os

# Those that tsenv reads itself, and those that Tailscale's tools and action read (PAINS 4.6).
SECRETS = (
    "TS_AUTHKEY", "TS_AUTH_KEY", "TS_CLIENT_SECRET", "TS_ID_TOKEN", "TS_API_KEY", "TS_API_CLIENT_SECRET",
    "TAILSCALE_AUTHKEY", "TAILSCALE_AUTH_KEY", "TAILSCALE_API_KEY",
)  # fmt: skip

# By these, CI runners know what a job started, and kill it at its end: a session ends by itself, with a logout.
TRACKERS = ("RUNNER_TRACKING_ID", "JENKINS_NODE_COOKIE", "JENKINS_SERVER_COOKIE", "HUDSON_COOKIE", "BUILD_ID")

# What no command inside gets: an activation is outside's, and a hook in there must not put its shims back.
NOT_INSIDE = (*SECRETS, "TSENV_BIN", "TSENV_DIR", "TSENV_OLD_SESSION", "TSENV_AUTO")


def scrubbed() -> dict[str, str]:
    """The environment that a command inside gets."""
    return {key: value for key, value in os.environ.items() if key not in NOT_INSIDE}


def no_core() -> None:
    """No core dump of this process: it holds, or held, a key."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def keep_private() -> None:
    """No core dump of this process, and no look into its memory or /proc by others of this user: it holds a key.

    Unlike a limit it is not inherited by what is executed: a command's own core dumps stay as they were.
    """
    import ctypes

    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE (linux/prctl.h)


def rename_process(title: str) -> None:
    """Give this process the argv `title` and an empty environment, as /proc and ps show them.

    A forked supervisor would show the argv and environment of `tsenv up`, key and all, for as long as it runs. The
    kernel shows the bytes between arg_start and env_end of /proc/self/stat (fields 48 to 51, proc(5)).
    """
    import ctypes

    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    arg_start, env_end = int(fields[45]), int(fields[48])
    if not arg_start or env_end <= arg_start:
        return
    size = env_end - arg_start
    text = title.encode()[: size - 1]
    ctypes.memset(arg_start, 0, size)
    ctypes.memmove(arg_start, text, len(text))

"""The programs that tsenv drives, and how they are found and started.

One function starts processes (`start`); TSENV_DEBUG=1 shows each argv. Secrets never are in one.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tsenv import paths
from tsenv.errors import TsenvError

# Daemons lie where an ordinary user's PATH does not look.
_MORE = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"

HINTS = {
    "pasta": "install passt (apt install passt, dnf install passt); tsenv doctor tells more",
    "tailscaled": "install Tailscale; tsenv doctor tells how",
    "tailscale": "install Tailscale; tsenv doctor tells how",
    "nsenter": "install util-linux",
    "unshare": "install util-linux",
    "nft": "install nftables",
    "iptables": "install iptables",
    "ip6tables": "install iptables",
}


@dataclass(frozen=True)
class Tools:
    """Absolute paths."""

    pasta: str
    tailscaled: str
    tailscale: str
    nsenter: str
    unshare: str

    @classmethod
    def find(cls) -> "Tools":
        """All of them; TsenvError that names the first that is missing or not executable."""
        return cls(**{name: find(name) for name in cls.__dataclass_fields__})


def find(name: str) -> str:
    """Absolute path of the program `name`."""
    path = paths.without_shims(os.environ.get("PATH", os.defpath)) + ":" + _MORE
    found = shutil.which(name, path=path)
    if found:
        return os.path.abspath(found)
    dead = shutil.which(name, mode=os.F_OK, path=path)
    what = f"{dead} is not executable" if dead else f"{name} is not installed"
    raise TsenvError(what, f"chmod +x {shlex.quote(dead)}" if dead else HINTS[name])


def start(argv: list[str], **kwargs: Any) -> Any:
    """Start a program; returns plumbum's Popen. Keyword arguments are subprocess.Popen's; pipes by default.

    Keep it until it has ended: forgotten before, plumbum's waits for it, 0.2 s.
    """
    _stand_somewhere()
    # Not `local[…]`, which looks for the program and raises what no OSError is: a daemon may be removed while we run.
    from plumbum.machines.local import LocalCommand, local

    local.env.clear()  # a copy from when plumbum was imported; what left ours since must leave it too
    local.env.update(os.environ)
    if os.environ.get("TSENV_DEBUG"):
        print("+ " + shlex.join(argv), file=sys.stderr, flush=True)
    return LocalCommand(argv[0])[argv[1:]].popen(**kwargs)


def bound() -> Callable[[], None]:
    """For Popen's preexec_fn: the program, which gets a key, leaves no core, and ends when we do, even killed.

    A `tailscale up` that outlived its `tsenv up` would find the daemon of the next session at the same path, and log
    that one in with its own key at its own server.
    """
    import ctypes
    import resource

    libc, parent = ctypes.CDLL(None), os.getpid()

    def end_with_parent() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL (linux/prctl.h)
        if os.getppid() != parent:  # it was over before that
            os._exit(1)

    return end_with_parent


def _stand_somewhere() -> None:
    """Leave a working directory that was deleted or may not be entered: no program starts there."""
    try:
        here = os.access(os.getcwd(), os.X_OK)
    except OSError:
        here = False
    if not here:
        os.chdir("/")

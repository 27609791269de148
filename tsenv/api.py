"""Sessions from Python: `tsenv.up(…)` is a context manager, and used like a plumbum machine.

>>> import tsenv
>>> with tsenv.up(login_server=URL, auth_key=KEY, wait_for=["my-server:22"]) as session:
...     session["ssh"]["my-server", "uname", "-n"]().strip()
...     (session.cmd.curl["-sS", "http://my-server/"] | session["tr"]["a-z", "A-Z"])().strip()
'my-server'
'MY-SERVER OF TAILNET A'

The session is made by `tsenv up` in a process of its own, and belongs to that user as any other: `tsenv list` shows it.
It ends with the block, and with this process should that be killed.
"""

import os
import secrets
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

from tsenv import paths, session
from tsenv.daemon import LocalAPI, Peer
from tsenv.errors import TsenvError

if TYPE_CHECKING:
    from plumbum.commands.base import BaseCommand

__all__ = ["Peer", "Session", "TsenvError", "attach", "up"]


class Session:
    """A session that is up. Indexing it gives a plumbum command that joins it; leaving the block ends it.

    Commands are plumbum's: calling one returns its output and raises ProcessExecutionError when it fails; `|`, `>`, `&
    FG`, `& BG`, `timeout=` and `.run()` work, also together with commands of `plumbum.local`, which stay outside.
    """

    def __init__(self, name: str, *, ours: bool) -> None:
        self.name = name
        self._ours = ours
        self._record = session.usable(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End it, unless it was up before we came, or has ended meanwhile: inside the block, by its ttl, by hand."""
        supervisor = self._record.pids["supervisor"]
        try:
            found = session.load(self.name)
            if self._ours and found is not None and found.pids.get("supervisor") == supervisor:  # else another's
                self.down(force=True)
        except TsenvError:
            if supervisor.alive():
                raise

    def __repr__(self) -> str:
        return f"<tsenv session {self.name!r} {self.address}>"

    def __getitem__(self, program: str) -> "BaseCommand":
        """`program` as a command that joins; plumbum.CommandNotFound when PATH has none of that name.

        >>> session["true"]()
        ''
        """
        from plumbum import local

        local[program]  # CommandNotFound now, as plumbum has it, rather than status 127 later
        return local["/bin/sh"][self._record.file("join"), program]

    def __contains__(self, program: str) -> bool:
        """Whether `program` is to be found."""
        from plumbum import local

        return bool(program in local)

    @property
    def cmd(self) -> "Commands":
        """Commands as attributes: `session.cmd.curl`; an underscore may stand for a hyphen."""
        return Commands(self)

    @property
    def address(self) -> str:
        """The node's first address in the tailnet."""
        return self._record.addresses[0] if self._record.addresses else ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """All its addresses in the tailnet."""
        return tuple(self._record.addresses)

    @property
    def dns_name(self) -> str:
        """Its name in the tailnet, without a final dot."""
        return self._record.dns_name

    def popen(self, argv: Sequence[str], **kwargs: Any) -> Any:
        """Start a program inside; keyword arguments and result are subprocess.Popen's.

        >>> child = session.popen(["cat"], stdin=-1, stdout=-1)
        >>> child.communicate(b"through")[0]
        b'through'
        """
        import subprocess

        return subprocess.Popen(["/bin/sh", self._record.file("join"), *argv], **kwargs)

    def status(self) -> dict[str, Any]:
        """What `tsenv status --json` says: see the reference, "JSON".

        >>> session.status()["state"]
        'up'
        """
        from tsenv.commands.status import report

        return report(self.name)

    def peers(self) -> list[Peer]:
        """The other nodes of the tailnet.

        >>> "my-server" in [peer.name for peer in session.peers()]
        True
        """
        return list(LocalAPI(self._record.dir).status().peers)

    def down(self, *, force: bool = False) -> None:
        """End it; TsenvError when programs run inside and `force` is not given."""
        from tsenv.commands import down

        down.end(self.name, force=force, quiet=True)


class Commands:
    """The programs of a session as attributes."""

    def __init__(self, machine: Session) -> None:
        self._session = machine

    def __getattr__(self, name: str) -> "BaseCommand":
        """The command `name`, or with hyphens for its underscores."""
        if name.startswith("__"):
            raise AttributeError(name)
        return self._session[name if name in self._session else name.replace("_", "-")]


def attach(name: str | None = None) -> Session:
    """The running session `name` (default: as for the command line); leaving its block does not end it.

    >>> tsenv.attach(session.name).address == session.address
    True
    """
    return Session(paths.session_name(name), ours=False)


def up(
    name: str | None = None,
    *,
    auth_key: str = "",
    auth_key_file: str = "",
    client_secret: str = "",
    client_id: str = "",
    id_token: str = "",
    audience: str = "",
    login_server: str = "",
    hostname: str = "",
    advertise_tags: Iterable[str] = (),
    ephemeral: bool | None = None,
    exit_node: str = "",
    accept_routes: bool = False,
    accept_dns: bool = True,
    allow_incoming: bool = False,
    publish: Iterable[str | int] = (),
    host_port: Iterable[str | int] = (),
    isolated: bool = False,
    underlay: str = "auto",
    timeout: float = 60.0,
    wait_for: Iterable[str] = (),
    ttl: str = "",
    with_pid: int | None = None,
    tailscale_up: Iterable[str] = (),
    progress: bool = False,
) -> Session:
    """Bring a session up, as `tsenv up` with the options of these names; TsenvError when that fails.

    name: the session; without one it gets a name that no other has.
    auth_key, client_secret, id_token: secrets, at most one; without any the environment's (TS_AUTHKEY, …).
    with_pid: the process it ends with; this one, unless a name was given (0: none).
    progress: show on stderr how far it is.

    A session of that name that is up with the same options is used, and not ended with the block.

    >>> with tsenv.up(login_server=URL, auth_key="nonsense", timeout=5):
    ...     pass
    Traceback (most recent call last):
    tsenv.errors.TsenvError: tsenv: the auth key is not valid ...
    """
    if with_pid is None:
        with_pid = 0 if name else os.getpid()
    name = paths.valid_name(name or f"py-{os.getpid()}-{secrets.token_hex(3)}")
    pipes = {"--auth-key-file": auth_key, "--client-secret-file": client_secret, "--id-token-file": id_token}
    given = [(option, secret) for option, secret in pipes.items() if secret]
    if len(given) > 1:
        raise TsenvError("auth_key, client_secret and id_token: give one of them", "", 2)
    words = [f"--timeout={timeout:g}", f"--underlay={underlay}"]
    words += _texts(
        auth_key_file=auth_key_file, client_id=client_id, audience=audience, login_server=login_server,
        hostname=hostname, advertise_tags=",".join(advertise_tags), exit_node=exit_node, ttl=ttl,
        with_pid=str(with_pid or ""),
    )  # fmt: skip
    words += [
        f"--{key}={value}"
        for key, values in (("publish", publish), ("host-port", host_port), ("wait-for", wait_for))
        for value in ([values] if isinstance(values, str) else values)
    ]
    words += _flags(
        accept_routes=accept_routes, accept_dns=accept_dns, allow_incoming=allow_incoming, isolated=isolated
    )
    words += [] if ephemeral is None else ["--ephemeral" if ephemeral else "--persistent"]
    words += [f"{given[0][0]}=-"] if given else []
    words += ["--", *tailscale_up] if tailscale_up else []
    return Session(name, ours=_run_up(name, words, given[0][1] if given else "", progress=progress))


def _texts(**options: str) -> list[str]:
    return [f"--{key.replace('_', '-')}={value}" for key, value in options.items() if value]


def _flags(**options: bool) -> list[str]:
    return [f"--{'' if value else 'no-'}{key.replace('_', '-')}" for key, value in options.items()]


def _run_up(name: str, words: list[str], secret: str, *, progress: bool) -> bool:
    """Whether it was made now. In a process of its own: this one may have threads, which a fork would not survive."""
    import subprocess

    done = subprocess.run(
        # -P: no module is taken from the working directory, which may hold an argparse.py.
        [sys.executable, "-P", "-m", "tsenv", "-n", name, "up", *words],
        input=secret, stdout=subprocess.PIPE, stderr=None if progress else subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return not done.stdout.startswith(f"{name}: up already")
    lines = (done.stderr or "").splitlines()
    start = max((n for n, line in enumerate(lines) if line.startswith("tsenv: ")), default=-1)
    message = lines[start].removeprefix("tsenv: ") if start >= 0 else f"tsenv up failed (exit status {done.returncode})"
    hint = "\n".join(line.removeprefix("  hint: ") for line in lines[start + 1 :])
    raise TsenvError(message, hint, done.returncode)

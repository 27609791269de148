"""tsenv up: bring a session up, and return when it can be used."""

import argparse
import errno
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tsenv import login, paths
from tsenv.bringup import Progress, Wanted, bring_up
from tsenv.cli import session_argument
from tsenv.doctor import is_url
from tsenv.errors import USAGE, TsenvError
from tsenv.namespace import port_spec
from tsenv.progress import Plain, shown
from tsenv.scrub import keep_private
from tsenv.session import Options, Session

HELP = "bring a session up"
EPILOG = """\
examples; without a key (TS_AUTHKEY counts, too) the login is by URL:
  tsenv up --auth-key-file ~/.ts.key --wait-for my-server:22
  tsenv up ci -- --advertise-connector    what follows -- goes to `tailscale up`
"""
LABEL_MOST = 63


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = verbs.add_parser(
        "up", help=HELP, description=HELP, epilog=EPILOG,
        usage="tsenv [-n NAME] up [OPTIONS] [NAME] [-- FLAGS]",
    )  # fmt: skip
    session_argument(parser)
    time_group = add_options(parser)
    time_group.add_argument("--github", action="store_true", help="in a step of GitHub Actions: for the whole job")


def add_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The options that `up` and `run` share. No default but None: what is not said may stand in .tsenv.toml."""
    login = parser.add_argument_group("login")
    login.add_argument("--login-server", metavar="URL", help="control server, for headscale")
    login.add_argument("--auth-key-file", metavar="PATH", help="file that holds the auth key; - is stdin")
    login.add_argument("--auth-key", metavar="KEY", help="the key itself (ps shows it: better a file)")
    login.add_argument("--client-secret-file", metavar="PATH", help="file with an OAuth client's secret; - is stdin")
    login.add_argument("--client-id", metavar="ID", help="client of --id-token-file or --audience")
    login.add_argument("--id-token-file", metavar="PATH", help="file with an identity token (OIDC); - is stdin")
    login.add_argument("--audience", metavar="AUD", help="get the identity token from CI or cloud")
    login.add_argument("--hostname", metavar="NAME", help="name of the node (default: tsenv-HOST-SESSION)")
    login.add_argument("--advertise-tags", metavar="TAGS", help="tags of the node, like tag:ci,tag:web")
    both = argparse.BooleanOptionalAction
    life = login.add_mutually_exclusive_group()
    life.add_argument("--ephemeral", action="store_const", const=True, help="log out at the end (default with a key)")
    stays = "keep the node (default without a key)"
    life.add_argument("--persistent", dest="ephemeral", action="store_const", const=False, help=stays)
    net = parser.add_argument_group("network")
    net.add_argument("--exit-node", metavar="PEER", help="peer by which all other traffic leaves")
    net.add_argument("--accept-routes", action=both, help="use subnets that peers advertise (default: no)")
    net.add_argument("--accept-dns", action=both, help="use the tailnet's names (default: yes)")
    net.add_argument("--allow-incoming", action=both, help="let peers connect in (default: no)")
    net.add_argument("--publish", metavar="PORT", action="append", help="open a port of the session on this host")
    net.add_argument("--host-port", metavar="PORT", action="append", help="let the session reach this loopback port")
    net.add_argument("--isolated", action=both, help="tailnet only: refuse everything else")
    ways = ["auto", "host", "pasta"]
    net.add_argument("--underlay", metavar="HOW", choices=ways, help="tailscaled's way out: auto, host or pasta")
    wait = parser.add_argument_group("time")
    wait.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="give up after this (default: 60)")
    wait.add_argument("--wait-for", metavar="HOST[:PORT]", action="append", help="ready only when this peer answers")
    wait.add_argument("--ttl", type=_span, metavar="TIME", help="end the session after this, like 90m or 2h")
    wait.add_argument("--with-pid", type=_pid, metavar="PID", help="end the session when this process ends")
    return wait


def main(args: argparse.Namespace) -> int:
    """Bring it up; the last line says the address and the name."""
    name = up_name(args)
    if args.github:
        return _for_github(args, name)
    wanted = wanted_from(args, name)
    with shown() as progress, terminated():
        session, made = bring_up(name, wanted, progress)
        if not made:
            keep_its_end(session, args, progress)
    print(summary(session, made=made))
    return 0


def _for_github(args: argparse.Namespace, name: str) -> int:
    """The same for a job of GitHub Actions: it ends with the job, and the job's later steps know of it."""
    from tsenv import ci

    with ci.group(f"tsenv up {name}"):
        wanted = wanted_from(args, name)
        wanted = replace(wanted, with_pid=wanted.with_pid or ci.runner_pid())
        ci.mask([wanted.key, wanted.key.partition("?")[0]])
        progress = Plain(sys.stdout)  # where the group is
        with terminated():
            session, made = bring_up(name, wanted, progress)
        if not made:
            keep_its_end(session, args, progress)
        ci.export_to_github(name, os.environ)
    print(summary(session, made=made))
    return 0


def up_name(args: argparse.Namespace) -> str:
    """The session to bring up."""
    if getattr(args, "github", False):
        from tsenv import ci

        return ci.github_name(args.session or args.name, os.environ)
    return paths.session_name(args.session or args.name)


def keep_its_end(session: Session, args: argparse.Namespace, progress: Progress) -> None:
    """A session that was up already ends as it was told then: what was typed now is refused, or said not to count."""
    if args.with_pid and args.with_pid != session.with_pid:
        process = f"process {session.with_pid}" if session.with_pid else "no process"
        raise TsenvError(
            f"session '{session.name}' is up and ends with {process}, not with {args.with_pid}",
            f"tsenv -n {session.name} down   and up again, or another name: tsenv -n OTHER up …",
        )
    if args.ttl is not None:
        ends = time.strftime("at %Y-%m-%d %H:%M:%S", time.localtime(session.until)) if session.until else "at no time"
        progress.note(f"up already: --ttl is not applied, it ends {ends}")


def summary(session: Session, *, made: bool) -> str:
    """One line: what is up, where, under which name."""
    address = session.addresses[0] if session.addresses else "no address"
    return f"{session.name}: {'up' if made else 'up already'}, {address}" + (
        f", {session.dns_name}" if session.dns_name else ""
    )


def wanted_from(args: argparse.Namespace, name: str) -> Wanted:
    """What the command line asks for, filled up from .tsenv.toml and defaults; every value checked."""
    said = _configured(args, name) | {k: v for k, v in vars(args).items() if v is not None}
    keep_private()
    tags = said.get("advertise_tags") or ()
    tags = tuple(tags.split(",")) if isinstance(tags, str) else tuple(tags)
    ephemeral = said.get("ephemeral")
    credential = login.take(said, tags, ephemeral=ephemeral)
    extra = (*said.get("tailscale_up", ()), *args.extra)
    login.refuse_secrets(args.extra)
    login.refuse_secrets(said.get("tailscale_up", ()), "in tailscale_up")
    options = Options(
        login_server=_url(said.get("login_server", "")),
        hostname=label(said.get("hostname") or f"tsenv-{socket.gethostname().partition('.')[0]}-{name}"),
        exit_node=said.get("exit_node", ""),
        accept_routes=said.get("accept_routes", False),
        accept_dns=said.get("accept_dns", True),
        advertise_tags=tags,
        allow_incoming=said.get("allow_incoming", False),
        publish=tuple(port_spec(str(p), loopback=True) for p in said.get("publish", ())),
        host_port=tuple(port_spec(str(p), loopback=False) for p in said.get("host_port", ())),
        ephemeral=ephemeral,
        underlay=said.get("underlay", "auto"),
        isolated=said.get("isolated", False),
        extra=extra,
    )
    for tag in options.advertise_tags:
        if not tag.startswith("tag:"):
            raise TsenvError(f"'{tag}' is not a tag", f"tags begin with tag:, like tag:{tag}", USAGE)
    ttl = _span(said["ttl"]) if isinstance(said.get("ttl"), str) else said.get("ttl")
    return Wanted(
        options=options,
        key=credential.secret,
        login_words=credential.words,
        timeout=said.get("timeout", 60.0),
        wait_for=tuple(said.get("wait_for", ())),
        until=time.time() + ttl if ttl else None,
        with_pid=args.with_pid,
        once=_made_up(args),
    )


def _made_up(args: argparse.Namespace) -> bool:
    """Whether the session's name is of our making, for one command or one job."""
    named = getattr(args, "session", None) or args.name or os.environ.get("TSENV_SESSION")
    return args.verb == "run" or (getattr(args, "github", False) and not named)


def _configured(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """What an allowed .tsenv.toml says about this session. One not allowed stops us: it could send the key away.

    Where the name was made up, by --github or `tsenv run`, the file's session is meant, whatever it is called there. A
    job that does not allow the file, as most do not, goes on without.
    """
    path = paths.config_file()
    if path is None:
        return {}
    from tsenv import config

    found = config.load(path)
    said = found.up_options()
    made_up = _made_up(args)
    if not said or not (made_up or (found.name or "default") == name):
        return {}
    if made_up and not found.trusted:
        print(f"tsenv: {path} is not allowed, and not used; to use it: tsenv allow", file=sys.stderr)
        return {}
    if not found.trusted:
        raise TsenvError(f"{path} is not allowed (yet, or since it was changed)", "read it, then: tsenv allow")
    return said


def _url(text: str) -> str:
    if text and not is_url(text):
        raise TsenvError(f"'{text}' is not a URL", "--login-server https://headscale.example.com", USAGE)
    return text


def label(text: str) -> str:
    """`text` as a valid DNS label: lower case, letters, digits and hyphens, 63 at most."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:LABEL_MOST].strip("-") or "tsenv"


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds")
    return value


def _span(text: str) -> float:
    """Seconds of "90", "90s", "5m", "2h", "1d" or a sum like "1h30m"."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400, "": 1}
    if not re.fullmatch(r"(\d+[smhd])*\d*", text) or not text:
        raise argparse.ArgumentTypeError(f"'{text}' is not a time like 90m or 2h")
    return float(sum(int(n) * units[u] for n, u in re.findall(r"(\d+)([smhd]?)", text)))


def _pid(text: str) -> int:
    """The number of a process that runs; its threads have numbers, too, which will not do."""
    try:
        os.close(os.pidfd_open(int(text)))
    except (ValueError, OverflowError, OSError) as error:
        if getattr(error, "errno", 0) == errno.ENOSYS:
            return int(text)  # doctor has the words for such a kernel
        raise argparse.ArgumentTypeError(f"'{text}' is no process that runs") from None
    return int(text)


@contextmanager
def terminated() -> Iterator[None]:
    """SIGTERM and SIGHUP end what runs here as Ctrl-C does, so that nothing is left."""
    import signal

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""``.tsenv.toml``: what `tsenv up` and the shell hook take from a project's folder, and whether it may be trusted.

The file is found upward from the working directory. It holds no secrets. A stranger's repository may contain one, so
nothing in it counts before ``tsenv allow`` (PAINS 2.20): the allow store keeps a *copy* of each allowed file, at the
same path below the store, so that the prompt hook compares contents with shell builtins and needs no hash program.

Import budget: this module is loaded by `activate`; tomllib and difflib are imported where a file was found.
"""

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tsenv.errors import TsenvError

FILE = ".tsenv.toml"
_PORT_FORM = r"([0-9.]+:|\[[0-9a-fA-F:]+\]:)?[0-9]{1,5}(/udp|/tcp)?"
MAX_BYTES = 64 * 1024  # a shell compares the content at a prompt; nobody's session needs more


@dataclass(frozen=True)
class Wrap:
    """``[wrap]``: which programs `activate` leads into the session. ``only`` empty means: all but the local tools."""

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """One ``.tsenv.toml``. None means: the file does not say. Field names are the keys."""

    path: Path
    trusted: bool
    name: str | None = None
    up: bool | None = None
    login_server: str | None = None
    auth_key_file: str | None = None
    client_id: str | None = None
    client_secret_file: str | None = None
    id_token_file: str | None = None
    audience: str | None = None
    hostname: str | None = None
    exit_node: str | None = None
    accept_routes: bool | None = None
    accept_dns: bool | None = None
    advertise_tags: tuple[str, ...] | None = None
    allow_incoming: bool | None = None
    publish: tuple[int | str, ...] | None = None
    host_port: tuple[int | str, ...] | None = None
    ephemeral: bool | None = None
    timeout: float | None = None
    wait_for: tuple[str, ...] | None = None
    underlay: str | None = None
    isolated: bool | None = None
    ttl: str | None = None
    tailscale_up: tuple[str, ...] | None = None
    wrap: Wrap = Wrap()

    def up_options(self) -> dict[str, Any]:
        """Return what the file says about `up`, keyed like the command line's options (``--exit-node``: exit_node)."""
        outside = {"path", "trusted", "name", "up", "wrap"}
        said = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in outside}
        return {key: value for key, value in said.items() if value is not None}


def _text(value: object) -> str | None:
    # No control characters: a value may be shown on a terminal, and none has a use for them.
    return value if isinstance(value, str) and value.isprintable() and value else None


def _name(value: object) -> str | None:
    import re

    return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", value) else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _seconds(value: object) -> float | None:
    # bool is an int in Python: `timeout = true` is no number of seconds.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < float("inf") else None  # type: ignore[operator,arg-type]


def _span(value: object) -> str | None:
    import re

    return value if isinstance(value, str) and re.fullmatch(r"([0-9]+[smhd])+", value) else None


def _port(value: object) -> int | str | None:
    """Return a number, or a text of the command line's form ([ADDRESS:]PORT[/udp]), whose value `up` checks."""
    import re

    if isinstance(value, str):
        return value if re.fullmatch(_PORT_FORM, value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536 else None  # noqa: PLR2004


def _underlay(value: object) -> str | None:
    return value if isinstance(value, str) and value in {"auto", "host", "pasta"} else None


def _program(value: object) -> str | None:
    return value if _text(value) and "/" not in str(value) else None  # type: ignore[return-value]


def _each(check: Callable[[object], Any]) -> Callable[[object], tuple[Any, ...] | None]:
    def every(value: object) -> tuple[Any, ...] | None:
        if not isinstance(value, list):
            return None
        found = tuple(check(item) for item in value)
        return None if None in found else found

    return every


@dataclass(frozen=True)
class Key:
    """How a key is checked, what it must be (in words, for the error), and its JSON schema."""

    check: Callable[[object], Any]
    must: str
    schema: Mapping[str, Any]
    says: str


_STRING = {"type": "string", "minLength": 1}
_STRINGS = {"type": "array", "items": _STRING}
_PORTS = {
    "type": "array",
    "items": {
        "oneOf": [
            {"type": "integer", "minimum": 1, "maximum": 65535},
            {"type": "string", "pattern": f"^{_PORT_FORM}$"},
        ]
    },
}
_BOOL = {"type": "boolean"}
_NAME = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"}
_SPAN = {"type": "string", "pattern": "^([0-9]+[smhd])+$"}
_PROGRAMS = {"type": "array", "items": {"type": "string", "minLength": 1, "pattern": "^[^/]+$"}}

KEYS: Mapping[str, Key] = {
    "name": Key(_name, "a name of letters, digits, . _ -", _NAME, "The session of this folder."),
    "up": Key(_flag, "true or false", _BOOL, "Let the shell hook bring the session up on entering the folder."),
    "login_server": Key(_text, "a URL", _STRING, "Control server, for headscale."),
    "auth_key_file": Key(_text, "a path", _STRING, "File that holds the auth key (the key itself never goes here)."),
    "client_id": Key(_text, "an OAuth client's id", _STRING, "OAuth client, with client_secret_file or an identity."),
    "client_secret_file": Key(_text, "a path", _STRING, "File that holds the OAuth client's secret."),
    "id_token_file": Key(_text, "a path", _STRING, "File that holds an OIDC identity token."),
    "audience": Key(_text, "a text", _STRING, "Audience of the OIDC identity token."),
    "hostname": Key(_text, "a host name", _STRING, "Name of the node in the tailnet."),
    "exit_node": Key(_text, "a name or address", _STRING, "Peer through which all traffic leaves."),
    "accept_routes": Key(_flag, "true or false", _BOOL, "Use the subnet routes that peers advertise."),
    "accept_dns": Key(_flag, "true or false", _BOOL, "Use the tailnet's DNS (MagicDNS)."),
    "advertise_tags": Key(_each(_text), "a list of tags", _STRINGS, "ACL tags of the node, like tag:ci."),
    "allow_incoming": Key(_flag, "true or false", _BOOL, "Let peers connect in."),
    "publish": Key(_each(_port), "a list of ports", _PORTS, "Ports of the session opened on the host."),
    "host_port": Key(_each(_port), "a list of ports", _PORTS, "Host loopback ports reachable from inside."),
    "ephemeral": Key(_flag, "true or false", _BOOL, "Remove the node from the tailnet when the session ends."),
    "timeout": Key(
        _seconds, "a number of seconds", {"type": "number", "exclusiveMinimum": 0}, "Seconds that `up` may take."
    ),
    "wait_for": Key(_each(_text), "a list of HOST or HOST:PORT", _STRINGS, "Peers that must answer before `up` ends."),
    "underlay": Key(
        _underlay, "auto, host or pasta", {"enum": ["auto", "host", "pasta"]}, "How tailscaled reaches the network."
    ),
    "isolated": Key(_flag, "true or false", _BOOL, "Tailnet only: everything else is refused."),
    "ttl": Key(_span, 'a time like "90m" or "2h"', _SPAN, "End the session after this time."),
    "tailscale_up": Key(_each(_text), "a list of flags", _STRINGS, "More flags for `tailscale up`."),
}
WRAP_KEYS: Mapping[str, Key] = {
    "only": Key(_each(_program), "a list of program names", _PROGRAMS, "Lead only these programs into the session."),
    "skip": Key(_each(_program), "a list of program names", _PROGRAMS, "Leave these programs outside."),
}


def find(start: Path | None = None) -> Path | None:
    """Return the nearest .tsenv.toml, from START (the working directory) upward."""
    folder = start or logical_cwd()
    # lexists: a dangling or refused symlink must be named as such, not passed over in favour of one further up.
    return next((at / FILE for at in (folder, *folder.parents) if os.path.lexists(at / FILE)), None)


def logical_cwd() -> Path:
    """Return the working directory as the shell spells it ($PWD), if that is the same directory."""
    spelled = os.environ.get("PWD", "")
    try:
        if spelled.startswith("/") and ".." not in Path(spelled).parts and os.path.samefile(spelled, "."):
            return Path(spelled)
        return Path.cwd()
    except OSError:
        return Path("/")  # a deleted working directory has no file


def load(path: str | Path) -> Config:
    """Read and check one file. Raises TsenvError naming the file and the key."""
    path = Path(path)
    return parse(read(path), path, trusted=is_allowed(path))


def nearest() -> Config | None:
    """Return the configuration that holds in the working directory, or None."""
    path = find()
    return load(path) if path else None


def read(path: Path) -> bytes:
    """Return the content of a regular file of this user, no symlink. Raises TsenvError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise TsenvError(
                f"{path} is a symlink: refused", f"put the file itself there: cp --remove-destination {FILE}"
            ) from error
        raise TsenvError(f"{path}: {error.strerror}") from error
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise TsenvError(f"{path} is not a regular file: refused")
        if about.st_uid != os.geteuid():
            raise TsenvError(f"{path} belongs to another user (uid {about.st_uid}): refused")
        if about.st_size > MAX_BYTES:
            raise TsenvError(f"{path} is larger than {MAX_BYTES} bytes: refused")
        return os.read(descriptor, MAX_BYTES)
    finally:
        os.close(descriptor)


def parse(content: bytes, path: Path, *, trusted: bool = False) -> Config:
    """Check a file's content. Raises TsenvError naming the file and the key."""
    import tomllib

    try:
        table = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise TsenvError(f"{path}: not TOML: {_shown(str(error))}") from error
    wrap = table.pop("wrap", {})
    if not isinstance(wrap, dict):
        raise TsenvError(f"{path}: wrap must be a table", "write [wrap] on a line of its own")
    values = _checked(table, KEYS, path, "")
    return Config(path=path, trusted=trusted, wrap=Wrap(**_checked(wrap, WRAP_KEYS, path, "wrap.")), **values)


def _checked(table: Mapping[str, object], keys: Mapping[str, Key], path: Path, prefix: str) -> dict[str, Any]:
    values = {}
    for name, value in table.items():
        if name not in keys:
            raise TsenvError(f"{path}: unknown key '{_shown(prefix + name)}'", _nearest_key(name, keys, prefix))
        values[name] = keys[name].check(value)
        if values[name] is None:
            raise TsenvError(f"{path}: {prefix}{name} must be {keys[name].must}")
    return values


def _nearest_key(name: str, keys: Mapping[str, Key], prefix: str) -> str:
    import difflib

    everywhere = {**keys, **{f"wrap.{key}": value for key, value in WRAP_KEYS.items()}}
    close = difflib.get_close_matches(name.replace("-", "_").lower(), list(everywhere), n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0] if '.' in close[0] else prefix + close[0]}'?"
    return f"known keys: {', '.join(prefix + key for key in keys)}"


def _shown(text: str) -> str:
    """Make text of a stranger's file fit for a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:200]


def schema() -> dict[str, Any]:
    """Return the JSON schema of the file (docs/tsenv.schema.json)."""

    def described(keys: Mapping[str, Key]) -> dict[str, Any]:
        return {name: {"description": key.says, **key.schema} for name, key in keys.items()}

    wrap = {
        "type": "object",
        "description": "Which programs `tsenv activate` leads into the session.",
        "properties": described(WRAP_KEYS),
        "additionalProperties": False,
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": FILE,
        "description": "A folder's tailnet session, for tsenv.",
        "type": "object",
        "properties": {**described(KEYS), "wrap": wrap},
        "additionalProperties": False,
    }


# --- trust -------------------------------------------------------------------------------------------------------


def allow_store() -> Path:
    """Return the folder of allowed copies (not below the state folder, where a name is a session)."""
    data = os.environ.get("XDG_DATA_HOME", "")
    base = Path(data) if data.startswith("/") else Path.home() / ".local/share"
    return base / "tsenv/allow"


def is_allowed(path: Path) -> bool:
    """Say whether exactly this content was allowed at this place. Raises TsenvError for a file that is refused."""
    content = read(path)
    return any(_same(record, content) for record in _records(path))


def allow(path: Path) -> None:
    """Trust the file as it is now. Raises TsenvError when it is refused or does not parse."""
    content = read(path)
    parse(content, path)
    for record in _records(path):
        record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = record.with_name(f"{FILE}.{os.getpid()}")
        draft.write_bytes(content)
        draft.chmod(0o600)
        draft.replace(record)
        record.with_name("denied").unlink(missing_ok=True)


def deny(path: Path) -> None:
    """Withdraw trust, and let the hook stop asking about the file."""
    for record in _records(path):
        record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        record.unlink(missing_ok=True)
        record.with_name("denied").touch(mode=0o600)


def _records(path: Path) -> set[Path]:
    """Where the store keeps the copy: as the shell spells the folder (what the hook looks up), and its real path."""
    spelled = Path(os.path.abspath(path))  # Path.resolve would follow symlinks
    real = Path(os.path.realpath(path.parent)) / path.name
    return {allow_store().joinpath(*at.parts[1:]) for at in (spelled, real)}


def _same(record: Path, content: bytes) -> bool:
    try:
        return record.read_bytes() == content
    except OSError:
        return False


def chosen(given: str | None) -> Path:
    """Return the file that `allow` and `deny` mean: a file, a folder's, or the nearest one upward."""
    if given:
        path = logical_cwd() / given
        return path / FILE if path.is_dir() else path
    path = find()  # type: ignore[assignment]
    if path is None:
        raise TsenvError(f"no {FILE} here or above", f"write one: echo 'name = \"work\"' > {FILE}")
    return path

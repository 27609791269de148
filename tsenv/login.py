"""How a node proves itself: an auth key, an OAuth client's secret, an identity token, or (none of them) a login by URL.

A secret goes to `tailscale up` through a pipe, never in an argv. What can be wrong with it on this side is said before
anything starts: an OAuth client and an identity make keys for tags only.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tsenv.errors import USAGE, TsenvError
from tsenv.scrub import SECRETS

OAUTH = "tskey-client-"
WAYS = ("auth_key", "auth_key_file", "client_secret_file", "id_token_file", "audience")
PIPE = "file:/dev/stdin"


@dataclass(frozen=True)
class Credential:
    """`secret` is what goes through the pipe (may be empty), `words` the flags of `tailscale up` that go with it."""

    secret: str = field(default="", repr=False)
    words: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is one; without, a person logs in."""
        return bool(self.words)


def take(said: Mapping[str, Any], tags: Sequence[str], *, ephemeral: bool | None) -> Credential:
    """The credential that options (`said`, keyed as argparse does) or the environment give.

    All secrets leave our environment, so that nobody inherits them. Options win over variables.
    """
    environ = {name: os.environ.pop(name, "").strip() for name in SECRETS}
    environ |= {name: os.environ.get(name, "").strip() for name in ("TS_CLIENT_ID", "TS_AUDIENCE")}
    given = [name for name in WAYS if said.get(name)]
    if len(given) > 1:
        words = " and ".join("--" + name.replace("_", "-") for name in given[:2])
        raise TsenvError(f"{words} are two ways to log in", "give one of them", USAGE)
    life = {"ephemeral": "false" if ephemeral is False else "true", "preauthorized": "true"}
    client = said.get("client_id") or environ["TS_CLIENT_ID"]
    key, secret, token, audience = _sources(said, environ, given[0] if given else "")
    if key.startswith(OAUTH):
        key, secret = "", key
    if key:
        return Credential(key, (f"--auth-key={PIPE}",))
    if secret:
        return _oauth(secret, tags, life)
    if token or audience:
        return _identity(client, token, audience, tags, life)
    return Credential()


def _sources(said: Mapping[str, Any], environ: Mapping[str, str], given: str) -> tuple[str, str, str, str]:  # noqa: PLR0911
    """(auth key, client secret, identity token, audience): the one that was given, else the environment's first."""
    if given == "auth_key":
        print("tsenv: --auth-key shows the key to everybody here (ps); better: --auth-key-file", file=sys.stderr)
        return one_word(said["auth_key"], "the auth key", "--auth-key"), "", "", ""
    if given == "auth_key_file":
        return read(said[given], "the auth key"), "", "", ""
    if given == "client_secret_file":
        return "", read(said[given], "the client secret"), "", ""
    if given == "id_token_file":
        return "", "", read(said[given], "the identity token"), ""
    if given == "audience":
        return "", "", "", str(said[given])
    key = environ["TS_AUTHKEY"] or environ["TS_AUTH_KEY"]
    secret, token, audience = environ["TS_CLIENT_SECRET"], environ["TS_ID_TOKEN"], environ["TS_AUDIENCE"]
    if key:
        return key, "", "", ""
    return ("", secret, "", "") if secret else ("", "", token, "" if token else audience)


def _oauth(secret: str, tags: Sequence[str], life: Mapping[str, str]) -> Credential:
    if not secret.startswith(OAUTH):
        raise TsenvError("this is no OAuth client secret", f"it begins with {OAUTH}", USAGE)
    _need_tags(tags, "an OAuth client")
    # tailscale takes the secret of an OAuth client wherever it takes a key, from 1.40 on; --client-secret is of 1.90.
    # Approval by hand would make a CI job wait for a person: keys of OAuth clients come preauthorized.
    return Credential(_with(secret, life), (f"--auth-key={PIPE}",))


def _identity(client: str, token: str, audience: str, tags: Sequence[str], life: Mapping[str, str]) -> Credential:
    if not client:
        raise TsenvError("an identity token needs the client's id", "--client-id ID, or TS_CLIENT_ID", USAGE)
    _need_tags(tags, "an identity")
    named = f"--client-id={_with(client, life)}"
    if token:
        return Credential(token, (named, f"--id-token={PIPE}"))
    # tailscale fetches the token itself: GitHub (permissions: id-token: write), AWS, GCP, Azure.
    return Credential("", (named, f"--audience={audience}"))


def _with(word: str, attributes: Mapping[str, str]) -> str:
    """`word` with tailscale's attributes (?NAME=VALUE&…), those that it does not carry itself."""
    plain, _, own = word.partition("?")
    given = [pair for pair in own.split("&") if pair]
    names = [pair.partition("=")[0] for pair in given]
    return (
        f"{plain}?{'&'.join([*given, *(f'{name}={value}' for name, value in attributes.items() if name not in names)])}"
    )


def _need_tags(tags: Sequence[str], who: str) -> None:
    if not tags:
        raise TsenvError(f"{who} logs in with tags, and none is given", "--advertise-tags tag:ci", USAGE)


def read(path: str, what: str) -> str:
    """One word from a file; - is stdin."""
    try:
        if path == "-":
            return one_word(sys.stdin.read(), what, "stdin")
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            return one_word(file.read(), what, path)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise TsenvError(f"cannot read {what} from {path}: {why}", f"ls -l {path}") from None


def one_word(text: str, what: str, source: str) -> str:
    """The one word that `text` is."""
    words = text.split()
    if len(words) != 1:
        wrong = "is empty" if not words else "holds more than one word"
        raise TsenvError(f"{what} from {source} {wrong}", "one line, nothing else", USAGE)
    return words[0]


def refuse_secrets(flags: Sequence[str], where: str = "after --") -> None:
    """What `tailscale up` gets as it is, is seen by everybody (ps): no secret may stand there, but its file may."""
    for word, following in zip(flags, (*flags[1:], ""), strict=False):
        hit = re.fullmatch(r"--?(auth-?key|client-secret|id-token)(?:=(.*))?", word, re.DOTALL)
        if hit and not (following if hit[2] is None else hit[2]).startswith("file:"):
            option = hit[1].replace("authkey", "auth-key")
            hint = f"tsenv's own --{option}-file PATH, or --{option}=file:PATH"
            raise TsenvError(f"a {'key' if option == 'auth-key' else 'secret'} {where} would show in ps", hint, USAGE)

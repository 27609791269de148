"""What an activation changes, as data. It knows no shell.

The environment that an activation owns (all exported, so that a subshell can undo it):

    TSENV_SESSION      the session's name (it was TSENV_OLD_SESSION before, where it was set)
    TSENV_DIR          the session's runtime directory
    TSENV_BIN          the entry at the front of PATH
    TSENV_PROMPT       "(NAME) ", for prompts that are made by a program (starship)
    TSENV_AUTO         the .tsenv.toml by which the hook activated; empty when it was done by hand
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

from tsenv.errors import TsenvError
from tsenv.paths import session_dir
from tsenv.shells import shims

OWNED = ("TSENV_BIN", "TSENV_DIR", "TSENV_OLD_SESSION", "TSENV_PROMPT", "TSENV_AUTO")


class Plan(NamedTuple):
    """Variables to set and to unset, and the entry that PATH gets at its front (None: our entry leaves it)."""

    set: Mapping[str, str]
    unset: tuple[str, ...]
    front: str | None
    path: str
    """PATH as it will be, for shells that cannot edit lists by themselves."""


def without(path: str, entry: str) -> str:
    """Return PATH without ENTRY; everything else, empty entries too, stays as it is."""
    return ":".join(item for item in path.split(":") if item != entry)


def activation(name: str, environ: Mapping[str, str], auto: str = "") -> Plan:
    """Plan the activation of session NAME from this environment, which may hold another activation."""
    before = deactivation(environ)
    owner = before.set.get("TSENV_SESSION", None if "TSENV_SESSION" in before.unset else environ.get("TSENV_SESSION"))
    front = shims.bin_dir(name)
    if ":" in front:
        raise TsenvError(f"'{front}' cannot be on PATH: it holds a colon", "set XDG_STATE_HOME to another folder")
    values = {
        "TSENV_SESSION": name,
        "TSENV_DIR": session_dir(name),
        "TSENV_BIN": front,
        "TSENV_PROMPT": f"({name}) ",
        "TSENV_AUTO": auto,
    }
    if owner is not None:
        values["TSENV_OLD_SESSION"] = owner
    unset = () if owner is not None else ("TSENV_OLD_SESSION",)
    return Plan(values, unset, front, f"{front}:{before.path}")


def deactivation(environ: Mapping[str, str]) -> Plan:
    """Plan the undoing, from the environment alone. What the user has changed meanwhile is left alone."""
    path = environ.get("PATH", "")
    if not environ.get("TSENV_BIN"):
        return Plan({}, (), None, path)
    kept = without(path, environ["TSENV_BIN"])
    if environ.get("TSENV_SESSION") != os.path.basename(environ.get("TSENV_DIR", "")):
        return Plan({}, OWNED, None, kept)
    if "TSENV_OLD_SESSION" in environ:
        return Plan({"TSENV_SESSION": environ["TSENV_OLD_SESSION"]}, OWNED, None, kept)
    return Plan({}, (*OWNED, "TSENV_SESSION"), None, kept)

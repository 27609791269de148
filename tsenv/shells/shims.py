"""The folder that `activate` puts in front of PATH: one symlink per program to the session's shim (shell/shim.sh).

    $XDG_STATE_HOME/tsenv/NAME/bin/PROGRAM -> ../shim
    $XDG_STATE_HOME/tsenv/NAME/bin.stamp       what bin/ was made from; as new as the newest folder of PATH

It outlives the session on purpose: a shell that is still activated when its session ends must find the shims, which
refuse. If they went with the session, the shell would go on to the real programs, outside, without a word.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress

from tsenv.errors import TsenvError
from tsenv.paths import data_file, private_dir, session_dir, state_base, state_dir, without_shims
from tsenv.shells import quote

# Programs that touch neither the network nor start other programs: led into the session they would do the same, 4 ms
# later. Not here: env, nice, nohup, timeout, xargs, find, sh … (they start others), tar (host:file), awk (/inet).
LOCAL = frozenset(
    """[ arch b2sum base32 base64 basename basenc bunzip2 bzcat bzip2 cal cat chcon chgrp chmod chown cksum
    clear cmp col column comm cp csplit cut date dd df diff diff3 dir dircolors dirname du echo egrep expand expr
    factor false fgrep file fmt fold free getconf grep groups gunzip gzip head hexdump iconv id infocmp install
    join kill killall link ln locale logname ls lsb_release lscpu md5sum mesg mkdir mkfifo mknod mktemp
    more mountpoint mv nl nproc numfmt od paste pathchk pgrep pidof pinky pkill pmap pr printenv printf ps ptx pwd
    readlink realpath renice reset rev rm rmdir runcon seq sha1sum sha224sum sha256sum
    sha384sum sha512sum shred shuf sleep stat stty sum sync tabs tac tail tee test tic toe top touch
    tput tr true truncate tsort tty tset uname unexpand uniq unlink unxz unzstd uptime users vdir vmstat w wc whereis
    which who whoami xxd xz xzcat yes zcat zstd zstdcat""".split()
)

# They act on the host, or they are what joining is made of.
OUTSIDE = frozenset({"tsenv", "nsenter", "unshare", "pasta", "passt", "tailscaled", "newuidmap", "newgidmap"})

# Setuid on some distributions, but in the session they work without: pasta allows unprivileged ping there.
PING = frozenset({"ping", "ping4", "ping6", "fping", "traceroute", "traceroute6", "tracepath", "mtr-packet"})

_SETID = stat.S_ISUID | stat.S_ISGID


def bin_dir(name: str) -> str:
    """Return the PATH entry of session NAME."""
    return os.path.join(state_dir(name), "bin")


def stamp_file(name: str) -> str:
    """Return the stamp: a folder of PATH that is newer has programs which bin/ may not have."""
    return os.path.join(state_dir(name), "bin.stamp")


def renew(name: str, path: str, only: Iterable[str] | None = None, skip: Iterable[str] | None = None) -> bool:
    """Make bin/ fit PATH, and say whether anything had to be done.

    ONLY and SKIP are ``[wrap]``; None keeps what the last activation said, so that a rehash from another folder does
    not forget it. Links are added and removed one by one, each atomically: commands may be running meanwhile.
    """
    private_dir(state_dir(name))
    folder = bin_dir(name)
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    old = _read_stamp(name)
    wrap = (
        old[1] if only is None and old else " ".join(sorted(only or ())),
        old[2] if skip is None and old else " ".join(sorted(skip or ())),
    )
    folders = _folders(path)
    _write_shim(name)
    now = ["1", *wrap, *(f"{at} {mtime}" for at, mtime in folders)]
    newest = max((mtime for _, mtime in folders), default=0)
    if now == old:
        _date_stamp(stamp_file(name), newest)
        return False
    wanted = programs([at for at, _ in folders], set(wrap[0].split()), set(wrap[1].split()))
    _link(folder, wanted)
    _write_stamp(name, now, newest)
    return True


def programs(folders: Iterable[str], only: set[str], skip: set[str]) -> set[str]:
    """Return the names to lead into the session. ONLY, where given, is the whole list; SKIP wins over it."""
    found: dict[str, int] = {}
    for folder in folders:
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name not in found and (mode := _executable(entry)):
                    found[entry.name] = mode
    if only:
        return {name for name in found if name in only} - skip - OUTSIDE
    # sudo and its like must keep working; a user namespace would take their privilege away.
    setid = {name for name, mode in found.items() if mode & _SETID} - PING
    return found.keys() - setid - LOCAL - OUTSIDE - skip


def _executable(entry: os.DirEntry[str]) -> int:
    """Return the mode of a program, 0 for anything else."""
    try:
        mode = entry.stat().st_mode
    except OSError:  # a dangling link
        return 0
    # A mere look at the bits: for a file of the right bits that is not ours to run the shim finds the next one.
    return mode if stat.S_ISREG(mode) and mode & 0o111 else 0


def _folders(path: str) -> list[tuple[str, int]]:
    """Return the folders of PATH in order, each once, with its mtime in ns.

    Without shims of any session, and without relative ones: what lies there changes with every cd.
    """
    found = {}
    for folder in without_shims(path).split(":"):
        if folder.startswith("/") and folder not in found:
            with suppress(OSError):
                found[folder] = os.stat(folder).st_mtime_ns
    return list(found.items())


def _link(folder: str, wanted: set[str]) -> None:
    have = set(os.listdir(folder))
    for name in wanted - have:
        with suppress(FileExistsError):  # another shell does the same
            os.symlink("../shim", f"{folder}/{name}")
    for name in have - wanted:
        with suppress(FileNotFoundError):
            os.unlink(f"{folder}/{name}")


def _write_shim(name: str) -> None:
    """Write the shim, unless it is there already: the same for each session of this name."""
    target = os.path.join(state_dir(name), "shim")
    # quote, then fill in one pass as render.fill does; its import would be a circle.
    import re

    folder = session_dir(name)
    values = {"NAME": name, "SESSION": folder, "BASE": os.path.dirname(folder), "ROOT": state_base(), "SHIM": target}
    with open(data_file("shell/shim.sh"), encoding="utf-8") as file:
        text = re.sub(r"@([A-Z_]+)@", lambda hit: quote.posix(values[hit[1]]), file.read())
    content = text.encode("utf-8", "surrogateescape")
    with suppress(OSError), open(target, "rb") as old:
        if old.read() == content:
            return
    draft = f"{target}.{os.getpid()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o700)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    if not os.access(draft, os.X_OK):
        os.unlink(draft)
        raise TsenvError(f"{state_dir(name)} is on a file system without programs (noexec)", "set XDG_STATE_HOME")
    os.replace(draft, target)


def _read_stamp(name: str) -> list[str] | None:
    try:
        with open(stamp_file(name), encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().split("\0")
    except OSError:
        return None
    return lines if lines[0] == "1" else None


def _write_stamp(name: str, lines: list[str], newest: int) -> None:
    draft = f"{stamp_file(name)}.{os.getpid()}"
    with open(draft, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write("\0".join(lines))
    _date_stamp(draft, newest)
    os.replace(draft, stamp_file(name))


def _date_stamp(path: str, newest: int) -> None:
    """Date the stamp now, or as the newest folder: one of the future would make each prompt a rehash."""
    os.utime(path)
    if os.stat(path).st_mtime_ns < newest:
        os.utime(path, ns=(newest, newest))

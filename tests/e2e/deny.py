"""Runs a command under a seccomp filter that refuses some system calls, as a container's does.

python3 -I deny.py CALL=ERRNO… -- CMD…        a CALL may be CALL:BITS: only with one of these bits in its first argument
"""

import ctypes
import errno
import os
import platform
import struct
import sys

NUMBERS = {
    "x86_64": {"mount": 165, "clone": 56, "clone3": 435, "unshare": 272, "setns": 308, "seccomp": 317},
    "aarch64": {"mount": 40, "clone": 220, "clone3": 435, "unshare": 97, "setns": 268, "seccomp": 277},
}[platform.machine()]
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


def program(rules: list[str]) -> list[tuple[int, int, int, int]]:
    """BPF: one block a rule, else allow."""
    code: list[tuple[int, int, int, int]] = []
    for rule in rules:
        name, _, error = rule.partition("=")
        name, _, bits = name.partition(":")
        code.append((LOAD, 0, 0, 0))  # the call's number
        if bits:
            code.append((EQUAL, 0, 3, NUMBERS[name]))
            code.append((LOAD, 0, 0, 16))  # the lower half of its first argument
            code.append((ANY_BIT, 0, 1, int(bits, 16)))
        else:
            code.append((EQUAL, 0, 1, NUMBERS[name]))
        code.append((RETURN, 0, 0, ERRNO | getattr(errno, error)))
    return [*code, (RETURN, 0, 0, ALLOW)]


def main() -> None:
    end = sys.argv.index("--")
    code = program(sys.argv[1:end])
    raw = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(raw)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, head, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
    os.execvp(sys.argv[end + 1], sys.argv[end + 1 :])


main()

r"""One quoting function per shell: any string comes back as exactly itself from the shell's parser.

``shlex.quote`` is right for sh, bash and zsh and wrong for fish, where a backslash inside single quotes still escapes.
Bytes that are no UTF-8 arrive as surrogates (PEP 383) and leave as the same bytes, by the output's surrogateescape.
"""

import re


def posix(value: str) -> str:
    """Sh, bash, zsh: nothing is special in single quotes but the quote. True with zsh's RC_QUOTES, too."""
    return "'" + value.replace("'", "'\\''") + "'"


def fish(value: str) -> str:
    r"""Single quotes, in which \\ and \' escape; a newline and stray bytes outside of them, to stay on one line."""

    def outside(hit: re.Match[str]) -> str:
        letter = hit[0]
        # fish: \xHH is one byte, as far as it is no UTF-8 anyway.
        code = "\\n" if letter == "\n" else f"\\x{ord(letter) & 0xFF:02x}"
        return f"'{code}'"

    return "'" + re.sub(r"[\n\udc80-\udcff]", outside, re.sub(r"([\\'])", r"\\\1", value)) + "'"


def tcsh(value: str) -> str:
    """Single quotes; ! is history even in them, and a newline needs a backslash."""
    return "'" + value.replace("'", "'\\''").replace("!", "\\!").replace("\n", "\\\n") + "'"


def xonsh(value: str) -> str:
    """Python's own literal."""
    return repr(value)


def elvish(value: str) -> str:
    """Single quotes; a quote is written twice."""
    return "'" + value.replace("'", "''") + "'"

"""Any words at all, through the quoting of each shell and its real parser, and back."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsenv.shells import quote

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EXAMPLES = int(os.environ.get("TSENV_FUZZ", "150")) // 15  # each of them is up to eighty words

# What means something to some shell stands in every third word; surrogates are the bytes of names that are no UTF-8.
special = st.text(alphabet="'\"\\`$!(){}[]<>|&;*?~#%^=@-\n\t\r \x01\x7f", max_size=12)
words = st.one_of(special, st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
odd_bytes = st.text(alphabet=[chr(0xDC80 + number) for number in range(128)] + ["'", "\\", "a", "é"], max_size=8)

SHELLS: dict[str, tuple[list[str], Callable[[str], str], bool]] = {  # argv, its quoting, whether it takes any bytes
    "dash": (["dash"], quote.posix, True),
    "bash": (["bash", "--norc"], quote.posix, True),
    "zsh": (["zsh", "-f"], quote.posix, True),
    "fish": (["fish", "--no-config"], quote.fish, True),
    "tcsh": (["tcsh", "-f"], quote.tcsh, False),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_words_come_back(shell: str, tmp_path: Path) -> None:
    argv, quoted, any_bytes = SHELLS[shell]
    if not shutil.which(argv[0]):
        pytest.skip(f"no {argv[0]} here")
    show = tmp_path / "show"
    show.write_text('#!/bin/sh\nfor x in "$@"; do printf "%s\\0" "$x"; done\n')
    show.chmod(0o755)
    script = tmp_path / "script"

    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(st.lists(st.one_of(words, odd_bytes) if any_bytes else special, min_size=1, max_size=80))
    def try_them(strings: list[str]) -> None:
        code = f"{show} " + " ".join(map(quoted, strings)) + "\n"
        script.write_bytes(code.encode("utf-8", "surrogateescape"))
        environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        done = subprocess.run([*argv, script], env=environment, cwd=tmp_path, capture_output=True, check=False)
        # As bytes: two escaped bytes may together be a letter.
        assert done.stdout.split(b"\0")[:-1] == [text.encode("utf-8", "surrogateescape") for text in strings], done.stderr
        assert {entry.name for entry in tmp_path.iterdir()} <= {"show", "script", ".local", ".config", ".cache"}

    try_them()

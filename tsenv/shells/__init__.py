"""The shell side of tsenv: a plan (data) is rendered as code for the shell that asked.

Import budget (STYLE 7): nothing below this package loads plumbum, subprocess, rich or json.
"""

from tsenv.shells.subshell import subshell

__all__ = ["subshell"]

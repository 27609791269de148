"""One door for errors: everything that a user can cause is a TsenvError, and only main prints it.

Imported on the exec path: nothing but builtins here.
"""

USAGE = 2
FAILED = 125  # tsenv itself failed; the command was not started
CANNOT_RUN = 126
NOT_FOUND = 127


class TsenvError(Exception):
    """What is wrong in one line, what to type next, and the exit status."""

    def __init__(self, message: str, hint: str = "", code: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code

    def __str__(self) -> str:
        return f"tsenv: {self.message}" + "".join(f"\n  hint: {line}" for line in self.hint.splitlines())

"""The one exception that people see: a clear line with what to do, never a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

NO = 1
USAGE = 2
FAILED = 3


class UserError(Exception):
    """Something the user can understand and act on.

    `status` is the exit status of the command: `NO` (the answer is no), `USAGE` (wrong usage) or
    `FAILED` (it failed; the text says what was left as it was).
    """

    def __init__(self, message: str, status: int = USAGE) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def refused(cannot: str, instead: str = "") -> Iterator[None]:
    """Raise UserError, `CANNOT: why; INSTEAD`, where the system refuses what is done meanwhile."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{cannot}: {error.strerror or error}{instead and f'; {instead}'}", FAILED) from None

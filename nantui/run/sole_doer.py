"""One transaction, one doer: whoever moves a run's files holds its journal while it does.

The helper that carries a rollback out outlives the supervisor that asked for it. The run's lock then belongs
to the next supervisor, which would start a second helper on the same files. So each helper locks the journal
(flock), and what it starts inherits the descriptor: the lock is free when all of them have ended, whatever
killed which. NFS passes it on to the server; a mount without locks leaves the run's own lock to do it alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator

from nantui.errors import FAILED, UserError
from nantui.run.layout import RunLayout

LONGEST_S = 900.0
POLL_S = 0.1
TAKEN = frozenset({errno.EAGAIN, errno.EACCES})


@contextlib.contextmanager
def sole_doer(layout: RunLayout, longest_s: float = LONGEST_S) -> Iterator[None]:
    """Wait for whoever is at work on the run's files, then be the only one while this lasts.

    Raises UserError when the other does not end in time, or the journal cannot be opened.
    """
    try:
        layout.home.mkdir(exist_ok=True)
        descriptor = _open(layout, os.O_CREAT)
    except OSError as error:
        raise UserError(f"{layout.journal}: {error.strerror}; nothing was done", FAILED) from error
    try:
        until = time.monotonic() + longest_s
        while not take(descriptor):
            if time.monotonic() > until:
                text = f"another process has been at work on it for {longest_s:.0f} s"
                raise UserError(f"{layout.run.name}: {text}; nothing was done", FAILED)
            time.sleep(POLL_S)
        os.set_inheritable(descriptor, True)
        yield
    finally:
        os.close(descriptor)


def is_being_done(layout: RunLayout) -> bool:
    """Tell whether some process is at work on the run's files now."""
    try:
        descriptor = _open(layout)
    except OSError:
        return False
    try:
        return not take(descriptor)
    finally:
        os.close(descriptor)


def _open(layout: RunLayout, flags: int = 0) -> int:
    return os.open(layout.journal, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o666)


def take(descriptor: int) -> bool:
    """Take the lock if it is free; True also where this mount has no locks at all."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in TAKEN
    return True

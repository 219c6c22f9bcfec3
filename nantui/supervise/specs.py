"""A spec that may be acted on: it names an interpreter and a command, so it must be the user's own."""

from __future__ import annotations

import os

from nantui.errors import FAILED, UserError
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec, read_spec


def own_spec(layout: RunLayout) -> Spec | None:
    """Return the spec with what it would run, None where there is none. For the holder of the run's lock.

    Raises UserError when another user wrote it. Where a mount squashes owners, the lock that was just made
    shows whose name everything has.
    """
    mine = {os.getuid(), os.stat(layout.lock).st_uid}
    try:
        owner = os.stat(layout.spec).st_uid
    except OSError:
        return None
    if owner not in mine:
        raise UserError(
            f"{layout.spec} belongs to another user (uid {owner}): the program it names would run as you;"
            " copy the run, look at that file, and start from the copy",
            FAILED,
        )
    return read_spec(layout.spec, trusted=mine)

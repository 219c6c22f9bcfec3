"""A run's quarantine list: images to be left out of its training, without touching the data set.

`RUN/nantui/quarantine.txt` holds one image path a line; lines that begin with `#` are for people. Every
change is in the journal first, with the paths, so that it can be taken back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from nantui.run.files import write_atomic
from nantui.run.journal import Journal, author
from nantui.run.layout import RunLayout
from nantui.run.quarantine import quarantined

BYTES = "bytes:"
HEADER = "# Images that this run leaves out of its training, one path a line. Made by nantui.\n"


def quarantine_add(layout: RunLayout, images: Iterable[str], why: str) -> list[str]:
    """Put images on the list and return those that were not on it. Raises OSError when it cannot be kept."""
    known = quarantined(layout)
    new = [image for image in dict.fromkeys(map(os.path.abspath, images)) if image not in set(known)]
    if new:
        _change(
            layout,
            [*known, *new],
            f"quarantine: {len(new)} added: {why}",
            added=[_for_journal(image) for image in new],
        )
    return new


def quarantine_remove(layout: RunLayout, images: Iterable[str], why: str) -> list[str]:
    """Take images off the list and return those that were on it. Raises OSError when it cannot be kept."""
    known, out = quarantined(layout), set(map(os.path.abspath, images))
    removed = [image for image in known if image in out]
    if removed:
        kept = [image for image in known if image not in out]
        _change(
            layout,
            kept,
            f"quarantine: {len(removed)} removed: {why}",
            removed=[_for_journal(image) for image in removed],
        )
    return removed


def quarantine_undo(layout: RunLayout) -> str | None:
    """Take the newest change of the list back; return what was done, None when there is nothing to undo."""
    changes: list[dict[str, Any]] = []
    for entry in Journal(layout.journal).entries():
        change = entry.get("quarantine")
        if isinstance(change, dict):
            if change.get("undo"):
                changes = changes[:-1]
            else:
                changes.append(change)
    if not changes:
        return None
    added = [_from_journal(name) for name in changes[-1].get("added", [])]
    removed = [_from_journal(name) for name in changes[-1].get("removed", [])]
    kept = [image for image in quarantined(layout) if image not in set(added)]
    text = f"quarantine: undone: {len(added)} taken off, {len(removed)} put back"
    _change(layout, [*kept, *(image for image in removed if image not in kept)], text, undo=True)
    return text


def _for_journal(image: str) -> str:
    """Return a path as JSON can hold it: one that is not UTF-8 as hexadecimal bytes."""
    try:
        image.encode()
    except UnicodeEncodeError:
        return BYTES + os.fsencode(image).hex()
    return image


def _from_journal(name: str) -> str:
    return os.fsdecode(bytes.fromhex(name[len(BYTES) :])) if name.startswith(BYTES) else name


def _change(layout: RunLayout, images: list[str], text: str, **change: Any) -> None:
    """Journal a change, then make it."""
    layout.home.mkdir(parents=True, exist_ok=True)
    Journal(layout.journal).append("note", by=author(), text=text, quarantine=change)
    lines = HEADER + "".join(image + "\n" for image in images)
    write_atomic(layout.quarantine, lines.encode("utf-8", "surrogateescape"))

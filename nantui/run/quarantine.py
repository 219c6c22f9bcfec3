"""A run's quarantine list: images left out of its training, one path a line; the data set is not touched.

`RUN/nantui/quarantine.txt`; lines that begin with `#` are for people, a path with a line break in it is
written as JSON. Every change is in the journal, with the paths, so that it can be taken back. Changes are for
the holder of the run's lock only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

from nantui.run.atomic_files import write_atomic
from nantui.run.events import Note, QuarantineChange, of_kind
from nantui.run.journal import Journal, author
from nantui.run.layout import RunLayout

HEADER = "# Images that this run leaves out of its training, one path a line. Made by nantui.\n"


def quarantined(layout: RunLayout) -> list[str]:
    """Return the images on the list, in its order; none where there is no list.

    A path that is not UTF-8 comes back as Python spells such names (surrogate escapes). Raises OSError, in a
    line for people, for a list that cannot be read: nothing on it may come back unasked.
    """
    try:
        text = layout.quarantine.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return []
    except OSError as error:
        cannot = f"{layout.quarantine}, the images that are left out, cannot be read ({error.strerror})"
        raise OSError(f"{cannot}: make it readable, or move it aside to train on all images") from None
    return [_image_of(line) for line in text.split("\n") if line and not line.startswith("#")]


def quarantine_add(layout: RunLayout, images: Iterable[str], why: str, by: str = "") -> list[str]:
    """Put images on the list and return those that were not on it. Raises OSError when it cannot be kept."""
    known = quarantined(layout)
    new = [image for image in dict.fromkeys(map(os.path.abspath, images)) if image not in set(known)]
    if new:
        _note(layout, f"quarantine: {len(new)} added: {why}", by, added=new)
        _write(layout, [*known, *new])
    return new


def quarantine_undo(layout: RunLayout, by: str = "", why: str = "") -> str | None:
    """Take the newest change back, of those made for `why` alone; return what was done, or None."""
    change = newest_change(layout, why)
    if change is None:
        return None
    kept = [image for image in quarantined(layout) if image not in set(change.added)]
    back = [image for image in change.removed if image not in kept]
    text = f"quarantine: undone: {len(change.added)} taken off, {len(change.removed)} put back"
    _write(layout, [*kept, *back])  # first: one that ends here is made again
    _note(layout, text, by, undo=True)
    return text


def newest_change(layout: RunLayout, why: str = "") -> QuarantineChange | None:
    """Return the change of the list that an undo would take back, None when there is none."""
    changes: list[Note] = []
    for note in of_kind(Journal(layout.journal).events(), Note):
        if note.quarantine is not None:
            changes = changes[:-1] if note.quarantine.undo else [*changes, note]
    return changes[-1].quarantine if changes and changes[-1].text.endswith(why) else None


def _note(layout: RunLayout, text: str, by: str, **change: object) -> None:
    Journal(layout.journal).append("note", by=by or author(), text=text, quarantine=change)


def _line_of(image: str) -> str:
    return json.dumps(image) if {"\n", "\r"} & set(image) else image


def _image_of(line: str) -> str:
    try:
        return str(json.loads(line)) if line.startswith('"') else line
    except ValueError:
        return line


def _write(layout: RunLayout, images: list[str]) -> None:
    lines = HEADER + "".join(f"{_line_of(image)}\n" for image in images)
    write_atomic(layout.quarantine, lines.encode("utf-8", "surrogateescape"))

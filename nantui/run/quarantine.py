"""The images that a run leaves out of its training, one path a line; the data set itself is not touched."""

from __future__ import annotations

from nantui.run.layout import RunLayout


def quarantined(layout: RunLayout) -> list[str]:
    """Return the images on the list, in its order; none where there is no list.

    A path that is not UTF-8 comes back as Python spells such names (surrogate escapes).
    """
    try:
        text = layout.quarantine.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return []
    return [line for line in text.split("\n") if line and not line.startswith("#")]

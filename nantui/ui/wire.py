"""What goes over the wire: only the cells that changed.

Textual sends a widget's line from its first cell on, also when only the last has changed, and once for each
stretch that did; in a header that is 300 bytes for one digit.
"""

from __future__ import annotations

from rich.console import Console
from rich.control import Control
from textual._compositor import ChopsUpdate


class NarrowUpdate(ChopsUpdate):
    """The same update, with each line cut at both ends of what has changed."""

    @classmethod
    def of(cls, update: ChopsUpdate) -> NarrowUpdate:
        """Return `update` in its narrow form."""
        return cls(update.chops, update.spans, update.chop_ends)

    def render_segments(self, console: Console) -> str:
        """Return the bytes for the terminal: move, then the cells, for every stretch."""
        parts = []
        for y, first, last in self.spans:
            for end, (start, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                left, right = max(start, first), min(end, last)
                if strip is not None and left < right:
                    parts += [
                        Control.move_to(left, y).segment.text,
                        strip.crop(left - start, right - start).render(console),
                    ]
        return "".join(parts)

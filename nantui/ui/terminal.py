"""End the cockpit when its terminal is gone, also where nobody sends SIGHUP.

A terminal that is closed normally hangs up its session. Where SIGHUP is ignored (nohup) or the terminal is
not the controlling one, reading from it gives end of file at once, for ever, and Textual's input loop would
keep a core busy for nobody. poll() without any wanted event wakes up for a hang-up only, and costs nothing.

What goes over the wire: only the cells that changed.

Textual sends a widget's line from its first cell on, also when only the last has changed, and once for each
stretch that did; in a header that is 300 bytes for one digit.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable

from rich.console import Console
from rich.control import Control
from textual._compositor import ChopsUpdate

FAREWELL_S = 3.0
"""How long an orderly end may take; it writes to a terminal that is not there."""


def end_with_terminal(descriptor: int, leave: Callable[[], object]) -> threading.Thread:
    """Call `leave` once the terminal at `descriptor` is gone; what does not end then is ended at once."""

    def wait() -> None:
        poller = select.poll()
        poller.register(descriptor, 0)
        poller.poll()
        timer = threading.Timer(FAREWELL_S, os._exit, (128 + signal.SIGHUP,))
        timer.daemon = True
        timer.start()
        leave()

    thread = threading.Thread(target=wait, name="nantui-hangup", daemon=True)
    thread.start()
    return thread


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

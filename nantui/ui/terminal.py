"""End the cockpit when its terminal is gone, also where nobody sends SIGHUP.

A terminal that is closed normally hangs up its session. Where SIGHUP is ignored (nohup) or the terminal is
not the controlling one, reading from it gives end of file at once, for ever, and Textual's input loop would
keep a core busy for nobody. poll() without any wanted event wakes up for a hang-up only, and costs nothing.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable

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

"""Open the cockpit on a run, or on all runs below a directory (default: here)."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from nantui.commands import common
from nantui.errors import UserError

WEB_DRIVER = "textual.drivers.web_driver:WebDriver"
"""What textual-serve sets: the screen goes to a browser, through pipes instead of a terminal."""

FAREWELL_S = 3.0
"""How long an orderly end may take; it writes to a terminal that is not there."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_directory(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show the cockpit until it is left. Raises UserError without a terminal or without a run."""
    top = arguments.directory.expanduser()
    runs = runs_to_show(top)
    in_browser = os.environ.get("TEXTUAL_DRIVER", "") == WEB_DRIVER
    if not in_browser and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("the cockpit needs a terminal; `nantui status` prints the same for scripts")
    # Hundreds of modules come in: looking through them for garbage is a tenth of the time to the first frame.
    gc.disable()
    from nantui.ui.app import CockpitApp
    from nantui.ui.model.backend import Backend

    backend = Backend(arguments.python, arguments.take_over)
    app = CockpitApp(top.resolve(), runs, backend, ascii_only=arguments.ascii, read_only=arguments.read_only)
    app.narrate = getattr(arguments, "narrate", None)
    if in_browser:
        app.run()
        return app.return_code or 0
    end_with_terminal(sys.stdin.fileno(), lambda: app.call_from_thread(app.exit, 0))
    with kept_title():
        app.run()
    return app.return_code or 0


def end_with_terminal(descriptor: int, leave: Callable[[], object]) -> threading.Thread:
    """Call `leave` once the terminal at `descriptor` is gone; what does not end then is ended at once.

    A terminal that is closed normally hangs up its session. Where SIGHUP is ignored (nohup) or the terminal
    is not the controlling one, reading from it gives end of file at once, for ever, and Textual's input loop
    would keep a core busy for nobody. poll() without any wanted event wakes up for a hang-up only, and costs
    nothing.
    """

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


@contextlib.contextmanager
def kept_title() -> Iterator[None]:
    """Have the terminal keep its window's title and put it back; one that cannot ignores this."""
    from nantui.ui.app import has_titles

    if has_titles():
        print("\x1b[22;2t", end="", flush=True)
    try:
        yield
    finally:
        if has_titles():
            with contextlib.suppress(OSError):  # the terminal may be gone by now
                print("\x1b[23;2t", end="", flush=True)


def runs_to_show(top: Path) -> list[Path]:
    """Return the runs in and below `top`. Raises UserError when there is none."""
    from nantui.run.layout import RunLayout, find_runs, require_run

    if not top.is_dir() or RunLayout(top).looks_like_run() or top.name == "weights":
        return [require_run(top).run]
    runs = [path.resolve() for path in find_runs(top)]
    if not runs:
        from nantui.labels.data_set import ultralytics_directory

        theirs = ultralytics_directory("runs")
        found = f"Ultralytics puts runs into {theirs} (its setting runs_dir): {common.look_at(theirs)}"
        others = "give a run directory, start one with `nantui train`, or see one made by `nantui demo`"
        hint = found if next(find_runs(theirs), None) else others
        raise UserError(f"{top}: no training run in or below it; {hint}")
    return runs

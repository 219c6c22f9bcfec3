"""What every screen has: a line on top, a way back, a line to say something in, and threads that look at
files and devices, so that a dead disk or a slow driver never holds up a key.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.screen import Screen

from nantui.ui.context import InCockpit, RunView, Seen, in_words
from nantui.ui.styled_text import Line
from nantui.ui.widgets.dialog_controls import Field
from nantui.ui.widgets.keybar import BACK, HELP, MOVING, Key, KeyBar, Speaking, offered
from nantui.ui.widgets.line_widget import Title
from nantui.ui.widgets.list_view import Listing


class BaseScreen(InCockpit, Speaking, Screen[None]):
    """A full screen; Esc goes back where there is something to go back to."""

    AUTO_FOCUS = "*"
    BINDINGS = [Binding("escape", "back", "back", show=False), *MOVING]
    KEYS: ClassVar[tuple[Key, ...]] = (HELP, BACK)
    """What the key bar offers before the screen's own keys, and after them."""
    LAST_KEYS: ClassVar[tuple[Key, ...]] = ()
    FIELD: ClassVar[str | None] = None
    """What a line to type into, on the key bar, says while it is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.watchers: list[Watcher] = []
        self.on_top = Title(self.heading)

    def compose(self) -> ComposeResult:
        yield self.on_top
        yield from self.body()
        with Container(id="foot"):
            if self.FIELD is not None:
                yield Field(placeholder=self.FIELD)
            yield KeyBar((*self.KEYS, *offered(self), *self.LAST_KEYS))

    def on_idle(self) -> None:
        """Whatever has happened, the lines on top say how it is now."""
        if self.on_top.is_mounted:
            self.on_top.redraw()

    def heading(self, width: int) -> list[Line]:
        """Return the lines on top."""
        return []

    def body(self) -> ComposeResult:
        """Yield what stands between them and the key bar."""
        yield from ()

    def watch_with(self, watcher: Watcher) -> None:
        """Start a thread that ends with the screen."""
        self.watchers.append(watcher)
        watcher.start()

    def on_unmount(self) -> None:
        for watcher in self.watchers:
            watcher.stop()

    def may(self, reason: str | None = None, *, to: str = "act") -> bool:
        """Tell whether a change can be made: not read-only, nor for a `reason`; says why not."""
        if self.cockpit.read_only:
            reason = f"read-only: open it without --read-only to {to}"
        if reason:
            self.say(reason, "warn")
        return not reason

    def ask(self, dialog: Screen[Any], act: Callable[[], None]) -> None:
        """Ask, and `act` once it was confirmed."""
        self.app.push_screen(dialog, lambda confirmed: act() if confirmed else None)

    def action_open_field(self) -> None:
        for field in self.query("Field"):
            field.display = True
            field.focus()

    def close_field(self) -> bool:
        """Put the input line away and go back to the list; False where none is open."""
        open_ones = [field for field in self.query("Field") if field.display]
        for field in open_ones:
            field.display = False
            self.query(Listing).first().focus()
        return bool(open_ones)

    def action_back(self) -> None:
        """Put the input line away, or return to the screen before."""
        if self.close_field():
            return
        if len(self.app.screen_stack) > 2:
            self.app.pop_screen()
        else:
            self.say("this is the first screen; q leaves")


class Watcher(threading.Thread):
    """Looks every `interval` s until stopped, or at once after `hurry`; `take` is called with each thing that
    `look` yields. A daemon: `q` gives the terminal back at once, also while a read is stuck.
    """

    def __init__(
        self, screen: BaseScreen, what: object, interval: float,
        look: Callable[[], Iterable[tuple[Any, ...]]], take: Callable[..., object], *, latest: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(name=f"nantui-{what}", daemon=True)
        self.screen, self.what, self.interval = screen, what, interval
        self.look, self.take, self.latest = look, take, latest
        self._wake = threading.Event()
        self._stopped = False

    def run(self) -> None:
        while not self._stopped:
            began = time.monotonic()
            try:
                for seen in self.look():
                    if self._stopped:
                        return
                    self.screen.post_message(Seen(self.take, *seen, latest=self.latest))
            except Exception as error:
                # One bad look must not end all later ones; the person sees what it stumbled over.
                text = f"cannot read {self.what}: {in_words(error)}"
                self.screen.post_message(Seen(self.screen.say, text, "bad"))
            # A look that takes long is followed by a longer rest, so that reading never fills a core.
            spent = time.monotonic() - began
            self._wake.wait(max(self.interval, spent * 4))
            self._wake.clear()

    def hurry(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        """End after the look that is under way; nobody waits for it."""
        self._stopped = True
        self._wake.set()


class RunPage(BaseScreen):
    """A screen about the run whose own screen is below it."""

    def __init__(self, over: RunView) -> None:
        super().__init__()
        self.over = over

"""The only place that leans on what Textual keeps to itself; a release may change each of these names.

tests/ui/test_textual_internals.py holds each of them, and that no other module uses one.
"""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.control import Control
from textual._compositor import ChopsUpdate
from textual.app import App
from textual.events import Event, Key, Paste
from textual.geometry import Size
from textual.message_pump import MessagePump
from textual.screen import Screen
from textual.scroll_view import ScrollView
from textual.strip import Strip

LONGEST_KEY_S = 1.0
"""A key that is still on its way after this holds up no other."""


class NarrowUpdate(ChopsUpdate):
    """The cells of a screen that changed, each line cut at both ends of what has changed.

    Textual sends a widget's line from its first cell on, also when only the last has changed, and once for
    each stretch that did; in a header that is 300 bytes for one digit.
    """

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


class NarrowApp(App[int]):
    """An app that sends only the cells that changed, and takes one key after another.

    Textual takes a letter where the focus is, but a key that is bound in the app, later: of keys that come in
    one piece `ctrl+u` would delete the digits behind it, and what follows a key that opens a field would go
    to the list.
    """

    _typed: tuple[Event, ...] = ()
    _key_until = 0.0

    async def on_event(self, event: Event) -> None:
        if not isinstance(event, (Key, Paste)) or event.is_forwarded:
            await super().on_event(event)
            return
        self._typed += (event,)
        if time.monotonic() > self._key_until:
            await self._take_typed()

    async def _take_typed(self) -> None:
        """Give the next key away, and follow it up to the app; then what it caused there, e.g. a dialog."""
        event, self._typed = self._typed[0], self._typed[1:]
        self._key_until = time.monotonic() + LONGEST_KEY_S
        way: list[MessagePump] = [*(self.focused or self.screen).ancestors_with_self]
        await super().on_event(event)
        await self._follow(way, 1)

    async def _follow(self, way: list[MessagePump], again: int) -> None:
        """Come to each of these in its turn, behind what waits there already."""
        while way:
            if way.pop(0).call_later(self._follow, way, again):
                return
        if again:
            await self._follow([*(self.focused or self.screen).ancestors_with_self], again - 1)
        elif self._typed:
            await self._take_typed()
        else:
            self._key_until = 0.0

    def begin_with(self, theme: str) -> None:
        """Take a theme before the app runs: set like any other, it has all styles parsed a second time."""
        self.set_reactive(App.theme, theme)
        self.stylesheet.set_variables(self.get_css_variables())
        self._refresh_truecolor_filter(self.ansi_theme)
        self.set_class(self.current_theme.dark, "-dark-mode", update=False)
        self.set_class(not self.current_theme.dark, "-light-mode", update=False)

    def _display(self, screen: Screen[Any], renderable: Any) -> None:
        if isinstance(renderable, ChopsUpdate):
            renderable = NarrowUpdate(renderable.chops, renderable.spans, renderable.chop_ends)
        super()._display(screen, renderable)

    async def _on_key(self, event: Key) -> None:
        """Tell what no widget, screen or binding has a use for."""
        event.prevent_default()
        if not await self._check_bindings(event.key):
            self.has_no_use_for(event)

    def has_no_use_for(self, event: Key) -> None:
        """Say that a key does nothing here."""

    def send(self, sequence: str) -> None:
        if self._driver is not None and not self.is_headless:
            self._driver.write(sequence)


SHAPING_S = 2.0
"""How long a screen takes to take shape at most."""


class HeldScreen(Screen[None]):
    """A screen that paints nothing while it is `held`, and only what has changed below a dialog."""

    held = False

    def let_go(self) -> None:
        """Paint the whole screen, and from now on what changes."""
        if self.held:
            self.held = False
            self.app.screen.refresh()

    def _compositor_refresh(self) -> None:
        """Paint what has changed; below a dialog only that, together with what has changed in the dialog.

        Textual 8.2 has the dialog paint the regions that changed below it, and forgets what has changed in
        the dialog itself since its last turn; and it takes all of a screen below for changed from its first
        change on: at each tick of a clock, 47 kB.
        """
        top, own = self.app.screen, self._compositor._dirty_regions
        if self.held:
            return
        if self is top or self.app.is_inline:
            super()._compositor_refresh()
        elif own and self in self.app._background_screens:
            # Empty before the first layout of a dialog, which paints it all.
            seen = top._compositor.size.region
            changed = {cut for region in own if (cut := region.intersection(seen))}
            for screen in (self, top):
                screen._set_dirty(*changed)
            top._compositor._dirty_regions |= changed
            own.clear()
            self._dirty_widgets.clear()
            if not (top._layout_required or self.app._batch_count):
                top._compositor.update_widgets(top._dirty_widgets)
                top._compositor_refresh()


def update_scrollbars(view: ScrollView, size: Size) -> None:
    """Tell the scroll bars of `view` that its content has this size now, without another layout."""
    view._scroll_update(size)


def screen_rows(app: App[object]) -> list[Strip]:
    """Return what is on the screen, a strip a row."""
    return app.screen._compositor.render_strips()

"""A letter on each place of the screen that is open: panels, charts, fields; the letter goes there."""

from __future__ import annotations

from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.events import Key
from textual.screen import Screen
from textual.widget import Widget

from nantui.ui.dialogs.base import Dialog
from nantui.ui.widgets.chart_wall import ChartWall

LETTERS, FOLLOW_S = "asdfjklghqwertyuiopzxcvbnm", 0.2  # those under the fingers first


def places(screen: Screen[Any]) -> dict[str, Widget]:
    """Return what can have the focus on `screen` by its letter, of a wall of charts each chart."""
    walls = ((one, one.shown_charts if isinstance(one, ChartWall) else [one]) for one in screen.focus_chain)
    found = (place for wall, charts in walls for place in charts or [wall] if place.region)
    return dict(zip(LETTERS, found, strict=False))


class Letter(Widget):
    """A letter over the first cells of its place."""

    def __init__(self, letter: str) -> None:
        super().__init__(classes="jump")
        self.letter = letter

    def render(self) -> Text:
        return Text(f" {self.letter} ")


class JumpDialog(Dialog):
    """Shows each letter over the first cells of its place; any other key closes it."""

    def __init__(self, over: Screen[Any]) -> None:
        super().__init__()
        self.over, self.places = over, places(over)

    def compose(self) -> ComposeResult:
        for letter in self.places:
            yield Letter(letter)

    def on_mount(self) -> None:
        self.call_after_refresh(self._put)
        self.set_interval(FOLLOW_S, self._put)

    def _put(self) -> None:
        """Put the letters where their places are: the screen below may be laid out anew."""
        for label, place in zip(self.query(Letter), self.places.values(), strict=False):
            label.display, label.styles.offset = bool(place.region), place.region.offset

    def on_key(self, event: Key) -> None:
        event.stop()
        self.dismiss(None)
        place = self.places.get(event.character or "")
        if place is not None and isinstance(wall := place.parent, ChartWall) and place in wall.shown_charts:
            self.over.set_focus(wall)
            wall.chosen = wall.shown_charts.index(place)
        elif place is not None:
            self.over.set_focus(place)
        elif event.key != "escape":
            self.say("jump: no place has this letter")

"""The bottom line: the keys that work now, or for a few seconds what there is to say."""

from __future__ import annotations

from nantui.ui.format import clean
from nantui.ui.ink import Line, fit, width
from nantui.ui.widgets.lines import LinesWidget

SECONDS_SHOWN = 6.0


class KeyBar(LinesWidget):
    """`keys` are (key, label, possible), the most important first."""

    def __init__(self, keys: tuple[tuple[str, str, bool], ...] = ()) -> None:
        super().__init__(id="keybar")
        self.keys = keys
        self._said: Line = []

    def show(self, keys: tuple[tuple[str, str, bool], ...]) -> None:
        """Offer these keys."""
        if keys != self.keys:
            self.keys = keys
            self.redraw()

    def say(self, text: str, ink: str = "info", seconds: float = SECONDS_SHOWN) -> None:
        """Show a message in place of the keys for a while."""
        said: Line = [(f" {clean(text)}", ink)]
        self._said = said
        self.redraw()
        self.set_timer(seconds, lambda: self._forget(said))

    def _forget(self, said: Line) -> None:
        if self._said is said:
            self._said = []
            self.redraw()

    def build(self, width_: int, height: int) -> list[Line]:
        if self._said:
            return [fit(self._said, width_)]
        line: Line = []
        for key, label, possible in self.keys:
            item: Line = [
                (f" {key}", "key" if possible else "faint"),
                (f" {label} ", "muted" if possible else "faint"),
            ]
            if width(line) + width(item) > width_:
                break
            line += item
        return [line]

"""The bottom line: the keys that work now, and above them for a few seconds what there is to say; what must
not be missed stands there whole. A screen speaks through it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from rich.cells import cell_len
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.events import Click
from textual.screen import Screen

from nantui.ui.actions import KEY_NAMES
from nantui.ui.format import clean
from nantui.ui.styled_text import Line, fit, width, wrap
from nantui.ui.widgets.line_widget import LinesWidget

if TYPE_CHECKING:
    from nantui.ui.model.command_progress import CommandOutcome

SECONDS_SHOWN, REFUSAL_S, MOST_LINES, ROOMY = 6.0, 60.0, 6, 32


Key = tuple[str, str, bool]
NAMES = {shown: name for name, shown in KEY_NAMES.items()}
HELP, COMMANDS = ("?", "help", True), (":", "commands", True)
BACK, QUIT, JUMP = ("Esc", "back", True), ("q", "quit", True), ("J", "jump", True)
MOVING: list[BindingType] = [
    Binding("slash", "app.find", "find a row of the list by its text", show=False),
    Binding("tab", "app.focus_next", "next panel", show=False),
    Binding("shift+tab", "app.focus_previous", "previous panel", show=False),
]
"""Between and within the panels of a screen or dialog."""


def offered(screen: DOMNode) -> list[Key]:
    """Return the keys that a screen's own bindings show, in their order."""
    return [
        (one.key_display or KEY_NAMES.get(key := one.key.split(",")[0], key), one.description, True)
        for one in vars(type(screen))["BINDINGS"]
        if one.show
    ]


class KeyBar(LinesWidget):
    """`keys` are (key, label, possible), the most important first."""

    def __init__(self, keys: tuple[Key, ...] = ()) -> None:
        super().__init__(id="keybar")
        self.keys = keys
        self._said: tuple[str, str, int] | None = None
        self.hint = ""

    def tell(self, hint: str) -> None:
        """Say this whenever there is nothing else to say."""
        if hint != self.hint:
            self.hint = hint
            self._take_room()

    def show(self, keys: tuple[Key, ...]) -> None:
        if keys != self.keys:
            self.keys = keys
            self.redraw()

    def say(
        self, text: str, ink: str = "info", seconds: float = SECONDS_SHOWN, *, whole: bool = False
    ) -> None:
        """Show a message above the keys for a while: one line, or with `whole` all of it."""
        said = self._said = (clean(text, 1600), ink, MOST_LINES if whole else 1)

        def forget() -> None:
            if self._said is said:
                self._said = None
                self._take_room()

        self._take_room()
        self.set_timer(seconds, forget)

    def _take_room(self) -> None:
        """Be as high as what is said and the keys; a large screen keeps a line for it: nothing moves."""
        kept = 2 if self.app.size.height >= ROOMY else 1
        lines = max(kept, 1 + len(self._told(self.size.width)))
        if self.size.height != lines:
            self.styles.height = lines
        self.redraw()

    def _told(self, cells: int) -> list[Line]:
        text, ink, most = self._said or (self.hint, "info", MOST_LINES)
        lines = [[(text, ink)]] if most == 1 else wrap(text, max(10, cells - 2), ink)
        return [fit([(" ", ink), *line], cells) for line in lines[:most] if text]

    def on_resize(self) -> None:
        super().on_resize()
        self._take_room()

    def build(self, width_: int, height: int) -> list[Line]:
        told = self._told(width_)
        return [*told, *([[]] * (height - 1 - len(told))), self._keys(width_)][-height:]

    def on_click(self, event: Click) -> None:
        start = 0
        for key, label, _ in self.keys if event.y == self.size.height - 1 else ():
            end = start + cell_len(key) + cell_len(label) + 3
            if start <= event.x < end:
                name = key.split()[0]
                self.app.simulate_key(NAMES.get(name, name))
            start = end

    def _keys(self, width_: int) -> Line:
        line: Line = []
        for key, label, possible in self.keys:
            item: Line = [
                (f" {key}", "key" if possible else "faint"),
                (f" {label} ", "muted" if possible else "faint"),
            ]
            if width(line) + width(item) > width_:
                break
            line += item
        return line


class Speaking:
    """Says things in the key bar of a screen."""

    def say(self, text: str, ink: str = "info", seconds: float = SECONDS_SHOWN) -> None:
        for screen in reversed(cast(Screen[None], self).app.screen_stack):
            if bars := screen.query(KeyBar):
                bars.first().say(text, ink, seconds)
                break

    def hear(self, outcome: CommandOutcome) -> None:
        """Learn how a command ended. One that was not carried out is said whole, and for long."""
        if not outcome.ok:
            for bar in cast(Screen[None], self).query(KeyBar):
                bar.say(outcome.refusal(), "bad", REFUSAL_S, whole=True)

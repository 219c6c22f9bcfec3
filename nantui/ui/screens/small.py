"""What is said when the terminal is too small to draw a cockpit in."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.screen import ModalScreen

from nantui.ui.ink import wrap
from nantui.ui.screens.base import EVERYWHERE
from nantui.ui.widgets.title import Title

SMALLEST = (70, 20)


class TooSmall(ModalScreen[None]):
    """Goes away by itself when there is room again."""

    BINDINGS = EVERYWHERE

    def compose(self) -> ComposeResult:
        yield Title(
            lambda width: wrap(
                f"nantui needs {SMALLEST[0]} x {SMALLEST[1]}, this terminal is {self.app.size.width} x "
                f"{self.app.size.height}. Enlarge it, or press q; the training goes on.", width,
            ),
            id="too-small",
        )  # fmt: skip


def fits(width: int, height: int) -> bool:
    """Tell whether the screens can be drawn in this many cells."""
    return width >= SMALLEST[0] and height >= SMALLEST[1]

"""What happened to the run, as sentences, and the last lines of its output; the newest is at the bottom."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nantui.ui.format import clean, without_pictures
from nantui.ui.model.timeline import Sentence
from nantui.ui.styled_text import Line, fit, hanging, spread
from nantui.ui.widgets.line_widget import LinesWidget
from nantui.ui.widgets.list_view import Listing

FEW_ROWS = 5
NAN = re.compile(r"(?<![a-z])(nan|inf)(?![a-z])", re.IGNORECASE)
LONG_PATH = re.compile(r"(?<![^\s('\"=])/(?:[^\s/:]+/)+([^\s/:]+/[^\s/:]+)")


class Timeline(Listing):
    """Follows the newest entry until the cursor is moved up; where few lines fit, each entry has one."""

    follows = True

    def __init__(self) -> None:
        super().__init__(id="timeline", header=[("timeline", "title")], empty="nothing has happened yet")
        self._sentences: Sequence[Sentence] = ()
        self._lines_of: list[tuple[int, Line]] = []

    def show_sentences(self, sentences: Sequence[Sentence]) -> None:
        """Show these, oldest first."""
        self._sentences = sentences
        self._wrap()

    def _wrap(self) -> None:
        """Break sentences into as many lines as the width asks for, or cut them where few lines fit."""
        region = self.scrollable_content_region
        width, low = region.width - 1, region.height - self.head < FEW_ROWS
        if width <= 0:
            return
        self._lines_of = [
            (index, fit(line, width))
            for index, sentence in enumerate(self._sentences)
            for line in in_lines(sentence, width, low)
        ]
        self.show(range(len(self._lines_of)), lambda row, cells: self._lines_of[row][1])

    def on_resize(self) -> None:
        self._wrap()
        super().on_resize()

    @property
    def sentence(self) -> Sentence | None:
        return self._sentences[self._lines_of[self.cursor][0]] if self.cursor < len(self._lines_of) else None


class Output(LinesWidget):
    """Newest line at the bottom."""

    def __init__(self) -> None:
        super().__init__(id="output", classes="panel")
        self.tail: tuple[str, ...] = ()

    def show(self, tail: tuple[str, ...]) -> None:
        if tail != self.tail:
            self.tail = tail
            self.redraw()

    def build(self, width: int, height: int) -> list[Line]:
        head: Line = [("output", "title"), ("   o opens it", "faint")]
        lines = [spread(head, [], width, self.glyphs.rule)]
        for text in self.tail[-(height - 1) :] if height > 1 else ():
            text = " ".join(without_pictures(clean(text, 600)).split())
            lines.append(fit([(text, "bad" if NAN.search(text) else "muted")], width))
        return lines


def in_short(text: str) -> str:
    """Return `text` with the last two parts of each long path; all of it is one Enter away."""
    return LONG_PATH.sub(r"\1", text)


def in_lines(sentence: Sentence, width: int, low: bool = False) -> list[Line]:
    """Return a sentence after its time of day, later lines under the first; with `low` all of it in one."""
    clock = sentence.clock[:5] if low or width < 44 else sentence.clock
    text = in_short(sentence.text)
    head: Line = [(f"{clock} ", "muted")]
    return [[*head, (text, sentence.ink)]] if low else hanging(head, text, width, sentence.ink)

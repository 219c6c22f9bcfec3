"""What happened to the run, as sentences, newest at the bottom."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nantui.ui.model.timeline import Sentence
from nantui.ui.styled_text import Line, fit, hanging, wrap
from nantui.ui.widgets.list_view import Listing

FEW_ROWS = 5
LONG_PATH = re.compile(r"(?<![^\s('\"=])/(?:[^\s/:]+/)+([^\s/:]+/[^\s/:]+)")


class Timeline(Listing):
    """Follows the newest entry until the cursor is moved up; where few lines fit, each entry has one."""

    follows = True

    def __init__(self) -> None:
        super().__init__(id="timeline", header=[("timeline", "title")], empty="nothing has happened yet")
        self._sentences: Sequence[Sentence] = ()
        self._lines_of: list[tuple[int, Line]] = []
        self._wrapped_for = (0, False)

    def show_sentences(self, sentences: Sequence[Sentence]) -> None:
        """Show these, oldest first."""
        self._sentences = sentences
        self._wrap()

    def _wrap(self) -> None:
        """Break sentences into as many lines as the width asks for."""
        width, low = self._wrapped_for = self._shape()
        if not width:
            return
        self._lines_of = [
            (index, line)
            for index, sentence in enumerate(self._sentences)
            for line in ([in_one_line(sentence, width)] if low else in_lines(sentence, width))
        ]
        self.show(range(len(self._lines_of)), lambda row, cells: self._lines_of[row][1])

    def _shape(self) -> tuple[int, bool]:
        """Return the width, and whether there is no room for sentences of several lines."""
        region = self.scrollable_content_region
        return region.width - 1, region.height - self.head < FEW_ROWS

    def on_resize(self) -> None:
        if self._shape() != self._wrapped_for:
            self._wrap()
        super().on_resize()

    @property
    def sentence(self) -> Sentence | None:
        """The entry under the cursor."""
        return self._sentences[self._lines_of[self.cursor][0]] if self.cursor < len(self._lines_of) else None


def in_one_line(sentence: Sentence, width: int) -> Line:
    """Return the beginning of a sentence after its time of day."""
    return fit([(f"{sentence.clock[:5]} ", "muted"), (in_short(sentence.text), sentence.ink)], width)


def in_short(text: str) -> str:
    """Return `text` with the last two parts of each long path; all of it is one Enter away."""
    return LONG_PATH.sub(r"\1", text)


def in_lines(sentence: Sentence, width: int) -> list[Line]:
    """Return a sentence after its time of day, later lines under the first."""
    clock = sentence.clock if width >= 44 else sentence.clock[:5]
    words = wrap(in_short(sentence.text), max(8, width - len(clock) - 1), sentence.ink)
    return hanging((f"{clock} ", "muted"), words)

"""What happened to the run, as sentences, newest at the bottom."""

from __future__ import annotations

from nantui.ui.data.sentences import Sentence
from nantui.ui.ink import Line, fit
from nantui.ui.widgets.listing import Listing


class Timeline(Listing):
    """Follows the newest entry until the cursor is moved up."""

    def __init__(self) -> None:
        super().__init__(id="timeline", header=[("timeline", "title")], empty="nothing has happened yet")
        self._sentences: list[Sentence] = []
        self.follow = True

    def show_sentences(self, sentences: list[Sentence]) -> None:
        """Show these, oldest first."""
        self._sentences = sentences
        self.show(range(len(sentences)), self._row)

    @property
    def sentence(self) -> Sentence | None:
        """The entry under the cursor."""
        return self._sentences[self.cursor] if 0 <= self.cursor < len(self._sentences) else None

    def _row(self, index: int, width: int) -> Line:
        sentence = self._sentences[index]
        clock = sentence.clock if width >= 40 else sentence.clock[:5]
        return fit([(f"{clock} ", "muted"), (sentence.text, sentence.ink)], width)

    def go(self, row: int) -> None:
        super().go(row)
        self.follow = self.cursor >= self.rows - 1

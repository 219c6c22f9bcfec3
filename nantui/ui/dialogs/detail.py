"""Everything that is known about one thing: a checkpoint's findings, an entry of the timeline."""

from __future__ import annotations

from collections.abc import Callable

from rich.cells import chop_cells
from textual.app import ComposeResult
from textual.containers import Container

from nantui.run.atomic_files import to_json
from nantui.run.events import document_of
from nantui.ui.dialogs.base import Dialog
from nantui.ui.format import clean, number, size
from nantui.ui.model.checkpoint_rows import Row
from nantui.ui.model.timeline import Sentence
from nantui.ui.styled_text import Line, hanging, wrap
from nantui.ui.widgets.list_view import Document
from nantui.words import count


class DetailDialog(Dialog):
    """Shows a text; Esc or Enter closes it."""

    BINDINGS = [("enter", "cancel", "close")]

    def __init__(self, title: str, write: Callable[[int], list[Line]]) -> None:
        super().__init__()
        self.heading, self._write = title, write

    def compose(self) -> ComposeResult:
        with Container(classes="dialog tall"):
            yield Document(write=self._whole)

    def _whole(self, width: int) -> list[Line]:
        title: Line = [(clean(self.heading, width), "title"), ("   Esc closes, j and k scroll", "faint")]
        return [title, [], *self._write(width)]


def about_checkpoint(row: Row, width: int) -> list[Line]:
    """Return everything the scan says about a checkpoint."""
    verdict = row.verdict
    lines: list[Line] = []
    for name, value, ink in _facts(row):
        lines += hanging([(f"{name:<12}", "muted")], value, width, ink)
    if verdict is None:
        return [*lines, [], [("not scanned yet", "muted")]]
    found = count(len(verdict.findings), "finding") if verdict.findings else "nothing wrong was found"
    lines += [[], [(found, "title")]]
    for finding in verdict.findings:
        kind = (f"{clean(finding.kind, 20):<16}", row.ink)
        lines.append([kind, (clean(finding.where, width - 18), "text")])
        lines += hanging([("  ", "text")], clean(finding.detail, 600), width, "muted")
    return lines


def _facts(row: Row) -> list[tuple[str, str, str]]:
    verdict = row.verdict
    facts = [
        ("badge", row.badge or "waiting to be scanned", row.ink),
        ("epoch", "-" if row.epoch is None else f"{row.epoch} (counted from 1)", "text"),
        ("size", size(row.checkpoint.size), "text"),
    ]
    if verdict is None:
        return facts
    resume = "yes" if verdict.resumable else "after a repair" if verdict.repairable else "no"
    why = "" if verdict.resumable else clean(verdict.why_not_resumable, 200)
    return [
        *facts,
        ("resume", f"{resume}: {why}" if why else resume, "good" if verdict.resumable else "warn"),
        ("fitness", number(verdict.fitness), "text"),
        ("saved", clean(verdict.date or "-", 40), "text"),
        ("ultralytics", clean(verdict.version or "-", 40), "text"),
        ("scanned in", f"{verdict.seconds:.2f} s", "muted"),
    ]


def about_sentence(sentence: Sentence, width: int) -> list[Line]:
    """Return an entry of the timeline, whole."""
    lines: list[Line] = [*wrap(f"{sentence.clock}  {sentence.text}", width, sentence.ink), []]
    for line in to_json(document_of(sentence.event), indent=2).split("\n"):
        shown = clean(line.replace(" ", "\u2007"), 4000).replace("\u2007", " ")
        lines += [[(part, "muted")] for part in chop_cells(shown, max(1, width)) or [""]]
    return lines

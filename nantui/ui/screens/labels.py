"""Errors in the labels of the run's data set, by kind, with the lines; nothing in the data set is changed."""

from __future__ import annotations

import os
from functools import partial

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container

from nantui.labels.problem_kinds import KINDS
from nantui.labels.report import Issue, LabelReport
from nantui.ui.context import RunView, Seen
from nantui.ui.dialogs.confirm import ConfirmDialog
from nantui.ui.format import clean
from nantui.ui.glyphs import meter
from nantui.ui.screens.base import RunPage
from nantui.ui.styled_text import Line, column, fit
from nantui.ui.widgets.keybar import BACK, HELP, QUIT
from nantui.ui.widgets.list_view import Listing
from nantui.words import count

SEVERITY_INKS = {"error": "bad", "warning": "warn", "note": "info"}


class LabelsScreen(RunPage):
    """Kinds on top, the lines of the one under the cursor below."""

    BINDINGS = [
        Binding("Q", "quarantine", "quarantine", tooltip="leave the images with errors out of the training"),
        Binding("u", "undo", "undo it", tooltip="take the last change of the quarantine list back"),
        Binding("w", "write", "write CSV", tooltip="write all findings as CSV beside the run"),
    ]
    KEYS, LAST_KEYS = (HELP, BACK, ("Tab", "kinds/lines", True)), (QUIT,)
    report: LabelReport | None = None
    problem = ""
    counted = (0, 0)

    def __init__(self, over: RunView) -> None:
        super().__init__(over)
        self.kinds = Listing(id="kinds", header=[("kinds", "title")], empty="reading label files..")
        self.lines = Listing(id="lines", header=[("lines", "title")], empty="")

    def body(self) -> ComposeResult:
        with Container(id="label-lists"):
            yield self.kinds
            yield self.lines

    def on_mount(self) -> None:
        # Drawn first: reading a data set takes the processor from drawing.
        check = partial(self.cockpit.backend.labels, self.over.run_path, self._count)
        self.call_after_refresh(self.find_out, check, self._take)

    def _count(self, done: int, total: int) -> bool:
        """Called from the checking thread; a true answer stops it."""
        if self.is_running:
            self.post_message(Seen(self._show_count, done, total))
        return not self.is_running

    def _show_count(self, done: int, total: int) -> None:
        self.counted = (done, total)

    def _take(self, report: LabelReport | None, problem: str) -> None:
        self.report, self.problem = report, problem
        self.kinds.empty = self.problem or "nothing is wrong with the labels"
        rows = list(self.report.counts.items()) if self.report is not None else []
        self.kinds.show([name for name, _ in rows], lambda row, width: kind_line(rows[row], width))
        self._show_lines()

    def heading(self, width: int) -> list[Line]:
        if self.problem:
            return [[("labels ", "title"), (clean(self.problem, 300), "bad")]]
        if self.report is not None:
            return [[("labels ", "title"), *headline(self.report)]]
        done, total = self.counted
        if not total:
            return [[("labels ", "title"), ("checking: looking for the data set's files..", "info")]]
        bar = meter(done / total, 30, self.cockpit.glyphs)
        return [[("labels ", "title"), *bar, (f"  {done:,} / {total:,} files", "muted")]]

    def on_listing_moved(self, message: Listing.Moved) -> None:
        if message.listing is self.kinds:
            self._show_lines()

    def _show_lines(self) -> None:
        kind = str(self.kinds.key)
        effect = f"   Ultralytics {clean(KINDS[kind].ultralytics, 200)}" if kind in KINDS else ""
        issues = [one for one in (self.report.issues if self.report else ()) if one.kind == kind]
        self.lines.header = [("lines", "title"), (f"   {len(issues):,}", "muted"), (effect, "info")]
        self.lines.show(range(len(issues)), lambda row, width: issue_line(issues[row], width))

    def _checked(self) -> LabelReport | None:
        """Return the report where something may be done with it; says why not."""
        may = self.may("the check is not done yet" if self.report is None else "", to="write")
        return self.report if may else None

    def action_quarantine(self) -> None:
        """Find the images with errors that the training does not leave out yet, and ask."""
        if (report := self._checked()) is None:
            return
        backend, run = self.cockpit.backend, self.over.run_path

        def faulty() -> list[str]:
            return sorted(set(map(os.path.abspath, report.faulty_images())) - backend.quarantined(run))

        self.find_out(faulty, self._ask)

    def _ask(self, faulty: list[str] | None, problem: str) -> None:
        """Put images on the run's quarantine list, once that was confirmed."""
        if not faulty:
            nothing = "every image with an error is left out already, or there is none"
            self.say(problem or nothing, "bad" if problem else "info")
            return

        def act() -> None:
            self.over.submit("quarantine", images=faulty, why="label check")
            self.say("asked the supervisor; the run's timeline tells when it is done")

        text = [
            "From the next start or resume on; no file of the data set is touched.",
            "It stands in the journal; u takes it back.",
        ]
        question = f"Leave {count(len(faulty), 'image')} with errors out of the training?"
        self.ask(ConfirmDialog(question, text, "leave out"), act)

    def action_undo(self) -> None:
        if self.cockpit.undo_own() or not self.may(to="write"):
            return
        self.over.submit("quarantine", undo=True)
        self.say("asked the supervisor to take the last change of the quarantine list back")

    def action_write(self) -> None:
        if (report := self._checked()) is None:
            return
        backend, run = self.cockpit.backend, self.over.run_path
        self.find_out(partial(backend.write_labels, run, report), self._written)

    def _written(self, path: object, problem: str) -> None:
        self.say(problem or f"written to {path}", "bad" if problem else "good")


def kind_line(found: tuple[str, int], width: int) -> Line:
    name, number = found
    kind = KINDS[name]
    severity = (column(kind.severity, 9), SEVERITY_INKS.get(kind.severity, "text"))
    told: Line = [severity, (f"{number:>9,}  ", "strong"), (column(name, 20), "strong")]
    return fit([*told, (clean(kind.title, 120), "text")], width)


def issue_line(issue: Issue, width: int) -> Line:
    """Return a finding as one line; of a long path the end is kept."""
    place = clean(f"{issue.file}:{issue.line}" if issue.line else issue.file, 1000)
    room = max(12, width // 2)
    shown = place if len(place) <= room else ".." + place[-(room - 2) :]
    return fit([(column(shown, min(room, len(shown)) + 2), "text"), (clean(issue.text, 400), "muted")], width)


def headline(report: LabelReport) -> Line:
    ink = "bad" if report.errors else "good"
    read = [count(report.images, "image"), count(report.labels, "label file"), count(report.boxes, "row")]
    told: Line = [(f"   {', '.join(read)}", "muted"), (f"   {report.seconds:.1f} s", "faint")]
    return [(count(report.errors, "error"), ink), *told]

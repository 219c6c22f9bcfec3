"""Errors in the labels of the run's data set, by kind, with the lines; nothing in the data set is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container

from nantui.run.layout import RunLayout
from nantui.ui.data import label_rows
from nantui.ui.format import clean
from nantui.ui.glyphs import meter
from nantui.ui.ink import Line
from nantui.ui.messages import Answer, Counted
from nantui.ui.screens.base import BaseScreen
from nantui.ui.watch import find_out
from nantui.ui.widgets.keybar import KeyBar
from nantui.ui.widgets.listing import Listing
from nantui.ui.widgets.title import Title

if TYPE_CHECKING:
    from nantui.ui.screens.run import RunScreen

KEYS = (
    ("Esc", "back", True),
    ("Tab", "kinds/lines", True),
    ("w", "write CSV", True),
    ("?", "help", True),
    ("q", "quit", True),
)


class LabelsScreen(BaseScreen):
    """Kinds on top, the lines of the one under the cursor below."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "write", "write all findings as CSV beside the run", show=False)
    ]

    def __init__(self, over: RunScreen) -> None:
        super().__init__()
        self.over = over
        self.report: Any = None
        self.problem = ""
        self.counted = (0, 0)
        self._left = False

    def compose(self) -> ComposeResult:
        yield Title(self._title)
        with Container(id="label-lists"):
            yield Listing(id="kinds", header=[("kinds", "title")], empty="reading label files..")
            yield Listing(id="lines", header=[("lines", "title")], empty="")
        yield KeyBar(KEYS)

    def on_mount(self) -> None:
        self.query_one("#kinds", Listing).focus()
        find_out("labels", self._check, self.post_message)

    def _check(self) -> Any:
        from nantui.run.spec import read_args

        run = self.over.run_path
        return self.over.cockpit.backend.labels(run, read_args(RunLayout(run).args_yaml), self._count)

    def on_unmount(self) -> None:
        self._left = True

    def _count(self, done: int, total: int) -> bool:
        """Called from the checking thread; a true answer stops it."""
        if not self._left:
            self.post_message(Counted(done, total))
        return self._left

    def on_counted(self, message: Counted) -> None:
        self.counted = (message.done, message.total)
        self.query_one(Title).redraw()

    def on_answer(self, message: Answer) -> None:
        if message.about == "written":
            self.say(message.problem or f"written to {message.value}", "bad" if message.problem else "good")
            return
        self.report, self.problem = message.value, message.problem
        kinds = self.query_one("#kinds", Listing)
        kinds.empty = self.problem or "nothing is wrong with the labels"
        rows = label_rows.kinds(self.report) if self.report is not None else []
        kinds.show([row.name for row in rows], lambda row, width: label_rows.kind_line(rows[row], width))
        self._show_lines()
        self.query_one(Title).redraw()

    def _title(self, width: int) -> list[Line]:
        if self.problem:
            return [[("labels ", "title"), (clean(self.problem, 300), "bad")]]
        if self.report is not None:
            return [[("labels ", "title"), *label_rows.headline(self.report)]]
        done, total = self.counted
        filled, empty = meter(done / total if total else 0.0, 30, self.over.cockpit.glyphs)
        return [
            [
                ("labels ", "title"),
                (filled, "accent"),
                (empty, "faint"),
                (f"  {done:,} / {total:,} files", "muted"),
            ]
        ]

    def on_listing_moved(self, message: Listing.Moved) -> None:
        if message.listing.id == "kinds":
            self._show_lines()

    def _show_lines(self) -> None:
        kind = self.query_one("#kinds", Listing).key
        issues = (
            [issue for issue in self.report.issues if issue.kind == kind] if self.report is not None else []
        )
        lines = self.query_one("#lines", Listing)
        lines.header = [("lines", "title"), (f"   {len(issues):,}", "muted")]
        lines.show(range(len(issues)), lambda row, width: label_rows.issue_line(issues[row], width))
        lines.recolour()

    def action_write(self) -> None:
        """Write all findings as CSV."""
        if self.report is None:
            self.say("the check is not done yet", "warn")
        elif self.over.cockpit.read_only:
            self.say("read-only: open it without --read-only to write", "warn")
        else:
            report, backend, run = self.report, self.over.cockpit.backend, self.over.run_path
            find_out("written", lambda: backend.write_labels(run, report), self.post_message)

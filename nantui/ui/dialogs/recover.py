"""R: what will be stopped and moved, which epoch comes back, what it costs, which settings change and why.

Nothing is done here: the dialog leaves one command for the supervisor and then shows what becomes of it.
Closing it, or the terminal, changes nothing about that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container

from nantui.run.commands import Command
from nantui.run.journal import pending_edits
from nantui.run.status import ACTIVE
from nantui.ui.dialogs.base import Dialog
from nantui.ui.format import clean
from nantui.ui.model import plan_text
from nantui.ui.model.command_progress import CommandProgress, follow
from nantui.ui.styled_text import Line, wrap
from nantui.ui.widgets.checkpoints import Candidates
from nantui.ui.widgets.dialog_controls import Choice
from nantui.ui.widgets.keybar import SECONDS_SHOWN
from nantui.ui.widgets.line_widget import Title
from nantui.ui.widgets.list_view import Document

if TYPE_CHECKING:
    from nantui.recovery.plan import Plan
    from nantui.ui.context import RunView

VERBS = {"recover": "Recover", "rollback": "Roll back"}
TITLES = {
    "recover": "Recover: stop, go back to a clean checkpoint, change settings, resume",
    "rollback": "Roll back to a clean checkpoint; nothing is started",
    "rewind": "Go back in memory to a step point and train on; nothing is stopped",
}
FRESH_S = 20.0  # a plan is as it was shown; an older one is made anew where it has trained on
PLANNING, ASKING, WORKING, DONE, FAILED = "planning", "asking", "working", "done", "failed"
HEADINGS = {
    PLANNING: ("working out a plan..", "muted"),
    ASKING: ("nothing has been done yet", "muted"),
    WORKING: ("under way; closing this changes nothing", "info"),
    DONE: ("done", "good"),
    FAILED: ("failed", "bad"),
}


class RecoverDialog(Dialog):
    """Shows a plan, asks once, then shows progress and what is in effect."""

    AUTO_FOCUS = ""  # its buttons come with the plan
    BINDINGS = [
        Binding("y", "confirm", "confirm", show=False),
        Binding("m", "in_memory", "back in memory to a step point, without a restart", show=False),
        Binding("a", "stay_automatic", "recover, and by itself from now on", show=False),
        Binding("n", "cancel", "cancel", show=False),
        Binding("down,j", "pick(1)", "another restore point: down", show=False),
        Binding("up,k", "pick(-1)", "another restore point: up", show=False),
        Binding("pagedown", "page(1)", "more of the plan", show=False),
        Binding("pageup", "page(-1)", "the plan before", show=False),
        Binding("b", "further_back", "before a judgement, or begin again", show=False),
        Binding("p", "presets", "choose presets to apply", show=False),
        Binding("i", "images", "leave images that are proven guilty out, or not", show=False),
        Binding("u", "undo", "undo a finished rollback", show=False),
        Binding("enter", "enter", "choose or press, once there is a plan", show=False),
    ]
    VERTICAL_BREAKPOINTS = [(0, "-low"), (32, "-tall")]

    def __init__(
        self, over: RunView, kind: str, presets: Sequence[str] | None = None, to: str = "",
        leave_out: bool | None = None,
    ) -> None:  # fmt: skip
        """`to` is a checkpoint chosen before; another is proposed where it cannot be gone back to."""
        super().__init__()
        self.over, self.kind = over, kind
        self.presets = None if presets is None else tuple(presets)
        self.to, self._wished, self.leave_out, self.restart = to, to, leave_out, False
        self._ahead: list[Callable[[], None]] = []
        self.note = ""
        self.said: Line | None = None
        self.stage = PLANNING
        self.plan: Plan | None = None
        self.problem = ""
        self.command: Command | None = None
        self.progress: CommandProgress | None = None

    def compose(self) -> ComposeResult:
        with Container(classes="dialog tall", id="recover"):
            yield Title(self._heading, id="recover-title")
            yield Candidates()
            yield Document(id="plan", write=self._write, tells_more=True)
            yield Choice((("cancel", "Cancel", "Esc"),))

    def on_mount(self) -> None:
        self.over.follow(self, self._follow)
        self.make_plan()
        self._want_worker(True)

    def on_unmount(self) -> None:
        self._want_worker(False)

    def _want_worker(self, wanted: bool) -> None:
        self._wanted, backend, run = wanted, self.cockpit.backend, self.over.run_path
        self.find_out(lambda: backend.want_worker(run, self._wanted), lambda *answer: None)

    def make_plan(self, note: str = "") -> None:
        """Ask for a plan in a thread; without a choice of presets the evidence proposes some."""
        self.stage, self.note, self._made_for = PLANNING, note, self._stands
        self._made_in = self.over.snapshot.status.epoch
        self._redraw()
        make, run, wanted = self.cockpit.backend.plan, self.over.run_path, self.to or None
        edits = pending_edits(self.over.snapshot.journal)
        own = {"leave_out": self.leave_out, "restart": self.restart}
        self.find_out(lambda: make(run, wanted, edits, self.presets, **own), self._take_plan)

    def _take_plan(self, plan: Plan | None, problem: str) -> None:
        if self.stage != PLANNING:
            return
        wished, self._wished = self._wished, ""
        if problem and wished:
            self.to = ""
            self.make_plan(f"not {wished}: {problem}")
            return
        self.plan, self.problem, self._made_at = plan, problem, time.monotonic()
        self.stage = ASKING
        buttons = [("cancel", "Cancel", "Esc")]
        if self.plan is not None and plan_text.may_rewind(self.kind, self.over.snapshot):
            buttons.append(("in_memory", "In memory", "m"))
        if self.plan is not None:
            buttons.append(("confirm", VERBS[self.kind], "y"))
            self.query_one(Candidates).show_candidates(list(self.plan.candidates), self.plan.restore)
        if self.may_stay_automatic:
            buttons.append(("stay_automatic", "On autopilot", "a"))
        if (second := self.plan.second if self.plan is not None else None) or self.may_begin_again:
            buttons.append(("further_back", f"Epoch {second.work}" if second else "Begin again", "b"))
        self.query_one(Choice).offer(tuple(buttons))
        self._redraw()
        if self.focused is None:
            self.set_focus(self.query_one(Choice))
        ahead, self._ahead = self._ahead, []
        for step in ahead:
            step()

    @property
    def _stands(self) -> tuple[str, int | None]:
        """What a plan is made for: how the run has ended, or which attempt trains."""
        status = self.over.snapshot.status
        return "" if status.state in ACTIVE else status.state, status.attempt

    @property
    def may_stay_automatic(self) -> bool:
        """Whether the ladder could recover the run from now on and does not do so yet."""
        return self.plan is not None and self.kind == "recover" and not self.plan.auto

    @property
    def may_begin_again(self) -> bool:
        """Whether a plan to begin again can be made where there is none to go back: nothing trains."""
        idle = self.over.snapshot.status.state not in ACTIVE
        return bool(self.problem) and idle and self.kind == "recover" and not self.restart

    def _heading(self, width: int) -> list[Line]:
        known = self.plan.candidates if self.plan is not None and self.stage == ASKING else ()
        keys = "j, k and Enter choose a restore point; " * any(one.usable for one in known)
        return [self.said or [(TITLES[self.kind], "title")], [(keys, "muted"), HEADINGS[self.stage]]]

    def say(self, text: str, ink: str = "info", seconds: float = SECONDS_SHOWN) -> None:
        """Say it on top, too: on a small screen the dialog lies over the line where else it is read."""
        super().say(text, ink, seconds)
        self.said = said = [(text, ink)]
        self.query_one(Title).redraw()
        self.set_timer(seconds, lambda: self._forget(said))

    def _forget(self, said: Line | None) -> None:
        self.said = None if self.said is said else self.said
        self.query_one(Title).redraw()

    def _write(self, width: int) -> list[Line]:
        glyphs = self.cockpit.glyphs
        if self.progress is not None:
            return plan_text.describe_progress(self.progress, self.kind, glyphs, width)
        if self.problem:
            nothing = (
                "Nothing was changed. Esc goes back." + " b plans to begin again." * self.may_begin_again
            )
            return [*wrap(clean(self.problem, 800), width, "bad"), [], *wrap(nothing, width, "muted")]
        if self.plan is None:
            return [[("reading checkpoints and history..", "muted")]]
        told = [*wrap(self.note, width, "warn"), []] if self.note else []
        return told + plan_text.describe(self.plan, self.kind, self.over.snapshot, glyphs, width)

    def _redraw(self) -> None:
        self.said = None
        self.query_one(Candidates).display = self.stage in (PLANNING, ASKING) and self.plan is not None
        self.query_one(Title).redraw()
        self.query_one(Document).remake()

    def on_listing_chosen(self, message: Candidates.Chosen) -> None:
        """Another restore point was chosen: work out a plan for it."""
        if self.stage == PLANNING:
            self.action_enter()
        elif self.stage == ASKING and message.listing.id == "candidates":
            chosen = self.query_one(Candidates).candidate
            if chosen is not None and chosen.usable:
                self.to, self.restart = chosen.name, False
                self.make_plan()
            elif chosen is not None:
                self.note = f"{chosen.name}: {chosen.why_not}"
                self._redraw()

    def action_stay_automatic(self) -> None:
        """Recover, and let the ladder do so by itself from now on."""
        if self._may(self.may_stay_automatic, "a rollback starts nothing, or it recovers by itself already"):
            self._leave(auto=True)

    def action_in_memory(self) -> None:
        """Go back in the process that trains; no setting changes."""
        possible = plan_text.may_rewind(self.kind, self.over.snapshot)
        if self._may(possible, "nothing that went wrong trains here with a step point from before it"):
            self.kind = "rewind"
            self._send({})

    def action_confirm(self) -> None:
        """Leave the command; only with a plan on the screen."""
        if self._may(self.plan is not None, "there is no plan to confirm"):
            self._leave()

    def _may(self, possible: bool, otherwise: str) -> bool:
        """Whether a key can act now; says why not."""
        if possible and (reason := self.over.why_not(self.kind)):
            possible, otherwise = False, reason
        if self.stage != ASKING:
            otherwise = "the plan is not there yet" if self.stage == PLANNING else "it was confirmed already"
        if not possible or self.stage != ASKING:
            self.say(otherwise, "warn")
        return possible and self.stage == ASKING

    def _leave(self, **more: object) -> None:
        from nantui.recovery.plan import exactly

        assert self.plan is not None, "confirmed with a plan on the screen"
        status = self.over.snapshot.status
        trained = status.state in ACTIVE and status.epoch != self._made_in
        if trained and time.monotonic() - self._made_at > FRESH_S:
            self.make_plan(f"it has trained on to epoch {status.epoch}: this is what it would be now")
            return
        self._send({**exactly(self.plan), **more})

    def _send(self, options: Mapping[str, object]) -> None:
        self.command = self.over.submit(self.kind, **options)
        self.stage, self.progress = WORKING, CommandProgress()
        self.query_one(Choice).offer((("cancel", "Close, it goes on", "Esc"),))
        self._redraw()

    def _follow(self) -> None:
        """Another snapshot came: see what became of the command, or of what the plan was made for."""
        if self.command is None or self.progress is None:
            if self.stage == ASKING and self._stands != self._made_for:
                self.make_plan(f"the run is {self.over.snapshot.status.state} now: this plan was made anew")
            return
        progress = follow(self.command.id, self.over.snapshot.journal)
        if progress == self.progress:
            return
        self.progress = progress
        if progress.done is not None:
            self.stage = DONE if progress.done.ok else FAILED
            undo = (("undo", "Undo", "u"),) if progress.done.ok and self.kind == "rollback" else ()
            self.query_one(Choice).offer((("cancel", "Close", "Esc"), *undo))
        self._redraw()

    def action_undo(self) -> None:
        """Take the rollback back, once it is done."""
        if self.stage == DONE:
            self.dismiss(None)
            self.over.action_act("undo")
        else:
            self.say("nothing is done yet that could be taken back", "warn")

    def action_pick(self, by: int) -> None:
        """Go to the restore points, also from the buttons."""
        candidates = self.query_one(Candidates)
        if self.stage == PLANNING and not candidates.display:
            self._ahead.append(partial(self.action_pick, by))
        elif candidates.display:
            self.set_focus(candidates)
            candidates.action_move(by)

    def action_enter(self) -> None:
        """Press what is under the cursor; while the plan is worked out, as soon as it is there."""
        if self.stage == PLANNING:
            self._ahead.append(self.action_enter)
        elif isinstance(self.focused, Candidates):
            self.focused.action_choose()
        else:
            self.query_one(Choice).action_press()

    def action_further_back(self) -> None:
        """Work out a plan that goes back to before the judgement, or, where none goes back, begins again."""
        second = self.plan.second if self.plan is not None else None
        if self._may(second is not None or self.may_begin_again, "there is no second proposal"):
            self.to, self.restart = second.name if second is not None else "", second is None
            self.make_plan()

    def action_images(self) -> None:
        """Leave the images that are proven guilty out, or keep them."""
        if self._may(bool(self.plan and self.plan.guilty), "no image is proven guilty"):
            self.leave_out = not (self.plan and self.plan.images)
            self.make_plan()

    def action_page(self, by: int) -> None:
        """Scroll the plan, also from the buttons."""
        self.query_one(Document).action_page(by)

    def action_presets(self) -> None:
        """Choose presets; the plan is worked out again with them."""
        if not self._may(True, ""):
            return
        from nantui.ui.dialogs.choose import PresetsDialog

        def chosen(names: object) -> None:
            if isinstance(names, tuple):
                self.presets = names
                self.make_plan()

        proposed = self.plan.presets if self.plan else ()
        self.app.push_screen(PresetsDialog(self.over.run_path, proposed), chosen)

"""Why it happened: causes with their evidence, and remedies one key away."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding

from nantui.run.documents import JsonObject
from nantui.run.events import AttemptStarted, Autopsy, Incident, RollbackDone, UndoDone, of_kind
from nantui.ui.model.diagnosis_text import can_be_done, describe, with_a_key
from nantui.ui.screens.base import RunPage
from nantui.ui.styled_text import Line
from nantui.ui.widgets.list_view import Document


class DiagnosisScreen(RunPage):
    """Shows what the diagnosis room concludes, over what was recorded."""

    BINDINGS = [
        Binding("R", "recover", "recover"),
        *(
            Binding(str(n), f"remedy({n})", "this remedy", n == 1, "1-9", tooltip=f"recover with remedy {n}")
            for n in range(1, 10)
        ),
        Binding("D", "labels", "data labels", tooltip="errors in the labels"),
    ]

    diagnosis: JsonObject | None = None
    problem = ""
    _told: object = None
    _asks = False

    def heading(self, width: int) -> list[Line]:
        return [[("diagnosis ", "title"), (self.over.run_path.name, "strong")]]

    def body(self) -> ComposeResult:
        yield Document(id="page", write=self._write)

    def on_mount(self) -> None:
        self.over.follow(self, self._follow)

    def _follow(self) -> None:
        """Ask for the causes, and again once more has happened, of which they may speak."""
        now, run, backend = self.over.snapshot, self.over.run_path, self.cockpit.backend
        told = of_kind((*now.journal, *now.events), AttemptStarted, Incident, Autopsy, RollbackDone, UndoDone)
        if now.taken and told != self._told and not self._asks:
            self._told, self._asks = told, True
            self.find_out(lambda: backend.diagnose(run), self._take)

    def _take(self, diagnosis: JsonObject | None, problem: str) -> None:
        self.diagnosis, self.problem, self._asks = diagnosis, problem, False
        self.query_one(Document).remake()

    def _write(self, width: int) -> list[Line]:
        return describe(self.over.snapshot, self.diagnosis, self.problem, self.cockpit.glyphs, width)

    def action_recover(self) -> None:
        self._recover(None)

    def action_remedy(self, digit: int) -> None:
        """Open the recover dialog with a remedy of the list, or the data where that is the remedy."""
        if self.diagnosis is None:
            self.say(self.problem or "still looking for causes: the remedies come with them", "warn")
            return
        advice = with_a_key(self.diagnosis["advice"])
        if digit > len(advice):
            self.say(f"there is no remedy {digit} that a key can apply", "warn")
        elif can_be_done(chosen := advice[digit - 1]):
            preset, images = chosen["preset"], bool(chosen.get("images"))
            self._recover((preset,) if preset else (), images and not preset)
        else:
            self.action_labels()

    def _recover(self, presets: tuple[str, ...] | None, leave_out: bool | None = None) -> None:
        from nantui.ui.dialogs.recover import RecoverDialog

        reason = self.over.why_not("recover")
        if self.may(f"recover: {reason}" if reason else ""):
            self.app.push_screen(RecoverDialog(self.over, "recover", presets, leave_out=leave_out))

    def action_labels(self) -> None:
        self.over.action_act("labels")

"""Why it happened: causes with their evidence, and remedies one key away."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding

from nantui.run.documents import JsonObject
from nantui.ui.context import RunView
from nantui.ui.model.diagnosis_text import can_be_done, concerns_data, describe, with_a_key
from nantui.ui.model.reasons import why_not
from nantui.ui.screens.base import BaseScreen
from nantui.ui.styled_text import Line
from nantui.ui.watchers import Answer, find_out
from nantui.ui.widgets.keybar import BACK, HELP, KeyBar, offered
from nantui.ui.widgets.text_view import Document, Title


class DiagnosisScreen(BaseScreen):
    """Shows what the diagnosis room concludes, over what was recorded."""

    BINDINGS = [
        Binding("R", "recover", "recover"),
        *(
            Binding(str(n), f"remedy({n})", "this remedy", n == 1, "1-9", tooltip=f"recover with remedy {n}")
            for n in range(1, 10)
        ),
        Binding("D", "labels", "data labels", tooltip="errors in the labels"),
    ]

    def __init__(self, over: RunView) -> None:
        super().__init__()
        self.over = over
        self.diagnosis: JsonObject | None = None
        self.problem = ""

    def compose(self) -> ComposeResult:
        yield Title(lambda width: [[("diagnosis ", "title"), (self.over.run_path.name, "strong")]])
        yield Document(id="page", write=self._write)
        yield KeyBar((HELP, BACK, *offered(self)))

    def on_mount(self) -> None:
        self.query_one(Document).focus()
        run, backend = self.over.run_path, self.cockpit.backend
        find_out("diagnosis", lambda: backend.diagnose(run), self.post_message)

    def on_answer(self, message: Answer) -> None:
        self.diagnosis, self.problem = message.value, message.problem
        self.query_one(Document).remake()

    def _write(self, width: int) -> list[Line]:
        if not self.over.snapshot.taken:
            return [[("the run has not been read yet", "muted")]]
        return describe(self.over.snapshot, self.diagnosis, self.problem, self.cockpit.glyphs, width)

    def action_recover(self) -> None:
        self._recover(None)

    def action_remedy(self, digit: int) -> None:
        """Open the recover dialog with a remedy of the list, or the data where that is the remedy."""
        if self.diagnosis is None:
            self.say(self.problem or "still looking for causes: the remedies come with them", "warn")
            return
        advice = with_a_key(self.diagnosis.get("advice") or [])
        chosen = advice[digit - 1] if digit <= len(advice) else {}
        if can_be_done(chosen):
            presets = (str(chosen["preset"]),) if chosen.get("preset") else ()
            self._recover(presets, dict(chosen.get("settings") or {}))
        elif concerns_data(chosen):
            self.action_labels()
        else:
            self.say(f"there is no remedy {digit} that a key can apply", "warn")

    def _recover(self, presets: tuple[str, ...] | None, settings: dict[str, object] | None = None) -> None:
        from nantui.ui.dialogs.recover import RecoverDialog

        reason = why_not("recover", self.over.snapshot, self.cockpit.read_only)
        if reason is not None:
            self.say(f"recover: {reason}", "warn")
        else:
            self.app.push_screen(RecoverDialog(self.over, "recover", presets, settings))

    def action_labels(self) -> None:
        self.over.action_act("labels")

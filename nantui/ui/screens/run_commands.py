"""A screen of one run, and what its keys do to the run or show of it.

Every change goes through the supervisor; a key that cannot act says why.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from textual.dom import DOMNode
from textual.reactive import reactive

from nantui.errors import UserError
from nantui.recovery.history import newest_in_force
from nantui.run import status as run_status
from nantui.run.commands import Command
from nantui.run.events import Kept
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.ui.actions import EVERY
from nantui.ui.format import clean
from nantui.ui.model import plan_text
from nantui.ui.model.command_progress import Unanswered
from nantui.ui.model.reasons import why_not
from nantui.ui.model.snapshot import UNREAD, Checkpoint, RunSnapshot
from nantui.ui.screens.charts import ChartsScreen
from nantui.ui.watchers import find_out
from nantui.ui.widgets.checkpoints import Checkpoints
from nantui.ui.widgets.hardware import HardwarePanel
from nantui.ui.widgets.list_view import Listing
from nantui.ui.widgets.timeline import Timeline


class RunCommands(ChartsScreen):
    """Has a method `do_NAME` for each action of a run."""

    snapshot: reactive[RunSnapshot] = reactive(UNREAD, repaint=False)

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.run_path = run
        self.sent = Unanswered()

    def look_now(self) -> None:
        """Read the run again without waiting for the next turn."""
        for watcher in self.watchers[:1]:
            watcher.hurry()

    def follow(self, node: DOMNode, tell: Callable[[], None], *, at_once: bool = False) -> None:
        """Call `tell` for each snapshot that comes while `node` is there, with `at_once` also now."""
        node.watch(self, "snapshot", tell, init=at_once)

    def why_not(self, name: str) -> str | None:
        """Return why the action `name` cannot be done now, None when it can."""
        return why_not(name, self.snapshot, self.cockpit.read_only)

    def action_act(self, name: str) -> None:
        """Do what the action `name` says, or say why not. What was changed last is undone first."""
        begun = newest_in_force(self.snapshot.journal) if name == "undo" else None
        if name == "undo" and self.cockpit.undo_own(begun.t if begun else 0.0):
            return
        if reason := self.why_not(name):
            self.say(f"{EVERY[name].label}: {reason}", "warn")
            return
        try:
            getattr(self, f"do_{name}")()
        except UserError as error:
            self.say(str(error), "bad")

    def submit(self, kind: str, **options: object) -> Command:
        """Leave a command for the supervisor, from a thread: it may first have to start one."""
        command = Command(kind, options)
        self.sent.add(command)
        find_out(command.id, lambda: self.cockpit.backend.submit(self.run_path, command), self.post_message)
        return command

    def do_start(self) -> None:
        left = self.snapshot.checkpoints
        resumable = any(file.point or file.name in ("last.pt", "nantui_stop.pt") for file in left)
        if resumable and (lost := self._lost()):
            self._ask("start", "Resume with nantui's own runner?", ["It goes on without:", *lost])
            return
        self.submit("resume" if resumable else "start")
        self.say("asked the supervisor to resume" if resumable else "asked the supervisor to start")

    def _lost(self) -> list[str]:
        """Return what a run that nantui did not start loses under our runner; nothing for any other."""
        from nantui.recovery.plan_warnings import lost_with_our_runner

        layout = RunLayout(self.run_path)
        return [] if layout.spec.is_file() else lost_with_our_runner(RunRecord(layout))

    def do_stop(self) -> None:
        self._end("stop", "Stop the training?", plan_text.stop_words(self.snapshot))

    def do_kill(self) -> None:
        self._end("kill", "Kill every process of the run?", plan_text.kill_words(self.snapshot))

    def _end(self, kind: str, question: str, text: list[str]) -> None:
        """Ask and end it; what nantui did not start wants the run's name, typed."""
        if not self._trained_by_others():
            self._ask(kind, question, text)
            return
        text = [
            f"nantui did not start it: {self.snapshot.status.text}",
            "These processes and what they started are ended; shells and sessions are left alone.",
        ]
        name = clean(self.run_path.name, 80)
        self._ask(kind, f"Stop the training in {name}?", text, name, foreign=True)

    def do_undo(self) -> None:
        begun = newest_in_force(self.snapshot.journal)
        assert begun is not None, "why_not lets nobody undo nothing"
        what = "resume" if isinstance(begun, Kept) else "rollback"
        self._ask("undo", f"Undo the last {what}?", plan_text.undo_words(self.snapshot, begun))

    def _ask(self, kind: str, question: str, text: list[str], name: str = "", **options: object) -> None:
        """Ask before a command is sent; with a `name`, that has to be typed."""
        from nantui.ui.dialogs.confirm import ConfirmDialog, NameDialog

        def answered(confirmed: object) -> None:
            if confirmed:
                self.submit("resume" if kind == "start" else kind, **options)
                self.say(f"{EVERY[kind].label}: asked the supervisor")

        dialog = (
            NameDialog(question, text, name) if name else ConfirmDialog(question, text, EVERY[kind].label)
        )
        self.app.push_screen(dialog, answered)

    def _trained_by_others(self) -> bool:
        """Whether processes that nantui did not start train into the run."""
        status = self.snapshot.status
        return status.state == run_status.FOREIGN and bool(status.pids)

    def do_rollback(self) -> None:
        chosen = self.chosen_checkpoint
        self._open_recover("rollback", "" if chosen is None else chosen.name)

    def do_recover(self) -> None:
        if self._trained_by_others():
            self.say("nantui did not start this training: stop it with x first, then R", "warn")
        else:
            self._open_recover("recover")

    def _open_recover(self, kind: str, to: str = "") -> None:
        from nantui.ui.dialogs.recover import RecoverDialog

        self.app.push_screen(RecoverDialog(self, kind, to=to))

    @property
    def chosen_checkpoint(self) -> Checkpoint | None:
        """The checkpoint that the cursor was moved to, None where it stands on the newest."""
        checkpoints = self.query_one(Checkpoints)
        return checkpoints.row.checkpoint if checkpoints.cursor and checkpoints.row is not None else None

    def do_config(self) -> None:
        from nantui.ui.screens.config import ConfigScreen

        self.app.push_screen(ConfigScreen(self))

    def do_log(self) -> None:
        from nantui.ui.screens.log import LogScreen

        self.app.push_screen(LogScreen(self))

    def do_diagnosis(self) -> None:
        from nantui.ui.screens.diagnosis import DiagnosisScreen

        self.app.push_screen(DiagnosisScreen(self))

    def do_labels(self) -> None:
        from nantui.ui.screens.labels import LabelsScreen

        self.app.push_screen(LabelsScreen(self))

    def do_compare(self) -> None:
        from nantui.ui.screens.compare import CompareScreen

        self.app.push_screen(CompareScreen(self.run_path))

    def do_zoom(self) -> None:
        from nantui.ui.screens.zoom import ZoomScreen

        self.app.push_screen(ZoomScreen(self, self.wall.first + self.wall.chosen, self.view))

    def do_machine(self) -> None:
        from nantui.ui.screens.machine import MachineScreen

        self.app.push_screen(MachineScreen(self, self.query_one(HardwarePanel)))

    def do_fleet(self) -> None:
        from nantui.ui.screens.fleet import FleetScreen

        if any(isinstance(other, FleetScreen) for other in self.app.screen_stack):
            self.action_back()
        else:
            self.app.push_screen(FleetScreen(self.cockpit.fleet_top))

    def on_listing_chosen(self, message: Listing.Chosen) -> None:
        """Show what is known about the checkpoint or the entry of the timeline under the cursor."""
        from nantui.ui.dialogs.detail import DetailDialog, about_checkpoint, about_sentence

        listing = message.listing
        if isinstance(listing, Checkpoints) and listing.row is not None:
            dialog = DetailDialog(listing.row.checkpoint.name, about_checkpoint(listing.row))
        elif isinstance(listing, Timeline) and listing.sentence is not None:
            dialog = DetailDialog("timeline", about_sentence(listing.sentence))
        else:
            return
        self.app.push_screen(dialog)

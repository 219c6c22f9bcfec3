"""What can be done to a run, or shown of it, by the keys of its screen.

Every change goes through the supervisor; a key that cannot act says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from textual.app import App

from nantui.errors import UserError
from nantui.run import status as run_status
from nantui.run.events import Kept
from nantui.run.layout import RunLayout
from nantui.run.points import step_points
from nantui.run.record import RunRecord
from nantui.ui import actions
from nantui.ui.context import RunView
from nantui.ui.format import clean
from nantui.ui.look_commands import Looked
from nantui.ui.model import plan_text
from nantui.ui.widgets.chart_wall import ChartWall
from nantui.ui.widgets.checkpoints import Checkpoints
from nantui.ui.widgets.timeline import Timeline

if TYPE_CHECKING:
    from nantui.ui.context import Cockpit
    from nantui.ui.model.snapshot import Checkpoint, RunSnapshot
    from nantui.ui.widgets.hardware import HardwarePanel
    from nantui.ui.widgets.list_view import Listing


class CommandedScreen(RunView, Looked, Protocol):
    """The run's screen, as its commands see it."""

    @property
    def app(self) -> App[object]:
        """Where other screens are opened."""

    @property
    def wall(self) -> ChartWall:
        """The charts."""

    @property
    def cockpit(self) -> Cockpit:
        """The app, as far as it may be asked."""

    @property
    def machine(self) -> HardwarePanel:
        """What is measured."""

    @property
    def chosen_checkpoint(self) -> Checkpoint | None:
        """The checkpoint that the cursor was moved to, None where it stands on the newest."""

    def acknowledge(self) -> None:
        """Put the alarm away."""

    def action_back(self) -> None:
        """Return to the screen before."""


class RunCommands:
    """What can be done to a run, or shown of it: a method `do_NAME` for each action that is not about how its
    screen's charts are looked at.
    """

    def __init__(self, screen: CommandedScreen) -> None:
        self._screen = screen

    def carry_out(self, name: str) -> None:
        """Do what the action `name` says, or say why not."""
        screen = self._screen
        reason = actions.why_not(name, screen.snapshot, screen.cockpit.read_only)
        if reason is not None:
            screen.say(f"{actions.EVERY[name].label}: {reason}", "warn")
            return
        try:
            getattr(self if hasattr(self, f"do_{name}") else screen, f"do_{name}")()
        except UserError as error:
            screen.say(str(error), "bad")

    def do_start(self) -> None:
        screen = self._screen
        left = screen.snapshot.checkpoints if screen.snapshot else ()
        resumable = any(file.name in ("last.pt", "nantui_stop.pt") for file in left)
        resumable = resumable or bool(step_points(RunLayout(screen.run_path)))
        if resumable and (lost := self._lost()):
            self._ask("start", "Resume with nantui's own runner?", ["It goes on without:", *lost], "resume")
            return
        screen.submit("resume" if resumable else "start")
        screen.say("asked the supervisor to resume" if resumable else "asked the supervisor to start")

    def _lost(self) -> list[str]:
        """Return what a run that nantui did not start loses under our runner; nothing for any other."""
        from nantui.recovery.plan_warnings import lost_with_our_runner

        layout = RunLayout(self._screen.run_path)
        return [] if layout.spec.is_file() else lost_with_our_runner(RunRecord(layout))

    def do_stop(self) -> None:
        if self._trained_by_others():
            self._ask_for_the_name("stop")
            return
        self._ask("stop", "Stop the training?", plan_text.stop_words(self._seen))

    def do_kill(self) -> None:
        if self._trained_by_others():
            self._ask_for_the_name("kill")
            return
        text = [
            "What was learned since the last checkpoint is lost.",
            "Prefer x, which stops at a batch boundary and loses nothing.",
        ]
        self._ask("kill", "Kill every process of the run?", text)

    def do_undo(self) -> None:
        from nantui.recovery.history import newest_in_force

        begun = newest_in_force(self._seen.journal)
        if begun is None:
            raise UserError("there is no rollback to undo")
        what = "resume" if isinstance(begun, Kept) else "rollback"
        self._ask("undo", f"Undo the last {what}?", plan_text.undo_words(self._seen, begun))

    @property
    def _seen(self) -> RunSnapshot:
        snapshot = self._screen.snapshot
        assert snapshot is not None, "why_not lets nobody act before the run was read"
        return snapshot

    def _ask(self, kind: str, question: str, text: list[str], sends: str = "") -> None:
        from nantui.ui.dialogs.confirm import ConfirmDialog

        def answered(confirmed: object) -> None:
            if confirmed:
                self._submit(kind, sends)

        self._screen.app.push_screen(ConfirmDialog(question, text, actions.EVERY[kind].label), answered)

    def _trained_by_others(self) -> bool:
        """Whether processes that nantui did not start train into the run."""
        status = self._screen.snapshot.status if self._screen.snapshot is not None else None
        return status is not None and status.state == run_status.FOREIGN and bool(status.pids)

    def _ask_for_the_name(self, kind: str) -> None:
        from nantui.ui.dialogs.confirm import NameDialog

        def answered(confirmed: object) -> None:
            if confirmed:
                self._submit(kind, foreign=True)

        text = [
            f"nantui did not start it: {self._seen.status.text}",
            "These processes and what they started are ended; shells and sessions are left alone.",
        ]
        name = clean(self._screen.run_path.name, 80)
        self._screen.app.push_screen(NameDialog(f"Stop the training in {name}?", text, name), answered)

    def _submit(self, kind: str, sends: str = "", **options: object) -> None:
        try:
            self._screen.submit(sends or kind, **options)
            self._screen.say(f"{actions.EVERY[kind].label}: asked the supervisor")
        except UserError as error:
            self._screen.say(str(error), "bad")

    def do_rollback(self) -> None:
        chosen = self._screen.chosen_checkpoint
        self._open_recover("rollback", "" if chosen is None else chosen.name)

    def do_recover(self) -> None:
        if self._trained_by_others():
            self._screen.say("nantui did not start this training: stop it with x first, then R", "warn")
            return
        self._open_recover("recover")

    def _open_recover(self, kind: str, to: str = "") -> None:
        from nantui.ui.dialogs.recover import RecoverDialog

        self._screen.app.push_screen(RecoverDialog(self._screen, kind, to=to))

    def do_config(self) -> None:
        from nantui.ui.screens.config import ConfigScreen

        self._screen.app.push_screen(ConfigScreen(self._screen))

    def do_log(self) -> None:
        from nantui.ui.screens.log import LogScreen

        self._screen.app.push_screen(LogScreen(self._screen))

    def do_diagnosis(self) -> None:
        from nantui.ui.screens.diagnosis import DiagnosisScreen

        self._screen.app.push_screen(DiagnosisScreen(self._screen))

    def do_labels(self) -> None:
        from nantui.ui.screens.labels import LabelsScreen

        self._screen.app.push_screen(LabelsScreen(self._screen))

    def do_compare(self) -> None:
        from nantui.ui.screens.compare import CompareScreen

        self._screen.app.push_screen(CompareScreen(self._screen.run_path))

    def do_zoom(self) -> None:
        from nantui.ui.screens.zoom import ZoomScreen

        wall = self._screen.wall
        self._screen.app.push_screen(ZoomScreen(self._screen, wall.first + wall.chosen, wall.view))

    def do_machine(self) -> None:
        from nantui.ui.screens.machine import MachineScreen

        self._screen.app.push_screen(MachineScreen(self._screen, self._screen.machine))

    def do_fleet(self) -> None:
        from nantui.ui.screens.fleet import FleetScreen

        screen = self._screen
        if any(isinstance(other, FleetScreen) for other in screen.app.screen_stack):
            screen.action_back()
        else:
            screen.app.push_screen(FleetScreen(screen.cockpit.fleet_top))

    def do_acknowledge(self) -> None:
        self._screen.acknowledge()
        self._screen.say("alarm put away; it stays in the timeline")

    def open_detail(self, listing: Listing) -> None:
        """Show what is known about the checkpoint or the entry of the timeline under the cursor."""
        from nantui.ui.dialogs.detail import DetailDialog, about_checkpoint, about_sentence

        if isinstance(listing, Checkpoints) and listing.row is not None:
            dialog = DetailDialog(listing.row.checkpoint.name, about_checkpoint(listing.row))
        elif isinstance(listing, Timeline) and listing.sentence is not None:
            dialog = DetailDialog("timeline", about_sentence(listing.sentence))
        else:
            return
        self._screen.app.push_screen(dialog)

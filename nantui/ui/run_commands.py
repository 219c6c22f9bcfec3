"""What the keys of the run screen do. Every change goes through the supervisor;
a key that cannot act says why.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nantui.errors import UserError
from nantui.run import status as run_status
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.ui import actions
from nantui.ui.format import clean
from nantui.ui.model import plan_text
from nantui.ui.widgets.chart_wall import SMOOTHINGS, ChartWall, next_window

if TYPE_CHECKING:
    from nantui.ui.app import CockpitApp
    from nantui.ui.model.snapshot import RunSnapshot
    from nantui.ui.screens.run import RunScreen


class RunActions:
    """The actions of RunScreen."""

    run_path: Path

    @property
    def cockpit(self) -> CockpitApp:
        """The app, with its own type."""
        return cast("CockpitApp", self._screen.app)

    @property
    def _screen(self) -> RunScreen:
        return cast("RunScreen", self)

    def action_act(self, name: str) -> None:
        """Do what the action `name` says, or say why not."""
        screen = self._screen
        reason = actions.why_not(name, screen.snapshot, self.cockpit.read_only)
        if reason is not None:
            screen.say(f"{actions.EVERY[name].label}: {reason}", "warn")
            return
        try:
            getattr(self, f"_do_{name}")()
        except UserError as error:
            screen.say(str(error), "bad")

    def _do_start(self) -> None:
        screen = self._screen
        resumable = (
            any(file.name in ("last.pt", "nantui_stop.pt") for file in screen.snapshot.checkpoints)
            if screen.snapshot
            else False
        )
        if resumable and (lost := self._lost()):
            self._ask("start", "Resume with nantui's own runner?", ["It goes on without:", *lost], "resume")
            return
        screen.submit("resume" if resumable else "start")
        screen.say("asked the supervisor to resume" if resumable else "asked the supervisor to start")

    def _lost(self) -> list[str]:
        """Return what a run that nantui did not start loses under our runner; nothing for any other."""
        from nantui.recovery.lost_without_script import lost_with_our_runner

        layout = RunLayout(self.run_path)
        return [] if layout.spec.is_file() else lost_with_our_runner(RunRecord(layout))

    def _do_stop(self) -> None:
        if self._trained_by_others():
            self._ask_for_the_name("stop")
            return
        self._ask(
            "stop",
            "Stop the training?",
            plan_text.stop_words(self._seen),
        )

    def _do_kill(self) -> None:
        if self._trained_by_others():
            self._ask_for_the_name("kill")
            return
        self._ask(
            "kill",
            "Kill every process of the run?",
            [
                "What was learned since the last checkpoint is lost.",
                "Prefer x, which stops at a batch boundary and loses nothing.",
            ],
        )

    def _do_undo(self) -> None:
        from nantui.recovery.history import newest_in_force

        begun = newest_in_force(self._seen.journal)
        if begun is None:
            raise UserError("there is no rollback to undo")
        self._ask("undo", "Undo the last rollback?", plan_text.undo_words(self._seen, begun))

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
        snapshot = self._screen.snapshot
        return (
            snapshot is not None
            and snapshot.status.state == run_status.FOREIGN
            and bool(snapshot.status.pids)
        )

    def _ask_for_the_name(self, kind: str) -> None:
        from nantui.ui.dialogs.confirm import NameDialog

        def answered(confirmed: object) -> None:
            if confirmed:
                self._submit(kind, foreign=True)

        text = [
            f"nantui did not start it: {self._seen.status.text}",
            "These processes and what they started are ended; shells and sessions are left alone.",
        ]
        name = clean(self.run_path.name, 80)
        self._screen.app.push_screen(NameDialog(f"Stop the training in {name}?", text, name), answered)

    def _submit(self, kind: str, sends: str = "", **options: Any) -> None:
        try:
            self._screen.submit(sends or kind, **options)
            self._screen.say(f"{actions.EVERY[kind].label}: asked the supervisor")
        except UserError as error:
            self._screen.say(str(error), "bad")

    def _do_rollback(self) -> None:
        self._open_recover("rollback")

    def _do_recover(self) -> None:
        if self._trained_by_others():
            self._screen.say("nantui did not start this training: stop it with x first, then R", "warn")
            return
        self._open_recover("recover")

    def _open_recover(self, kind: str) -> None:
        from nantui.ui.dialogs.recover import RecoverDialog

        self._screen.app.push_screen(RecoverDialog(self._screen, kind))

    def _do_config(self) -> None:
        from nantui.ui.screens.config import ConfigScreen

        self._screen.app.push_screen(ConfigScreen(self._screen))

    def _do_log(self) -> None:
        from nantui.ui.screens.log import LogScreen

        self._screen.app.push_screen(LogScreen(self._screen))

    def _do_diagnosis(self) -> None:
        from nantui.ui.screens.diagnosis import DiagnosisScreen

        self._screen.app.push_screen(DiagnosisScreen(self._screen))

    def _do_labels(self) -> None:
        from nantui.ui.screens.labels import LabelsScreen

        self._screen.app.push_screen(LabelsScreen(self._screen))

    def _do_compare(self) -> None:
        from nantui.ui.screens.compare import CompareScreen

        self._screen.app.push_screen(CompareScreen(self.run_path))

    def _do_zoom(self) -> None:
        from nantui.ui.screens.zoom import ZoomScreen

        self._screen.app.push_screen(ZoomScreen(self._screen, self._wall.first))

    def _do_fleet(self) -> None:
        from nantui.ui.screens.fleet import FleetScreen

        app = self.cockpit
        if any(isinstance(screen, FleetScreen) for screen in app.screen_stack):
            self._screen.action_back()
        else:
            app.switch_screen(FleetScreen(app.fleet_top))

    def _do_acknowledge(self) -> None:
        self._screen.acknowledged = time.time()
        if self._screen.snapshot is not None:
            self._screen.watch_snapshot(self._screen.snapshot, self._screen.snapshot)
        self._screen.say("alarm put away; it stays in the timeline")

    def _do_steps(self) -> None:
        screen = self._screen
        screen.over_steps = not screen.over_steps
        screen.look(last=0)
        screen.show_charts()
        screen.say("curves over single steps" if screen.over_steps else "curves over epochs")

    def _do_window(self) -> None:
        screen = self._screen
        last = next_window(screen.over_steps, self._wall.view.last)
        screen.look(last=last)
        screen.show_charts()
        screen.say(f"the last {last:,} {screen.x_name}" if last else f"all {screen.x_name}")

    def _do_logscale(self) -> None:
        log = not self._wall.view.log
        self._screen.look(log=log)
        self._screen.say("logarithmic y axis" if log else "linear y axis")

    def _do_smooth(self) -> None:
        now = SMOOTHINGS.index(self._wall.view.smooth)
        points = SMOOTHINGS[(now + 1) % len(SMOOTHINGS)]
        self._screen.look(smooth=points)
        self._screen.say(f"running mean over {points} points" if points else "every point as it is")

    def _do_outliers(self) -> None:
        whole = not self._wall.view.whole
        self._screen.look(whole=whole)
        self._screen.say(
            "the whole y range" if whole else "y range without far outliers; they are marked at the edge"
        )

    def _do_charts_on(self) -> None:
        self._turn(1)

    def _do_charts_back(self) -> None:
        self._turn(-1)

    def _turn(self, by: int) -> None:
        wall = self._wall
        wall.turn(by)
        self._screen.say(
            f"charts, page {wall.page + 1} of {wall.pages}" if wall.pages > 1 else "all charts are shown"
        )

    @property
    def _wall(self) -> ChartWall:
        return self._screen.query_one(ChartWall)

    @property
    def layout_of_run(self) -> RunLayout:
        """Names of the run's files."""
        return RunLayout(self.run_path)

    def on_listing_chosen(self, message: Any) -> None:
        """Enter on a checkpoint or a timeline entry opens what is known about it."""
        from nantui.ui.dialogs.detail import DetailDialog, about_checkpoint, about_sentence

        listing = message.listing
        if listing.id == "checkpoints" and listing.row is not None:
            self._screen.app.push_screen(
                DetailDialog(listing.row.checkpoint.name, about_checkpoint(listing.row))
            )
        elif listing.id == "timeline" and listing.sentence is not None:
            self._screen.app.push_screen(DetailDialog("timeline", about_sentence(listing.sentence)))

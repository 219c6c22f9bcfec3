"""The screen people keep open: one run, live, with everything that can be done about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.dom import DOMNode
from textual.reactive import reactive
from textual.widget import Widget

from nantui.errors import UserError
from nantui.machine.gpus import Sample
from nantui.run import status as run_status
from nantui.run.commands import Command
from nantui.run.incidents import ENDED
from nantui.run.journal import newest_in_force
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.run.results import current
from nantui.run.status import RunStatus
from nantui.ui.actions import EVERY, RUN_ACTIONS, bindings
from nantui.ui.charts.series import Picture
from nantui.ui.format import clean, short_path
from nantui.ui.model import checkpoint_rows, plan_text
from nantui.ui.model.command_progress import CommandOutcome, Unanswered, settle
from nantui.ui.model.reasons import open_alarm, why_not
from nantui.ui.model.run_charts import newest, over_time
from nantui.ui.model.run_reader import RunReader
from nantui.ui.model.snapshot import UNREAD, RunSnapshot
from nantui.ui.model.timeline import incident_text
from nantui.ui.screens.base import Watcher
from nantui.ui.screens.charts import ChartsScreen
from nantui.ui.textual_internals import SHAPING_S, HeldScreen
from nantui.ui.watchers import Pace, Scanned, Scanner
from nantui.ui.widgets.chart_wall import ChartWall
from nantui.ui.widgets.checkpoints import Checkpoints
from nantui.ui.widgets.hardware import HardwarePanel
from nantui.ui.widgets.header import Alarm, Header
from nantui.ui.widgets.keybar import KeyBar, Speaking
from nantui.ui.widgets.list_view import Listing
from nantui.ui.widgets.timeline import Output, Timeline

STALE_AFTER_S, TALL, STEP_LINES, SENTENCE_LINES = 4.0, 32, 4, 2
SETTLING_S, CHARTS_EVERY_S, EXTRAS_EVERY_S = 0.2, 2.0, 15.0
ALARM_KEYS = (("R", "recover"), ("d", "why"), ("a", "acknowledge"))
DEATH_KEYS = (("s", "resume"), ("R", "recover"), ("o", "output"), ("a", "acknowledge"))
PANELS: dict[str, type[Widget]] = {
    "charts": ChartWall, "checkpoints": Checkpoints, "machine": HardwarePanel, "output": Output,
    "timeline": Timeline,
}  # fmt: skip
PAGES = ("config", "diagnosis", "labels", "log")
"""Actions that open a screen about the run."""


def worth_a_bell(before: RunStatus, now: RunStatus) -> bool:
    """Whether somebody who looks elsewhere should look here: the training has ended, or was recovered."""
    ended = before.state in run_status.ACTIVE and now.state not in run_status.ACTIVE
    return ended or (before.state == run_status.RECOVERING and now.state != run_status.RECOVERING)


class RunScreen(ChartsScreen, HeldScreen):
    """Shows the newest snapshot, which threads take; has a method `do_NAME` for each action of a run. Every
    change goes through the supervisor; a key that cannot act says why.
    """

    held = True  # while it takes shape: each of its layouts would paint every cell
    AUTO_FOCUS = "Checkpoints"
    snapshot: reactive[RunSnapshot] = reactive(UNREAD, repaint=False)

    BINDINGS = [
        *bindings(RUN_ACTIONS, "act"),
        *(
            Binding(str(number), f"panel({number})", f"go to the {name}", show=False)
            for number, name in enumerate(PANELS, 1)
        ),
    ]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide"), (170, "-huge")]
    VERTICAL_BREAKPOINTS = [(0, "-low"), (TALL, "-tall")]

    def __init__(self, run: Path, errand: str = "") -> None:
        """`errand` is an action that was asked for on the run's row among all runs."""
        super().__init__()
        self.run_path, self.sent = run, Unanswered()
        self._errand, self._came_for_it = errand, False
        self.scanned: Scanned = {}, frozenset(), None
        self.acknowledged = 0.0
        self._arrived = time.monotonic()
        self._charts_pace, self._list_pace = Pace(CHARTS_EVERY_S), Pace(CHARTS_EVERY_S, at_once=5)
        self._charts_drawn = 0.0
        self._charts_of = self.snapshot
        self._list_waits = False
        self._settled, self._lower_lines = False, 0
        self._rung_for: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        yield Header()
        yield Alarm()
        yield self.wall
        with Container(id="lower"):
            yield Checkpoints()
            with Container(id="machine"):
                yield HardwarePanel()
                yield Output()
            yield Timeline()
        yield KeyBar()

    def on_mount(self) -> None:
        self.set_timer(SHAPING_S, self.let_go)
        self.set_interval(1.0, self._tick)
        backend = self.cockpit.backend
        reader = RunReader(self.run_path, backend.status, backend.now)
        watcher = Watcher(self, self.run_path, 1.0, lambda: [(reader.read(),)], self._take_snapshot)
        self.call_after_refresh(self.watch_with, watcher)

    def _settle(self) -> None:
        """Show the screen; only then look at what would have taken the processor from drawing it."""
        if self._settled:
            return
        self._settled = True
        self.let_go()
        measure = partial(self.cockpit.backend.hardware, self.run_path)

        def look() -> Iterator[tuple[Sample]]:
            yield (measure(self.snapshot.status.pids),)

        self.watch_with(Watcher(self, "the machine", 2.0, look, self._take_sample))
        self.look_now()

    def action_panel(self, number: int) -> None:
        panel = self.query_one(list(PANELS.values())[number - 1])
        if panel.region.height and panel.focusable:
            self.set_focus(panel)
        elif isinstance(panel, Output):
            self.action_act("log")
        else:
            self.say(f"panel {number} has no room at this size", "warn")

    def on_chart_wall_chosen(self) -> None:
        self.action_act("zoom")

    def do_acknowledge(self) -> None:
        self.cockpit.can_undo(partial(self._acknowledge, self.acknowledged, "the alarm is back"))
        self.say(self._acknowledge(time.time(), "alarm put away; u brings it back"))

    def _acknowledge(self, when: float, said: str) -> str:
        self.acknowledged = when
        if self.is_attached:  # else it has its alarm back as soon as it is opened anew
            self._show_alarm(self.snapshot)
        return said

    def _take_snapshot(self, snapshot: RunSnapshot) -> None:
        self._arrived, self.snapshot = time.monotonic(), snapshot
        if len(self.watchers) == 1:  # the first: badges are what people look for
            scanner = Scanner(self.run_path / "weights", self.cockpit.backend)
            self.watch_with(Watcher(self, "the checkpoints", 1.5, scanner.look, self._take_verdicts))
            self.set_timer(SETTLING_S, self._settle)
            if self._errand:
                self._do_errand()

    def _do_errand(self) -> None:
        """Do what was asked for among all runs; back there at once where it cannot be done."""
        reason = self.why_not(self._errand)
        if reason is None:
            self._came_for_it = True
            self.action_act(self._errand)
        else:
            self.app.pop_screen()
            self.say(f"{EVERY[self._errand].label}: {reason}", "warn")

    def on_screen_resume(self) -> None:
        if self._came_for_it:
            self.call_later(self._leave_after_errand)

    def _leave_after_errand(self) -> None:
        """Go back to all runs where nothing was asked of the supervisor: what becomes of it is seen here."""
        if self._came_for_it and self.app.screen is self and not self.sent:
            self.app.pop_screen()
        self._came_for_it = self._came_for_it and self.app.screen is not self

    def _take_verdicts(self, *scanned: Any) -> None:
        self.scanned = scanned
        self._show_checkpoints()
        if not self.scanned[1]:
            self._settle()

    def _take_sample(self, sample: Sample) -> None:
        status = self.snapshot.status
        writes = status.state in run_status.ACTIVE or bool(status.pids)
        files = self.snapshot.checkpoints if writes else ()
        hours = checkpoint_rows.hours_of_room(files, sample.host.disk_free_gb)
        self.query_one(HardwarePanel).show(sample, hours)
        self._fit()

    def watch_snapshot(self, before: RunSnapshot, now: RunSnapshot) -> None:
        if not now.taken:
            return
        first = not before.taken
        self.query_one(Header).show(now)
        if self._charts_changed(now) and self._charts_pace.allows():
            self.show_charts()
        if first or before.checkpoints is not now.checkpoints:
            self._show_checkpoints()
        if first or before.timeline is not now.timeline:
            self.query_one(Timeline).show_sentences(now.timeline)
            self._fit()
        self.query_one(Output).show(now.log_tail)
        self._show_alarm(now)
        if worth_a_bell(before.status, now.status):
            self.app.bell()
        self._show_keys()
        if self.cockpit.narrate is not None:
            self.query_one(KeyBar).tell(self.cockpit.narrate(now.status.state, now.journal))
        if first or before.journal is not now.journal:
            self._tell(settle(self.sent, now.journal))

    def _charts_changed(self, now: RunSnapshot) -> bool:
        """Whether the curves are worth drawing again: beside curves over epochs those over steps can wait."""
        before = self._charts_of
        if before.journal is not now.journal or not before.steps.columns:
            return True
        if self.x == "step":
            return before.steps is not now.steps
        late = time.monotonic() - self._charts_drawn > EXTRAS_EVERY_S
        return before.rows is not now.rows or (late and before.steps is not now.steps)

    def show_charts(self) -> None:
        if self.snapshot.taken:
            self._charts_drawn, self._charts_of = time.monotonic(), self.snapshot
            super().show_charts()

    def pictures(self, x: str, last: int = 0) -> list[Picture]:
        if x == "step" and not last:
            return list(self.snapshot.step_charts)
        charts = newest(self.snapshot, x == "step", last) if last else list(self.snapshot.epoch_charts)
        return over_time(charts, [current(self.snapshot.rows)]) if x == "time" else charts

    def _show_checkpoints(self) -> None:
        self._list_waits = True
        self._show_waiting_list()

    def _show_waiting_list(self) -> None:
        """Show the checkpoints if something about them has changed, but not many times in a second."""
        if self.snapshot.taken and self._list_waits and self._list_pace.allows():
            self._list_waits = False
            rows = checkpoint_rows.rows(self.snapshot.checkpoints, *self.scanned)
            self.query_one(Checkpoints).show_rows(rows)
            self._fit()

    def _fit(self) -> None:
        """Give the lower panels no more lines than they fill, in steps, and the charts all others."""
        # Counted from what is known and not from what is drawn: below a dialog nothing is laid out again.
        told, files = SENTENCE_LINES * len(self.snapshot.timeline), len(self.snapshot.checkpoints)
        height = self.app.size.height
        filled = max(files + 1, told + 1, self.query_one(HardwarePanel).rows + 8)
        lines = min(height * 45 // 100, -(-filled // STEP_LINES) * STEP_LINES)
        tall = height >= TALL
        if self._lower_lines != (lines if tall else 0):
            self._lower_lines = lines if tall else 0
            self.query_one("#lower").styles.height = lines if tall else None

    def on_resize(self) -> None:
        self._fit()

    def _show_alarm(self, snapshot: RunSnapshot) -> None:
        incident = open_alarm(snapshot, self.acknowledged)
        died = incident is not None and incident.incident in (run_status.FAILED, run_status.LOST)
        barred = "R" if self.why_not("recover") else ""
        keys = tuple(one for one in (DEATH_KEYS if died else ALARM_KEYS) if one[0] != barred)
        self.query_one(Alarm).show(incident, keys)
        if incident is None:
            self._rung_for = ()
            self.app.title = f"nantui {short_path(snapshot.path)} {snapshot.status.state}"
            return
        self.app.title = f"ALARM {incident_text(incident.incident)}: nantui {short_path(snapshot.path)}"
        rung = (incident.incident, incident.epoch, incident.attempt)
        if rung != self._rung_for:
            self._rung_for = rung
            self.app.bell()

    def _show_keys(self) -> None:
        shown = sorted((one for one in EVERY.values() if one.bar), key=lambda one: one.bar)
        keys = ((one.shown_key, one.label, self.why_not(one.name) is None) for one in shown)
        self.query_one(KeyBar).show(tuple(keys))

    def _tick(self) -> None:
        late = time.monotonic() - self._arrived
        header = self.query_one(Header)
        header.stale = int(late) if late > STALE_AFTER_S else 0
        header.redraw()
        self._show_waiting_list()
        self.query_one(Checkpoints).redraw()  # they grow older

    def action_save_setting(self, text: str) -> None:
        if self.may(to="save"):
            schema = self.cockpit.backend.schema
            self.find_out(lambda: schema().parse_assignments([text.replace(" ", "")]), self._save_setting)

    def _save_setting(self, values: dict[str, object] | None, problem: str) -> None:
        if values is None:
            self.say(problem, "bad")
        else:
            self.submit("set", set=values)
            self.say("asked the supervisor to save it for the next start")

    def look_now(self) -> None:
        """Read the run again without waiting for the next turn."""
        for watcher in self.watchers[:1]:
            watcher.hurry()

    def follow(self, node: DOMNode, tell: Callable[[], None]) -> None:
        """Call `tell` now, and for each snapshot that comes while `node` is there."""
        node.watch(self, "snapshot", tell)

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
        act = partial(self.open_page, name) if name in PAGES else getattr(self, f"do_{name}")
        try:
            act()
        except UserError as error:
            self.say(str(error), "bad")

    def submit(self, kind: str, **options: object) -> Command:
        """Leave a command for the supervisor, from a thread: it may first have to start one."""
        command = Command(kind, options)
        self.sent[command.id] = command
        submit = partial(self.cockpit.backend.submit, self.run_path, command)
        self.find_out(submit, partial(self._was_left, command.id))
        return command

    def _was_left(self, id: str, _command: object, problem: str) -> None:
        self.look_now()
        if problem and (command := self.sent.pop(id, None)):
            self._tell([CommandOutcome(command, False, problem)])

    def _tell(self, outcomes: list[CommandOutcome]) -> None:
        """Tell every screen that is open: whoever asked may look at another one by now."""
        for outcome in outcomes:
            for screen in self.app.screen_stack:
                if isinstance(screen, Speaking):
                    screen.hear(outcome)
            if not outcome.ok:
                self.app.bell()

    def do_start(self) -> None:
        left = self.snapshot.checkpoints
        resumable = any(file.point or file.name in ("last.pt", "nantui_stop.pt") for file in left)
        kind, lost = ("resume", self._lost) if resumable else ("start", list[str])
        self.find_out(lost, partial(self._start, kind))

    def _start(self, kind: str, lost: list[str] | None, problem: str) -> None:
        if lost:
            self._ask("start", "Resume with nantui's own runner?", ["It goes on without:", *lost])
        elif not self.may(problem):
            return
        elif self._would_diverge_again():
            self._ask("start", "Go on with the same settings?", plan_text.AGAIN)
        else:
            self.submit(kind)
            self.say(f"asked the supervisor to {kind}")

    def _would_diverge_again(self) -> bool:
        alarm = open_alarm(self.snapshot, 0.0)
        return alarm is not None and alarm.action == ENDED and not self.snapshot.waiting

    def _lost(self) -> list[str]:
        """Return what a run that nantui did not start loses under our runner; nothing for any other."""
        from nantui.recovery.plan import lost_with_our_runner

        layout = RunLayout(self.run_path)
        return [] if layout.spec.is_file() else lost_with_our_runner(RunRecord(layout))

    def do_stop(self) -> None:
        self._end(*plan_text.stop_question(self.snapshot))

    def do_kill(self) -> None:
        self._end("kill", "Kill every process of the run?", plan_text.kill_words(self.snapshot))

    def _end(self, kind: str, question: str, text: list[str]) -> None:
        """Ask and end it; what nantui did not start wants the run's name, typed."""
        status = self.snapshot.status
        if status.state != run_status.FOREIGN or not status.pids:
            self._ask(kind, question, text)
            return
        text = [
            f"nantui did not start it: {status.text}",
            "These processes and what they started are ended; shells and sessions are left alone.",
        ]
        name = clean(self.run_path.name, 80)
        self._ask(kind, f"Stop the training in {name}?", text, name, foreign=True)

    def do_undo(self) -> None:
        begun = newest_in_force(self.snapshot.journal)
        assert begun is not None, "why_not lets nobody undo nothing"
        from nantui.recovery.undo import what_it_was

        question = f"Undo {clean(what_it_was(begun, self.snapshot.journal), 120)}?"
        self._ask("undo", question, plan_text.undo_words(self.snapshot, begun), of=begun.id)

    def _ask(self, kind: str, question: str, text: list[str], name: str = "", **options: object) -> None:
        from nantui.ui.dialogs.confirm import ConfirmDialog, NameDialog

        def act() -> None:
            self.submit("resume" if kind == "start" else kind, **options)
            self.say(f"{EVERY[kind].label}: asked the supervisor")

        dialog = (
            NameDialog(question, text, name) if name else ConfirmDialog(question, text, EVERY[kind].label)
        )
        self.ask(dialog, act)

    def do_rollback(self) -> None:
        listing = self.query_one(Checkpoints)
        chosen = listing.row if listing.cursor else None
        self._open_recover("rollback", chosen.checkpoint.name if chosen else "")

    def do_recover(self) -> None:
        self._open_recover("recover")

    def _open_recover(self, kind: str, to: str = "") -> None:
        from nantui.ui.dialogs.recover import RecoverDialog

        self.app.push_screen(RecoverDialog(self, kind, to=to))

    def open_page(self, name: str) -> None:
        page = import_module(f"nantui.ui.screens.{name}")
        self.app.push_screen(getattr(page, f"{name.capitalize()}Screen")(self))

    def do_compare(self) -> None:
        from nantui.ui.screens.compare import CompareScreen

        self.app.push_screen(CompareScreen(self.run_path))

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
            dialog = DetailDialog(listing.row.checkpoint.name, partial(about_checkpoint, listing.row))
        elif isinstance(listing, Timeline) and listing.sentence is not None:
            dialog = DetailDialog("timeline", partial(about_sentence, listing.sentence))
        else:
            return
        self.app.push_screen(dialog)

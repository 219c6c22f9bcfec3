"""The screen people keep open: one run, live, with everything that can be done about it."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.widget import Widget

from nantui.checkpoint.verdict import Verdict
from nantui.run import status as run_status
from nantui.run.results import current
from nantui.run.status import RunStatus
from nantui.ui.actions import EVERY, RUN_ACTIONS, bindings
from nantui.ui.charts.series import Picture
from nantui.ui.model import checkpoint_rows
from nantui.ui.model.alarms import open_alarm
from nantui.ui.model.command_progress import CommandOutcome
from nantui.ui.model.run_charts import newest, over_time
from nantui.ui.model.snapshot import Checkpoint, RunSnapshot
from nantui.ui.model.timeline import incident_text
from nantui.ui.screens.run_commands import RunCommands
from nantui.ui.textual_internals import HeldScreen
from nantui.ui.watchers import (
    Answer,
    MachineMeasured,
    MachineWatcher,
    Pace,
    RunWatcher,
    Scanner,
    SnapshotTaken,
    Stumbled,
    VerdictsFound,
    find_out,
)
from nantui.ui.widgets.chart_wall import ChartWall
from nantui.ui.widgets.checkpoints import Checkpoints
from nantui.ui.widgets.hardware import HardwarePanel
from nantui.ui.widgets.header import Alarm, Header
from nantui.ui.widgets.keybar import KeyBar, Speaking
from nantui.ui.widgets.log import Output
from nantui.ui.widgets.timeline import Timeline

SETTING = "setting"
STALE_AFTER_S, TALL, STEP_LINES, SENTENCE_LINES = 4.0, 32, 4, 2
SETTLING_S = 0.2
CHARTS_EVERY_S, EXTRAS_EVERY_S = 2.0, 15.0
ALARM_KEYS = (("R", "recover"), ("d", "why"), ("a", "acknowledge"))
PANELS: dict[str, type[Widget]] = {
    "charts": ChartWall,
    "checkpoints": Checkpoints,
    "machine": HardwarePanel,
    "output": Output,
    "timeline": Timeline,
}
DEATH_KEYS = (("s", "resume"), ("R", "recover"), ("o", "output"), ("a", "acknowledge"))


def worth_a_bell(before: RunStatus, now: RunStatus) -> bool:
    """Whether somebody who looks elsewhere should look here: the training has ended, or was recovered."""
    ended = before.state in run_status.ACTIVE and now.state not in run_status.ACTIVE
    return ended or (before.state == run_status.RECOVERING and now.state != run_status.RECOVERING)


class RunScreen(RunCommands, HeldScreen):
    """Shows the newest snapshot; starts the threads that take them and ends them when it is left."""

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
        super().__init__(run)
        self._errand, self._came_for_it = errand, False
        self.verdicts: dict[Checkpoint, Verdict] = {}
        self.waiting: frozenset[Checkpoint] = frozenset()
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
        yield ChartWall()
        with Container(id="lower"):
            yield Checkpoints()
            with Container(id="machine"):
                yield HardwarePanel()
                yield Output()
            yield Timeline()
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(Header).read_only = self.cockpit.read_only
        self.query_one(Checkpoints).focus()
        self.set_interval(1.0, self._tick)
        watcher = RunWatcher(self.run_path, self.cockpit.backend, self.post_message)
        self.call_after_refresh(self.watch_with, watcher)

    def is_held(self) -> bool:
        """Tell whether the screen takes shape: nothing is painted until it has."""
        return self.cockpit.held

    def _first_snapshot_came(self) -> None:
        """Scan at once: badges are what people look for first."""
        self.watch_with(Scanner(self.run_path / "weights", self.cockpit.backend, self.post_message))
        self.set_timer(SETTLING_S, self._settle)

    def _settle(self) -> None:
        """Show the screen; only then look at what would have taken the processor from drawing it."""
        if self._settled:
            return
        self._settled = True
        self.cockpit.let_go()
        self.watch_with(MachineWatcher(self.run_path, self.cockpit.backend, self.post_message))
        self.look_now()

    def action_panel(self, number: int) -> None:
        """Go to a panel by its number, from left to right and down."""
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

    def on_snapshot_taken(self, message: SnapshotTaken) -> None:
        self._arrived = time.monotonic()
        if message.snapshot is None:
            self.say(f"cannot read {self.run_path}: {message.problem}", "bad")
        else:
            self.snapshot = message.snapshot
        if len(self.watchers) == 1:
            self._first_snapshot_came()
            if self._errand and self.snapshot.taken:
                self._do_errand()

    def _do_errand(self) -> None:
        """Do what was asked for among all runs; back there at once where it cannot be done."""
        reason = self.why_not(self._errand)
        if reason is None:
            self._came_for_it = True
            self.action_act(self._errand)
        else:
            self.app.pop_screen()
            for screen in self.app.screen_stack[-1:]:
                if isinstance(screen, Speaking):
                    screen.say(f"{EVERY[self._errand].label}: {reason}", "warn")

    def on_screen_resume(self) -> None:
        if self._came_for_it:
            self.call_later(self._leave_after_errand)

    def _leave_after_errand(self) -> None:
        """Go back to all runs where nothing was asked of the supervisor: what becomes of it is seen here."""
        if self._came_for_it and self.app.screen is self and not self.sent.commands:
            self.app.pop_screen()
        self._came_for_it = self._came_for_it and self.app.screen is not self

    def on_stumbled(self, message: Stumbled) -> None:
        self.say(f"{message.who}: {message.problem}", "bad")

    def on_verdicts_found(self, message: VerdictsFound) -> None:
        self.verdicts, self.waiting = message.verdicts, message.waiting
        self._show_checkpoints()
        if not message.waiting:
            self._settle()

    def on_machine_measured(self, message: MachineMeasured) -> None:
        files = self.snapshot.checkpoints if self._writes() else ()
        hours = checkpoint_rows.hours_of_room(files, message.machine.host.disk_free_gb)
        self.query_one(HardwarePanel).show(message.machine, hours)
        self._fit()

    def _writes(self) -> bool:
        """Whether a training goes on that will leave more checkpoints."""
        status = self.snapshot.status
        return status.state in run_status.ACTIVE or bool(status.pids)

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
        for watcher in self.watchers:
            if isinstance(watcher, MachineWatcher):
                watcher.pids = now.status.pids
        self.query_one(Output).show(now.log_tail)
        self._show_alarm(now)
        if worth_a_bell(before.status, now.status):
            self.app.bell()
        self._show_keys()
        if self.cockpit.narrate is not None:
            self.query_one(KeyBar).tell(self.cockpit.narrate(now.status.state, now.journal))
        if first or before.journal is not now.journal:
            self._tell(self.sent.settle(now.journal))

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
        """Draw the curves over epochs or over steps."""
        if self.snapshot.taken:
            self._charts_drawn, self._charts_of = time.monotonic(), self.snapshot
            self.wall.show(self.pictures(self.x, self.wall.view.last))

    def pictures(self, x: str, last: int = 0) -> list[Picture]:
        """Return the charts of the whole run, or of its `last` epochs or steps."""
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
            rows = checkpoint_rows.rows(self.snapshot.checkpoints, self.verdicts, self.waiting)
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
        self.query_one(Alarm).show(incident, DEATH_KEYS if died else ALARM_KEYS)
        if incident is None:
            self._rung_for = ()
            self.app.title = f"nantui {snapshot.name} {snapshot.status.state}"
            return
        self.app.title = f"ALARM {incident_text(incident.incident)}: nantui {snapshot.name}"
        rung = (incident.incident, incident.epoch, incident.attempt)
        if rung != self._rung_for:
            self._rung_for = rung
            self.app.bell()

    def _show_keys(self) -> None:
        shown = [action for action in EVERY.values() if action.bar]
        shown.sort(key=lambda action: action.bar)
        keys = ((one.shown_key, one.label, self.why_not(one.name) is None) for one in shown)
        self.query_one(KeyBar).show(tuple(keys))

    def _tick(self) -> None:
        late = time.monotonic() - self._arrived
        header = self.query_one(Header)
        header.stale = int(late) if late > STALE_AFTER_S else 0
        header.redraw()
        self._show_waiting_list()
        self.query_one(Checkpoints).grow_older(self.cockpit.backend.now())

    def on_hardware_panel_opened(self) -> None:
        self.action_act("machine")

    def action_save_setting(self, text: str) -> None:
        """Save `name=value` for the next start."""
        if self.cockpit.read_only:
            self.say("read-only: open it without --read-only to save", "warn")
        else:
            schema = self.cockpit.backend.schema
            find_out(SETTING, lambda: schema().parse_assignments([text.replace(" ", "")]), self.post_message)

    def on_answer(self, message: Answer) -> None:
        if message.about == SETTING:
            if message.problem:
                self.say(message.problem, "bad")
            else:
                self.submit("set", set=message.value)
                self.say("asked the supervisor to save it for the next start")
            return
        self.look_now()
        if message.problem:
            self._tell(self.sent.fail(message.about, message.problem))

    def _tell(self, outcomes: list[CommandOutcome]) -> None:
        """Tell every screen that is open: whoever asked may look at another one by now."""
        for outcome in outcomes:
            for screen in self.app.screen_stack:
                if isinstance(screen, Speaking):
                    screen.hear(outcome)
            if not outcome.ok:
                self.app.bell()

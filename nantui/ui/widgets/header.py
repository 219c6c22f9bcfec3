"""The two lines on top: which run, in what state, how far, how fast, how long yet, and who watches over it;
below them the alarm.
"""

from __future__ import annotations

from rich.cells import cell_len

from nantui.run import status as run_status
from nantui.run.endings import ENDINGS
from nantui.run.events import Incident, Saved, SaveFailed, newest
from nantui.run.journal import standing_attempt
from nantui.run.results import Metric
from nantui.run.status import UNSAVED
from nantui.ui.format import WORDS, clean, duration, short_path
from nantui.ui.glyphs import meter
from nantui.ui.model.reasons import open_alarm
from nantui.ui.model.snapshot import RunSnapshot
from nantui.ui.model.timeline import action_text, incident_text, where
from nantui.ui.styled_text import Line, fit, spread
from nantui.ui.styled_text import width as cells_of
from nantui.ui.widgets.line_widget import LinesWidget
from nantui.words import count

STATE_INKS = {
    run_status.STARTING: "info", run_status.RUNNING: "good", run_status.STALLED: "warn",
    run_status.STOPPING: "warn", run_status.STOPPED: "muted", run_status.FINISHED: "good",
    run_status.DIVERGED: "bad", run_status.RECOVERING: "info", run_status.FAILED: "bad",
    run_status.LOST: "bad", run_status.FOREIGN: "muted",
}  # fmt: skip
WAITS = "the next worker waits"
NAME = 16
"""Cells that the name of a run keeps beside the metric."""


class Header(LinesWidget):
    """Drawn from the newest snapshot; `stale` is how many seconds it is late."""

    def __init__(self) -> None:
        super().__init__(id="header")
        self.snapshot: RunSnapshot | None = None
        self.stale = 0

    def show(self, snapshot: RunSnapshot) -> None:
        self.snapshot = snapshot
        self.redraw()

    def build(self, width: int, height: int) -> list[Line]:
        if self.snapshot is None:
            return [[("nantui", "accent"), ("  reading..", "muted")]]
        return [self._first(self.snapshot, width), self._second(self.snapshot, width)][:height]

    def _first(self, snapshot: RunSnapshot, cells: int) -> Line:
        status = snapshot.status
        state: Line = [(f" {status.state} ", "pill-" + STATE_INKS.get(status.state, "muted"))]
        trains = status.state in (run_status.RUNNING, run_status.STARTING)
        phase = WORDS["activities"].get(snapshot.activity, "") if trains else ""
        if status.state == run_status.STARTING and status.hosts and status.text:
            phase = clean(status.text, 60)  # hosts are missing
        elif ended := ENDINGS.get(status.ending):
            shown = status.text.startswith(ended.title) and cells // 3 > len(ended.title) + 10
            phase = _beyond(status.state, clean(status.text, cells // 3) if shown else ended.title)
        waiting = f"{count(len(snapshot.waiting), 'edit')} for the next start" if snapshot.waiting else ""
        said: Line = [
            (phase, "muted"), (f"stale {self.stale} s" if self.stale else "", "warn"),
            ("read-only" if self.cockpit.read_only else "", "info"), (waiting, "info"),
            ("autopilot" if snapshot.autopilot else "", "info"), *_guard(snapshot),
        ]  # fmt: skip
        right = [span for text, ink in said if text for span in ((text, ink), ("  ", "text"))] + state
        name, room = short_path(snapshot.path), max(8, cells - cells_of(right) - 10)
        told = _metric(status.metric, room - min(cell_len(name), NAME))
        name_cells = max(8, room - cells_of(told))
        left = [("nantui ", "accent"), *fit([(name, "strong")], name_cells), *told]
        return spread(left, right, cells)

    def _second(self, snapshot: RunSnapshot, cells: int) -> Line:
        left = self._progress(snapshot)
        if under_way := _doing(snapshot):
            return spread(left, fit([(under_way, "warn")], max(8, cells - cells_of(left) - 2)), cells)
        right = self._times(snapshot)
        room = min(cells - cells_of(left) - cells_of(right) - 4, 80) if right else cells - cells_of(left) - 2
        if room < 6:
            return spread(left, right, cells)
        return spread([*left, ("  ", "text"), *meter(_share(snapshot), room, self.glyphs)], right, cells)

    def _progress(self, snapshot: RunSnapshot) -> Line:
        status = snapshot.status
        phase = status.phase
        line = _figure("phase ", phase["number"], f" of {phase['of']}  ") if phase else []
        line += _figure("epoch ", status.epoch or 0, f"/{status.epochs or '?'}")
        if status.steps_per_epoch:
            line += _figure("  step ", status.step or 0, f"/{status.steps_per_epoch}")
        if status.attempt and status.attempt > 1:
            line += _figure("  attempt ", standing_attempt(snapshot.journal, status.attempt))
        return line

    def _times(self, snapshot: RunSnapshot) -> Line:
        status, speed = snapshot.status, snapshot.steps.steps_per_s
        doubtful = snapshot.suspicious and open_alarm(snapshot, 0.0) is None
        line: Line = [("suspicious (d)", "warn"), ("  ", "text")] if doubtful else []
        active = status.state in run_status.ACTIVE
        if status.state in (run_status.RUNNING, run_status.STALLED) and speed:
            line += _figure("", f"{speed:.1f}", " step/s  ")
        # The time of later phases may not be known.
        left, of_what = status.eta_s, "  "
        if left is None and status.phase and status.phase.get("eta_s") is not None:
            left, of_what = float(status.phase["eta_s"]), " for this phase  "
        if active and left is not None:
            line += _figure("ETA ", duration(left), of_what)
        if active and snapshot.started and self.size.width >= 100:
            line += _figure("elapsed ", duration(snapshot.taken - snapshot.started), "  ")
        if self.size.width >= 120:
            line += [(_hosts(status), "muted")]
        while line and not line[-1][0].strip():
            line.pop()
        return line


class Alarm(LinesWidget):
    """Shown while an incident is neither acknowledged nor followed by a recovery."""

    def __init__(self) -> None:
        super().__init__(id="alarm")
        self.incident: Incident | None = None
        self.keys: tuple[tuple[str, str], ...] = ()
        self.display = False

    def show(self, incident: Incident | None, keys: tuple[tuple[str, str], ...] = ()) -> None:
        self.incident, self.keys = incident, keys
        if self.display != (incident is not None):
            self.display = incident is not None
        self.redraw()

    def build(self, width: int, height: int) -> list[Line]:
        if self.incident is None:
            return []
        place = where(self.incident.epoch, self.incident.step)
        what: Line = [
            (f" {self.glyphs.warn} ALARM  ", "alarm-key"),
            (incident_text(self.incident.incident), "alarm-key"),
        ]
        first = spread(what, [(f"{place} ", "alarm")], width)
        keys: Line = []
        for key, text in self.keys:
            keys += [(f" {key} ", "alarm-key"), (f"{text}  ", "alarm")]
        done = fit([(f"   {action_text(self.incident.action)}", "alarm")], max(0, width - cells_of(keys) - 2))
        return [first, fit(spread(done, keys, width), width)]


def _metric(metric: Metric | None, cells: int) -> Line:
    if metric is None:
        return []
    newest = (f"{metric.last:.3f}", "strong")
    best: Line = [(", best ", "muted"), (f"{metric.best:.3f}", "good"), (f" at {metric.best_epoch}", "muted")]
    whole: Line = [(f"  {metric.name} ", "muted"), newest, *best]
    forms = (whole, whole[:-1], whole[:2])  # a number without its name would say nothing
    return next((form for form in forms if cells_of(form) <= cells), [])


def _figure(before: str, figure: object, after: str = "") -> Line:
    return [(before, "muted"), (str(figure), "strong"), (after, "muted")]


def _doing(snapshot: RunSnapshot) -> str:
    """What is being done, else what is odd about where the run stands and its state does not say."""
    status = snapshot.status
    if text := clean((status.doing or {}).get("text") or "", 200):
        return f"{clean((status.doing or {}).get('kind') or '', 12)}: {text}"
    odd = "" if status.ending or status.hosts else status.text.partition(WAITS)[0].rstrip("; ")
    failed = isinstance(newest(snapshot.events, SaveFailed, Saved), SaveFailed)
    told = UNSAVED if failed and not odd.startswith(UNSAVED) else "", _beyond(status.state, odd)
    return clean("; ".join(filter(None, told)), 200)


def _beyond(state: str, text: str) -> str:
    """What a text says beyond the state, which stands beside it."""
    return text.removeprefix(state).lstrip(" ,:;")


def _guard(snapshot: RunSnapshot) -> Line:
    if snapshot.guard in ("observe", "off"):
        return [("guard only observes" if snapshot.guard == "observe" else "guard off, as asked", "warn")]
    if snapshot.status.guarded is None:
        return []
    return [("guarded", "good")] if snapshot.status.guarded else [("unguarded", "warn")]


def _hosts(status: run_status.RunStatus) -> str:
    if not status.hosts:
        return clean(status.host, 24)
    named = [
        f"{clean(host.host, 16)}:{','.join(map(str, host.ranks))}" for host in status.hosts if host.ranks
    ]
    return " ".join(named) or clean(status.host, 24)


def _share(snapshot: RunSnapshot) -> float:
    status = snapshot.status
    if status.state == run_status.FINISHED:
        return 1.0
    phase = status.phase or {}
    before, in_all = phase.get("epochs_before") or 0, phase.get("epochs_in_all") or status.epochs
    if not in_all or not status.epoch:
        return 0.0
    within = (status.step or 0) / status.steps_per_epoch if status.steps_per_epoch else 0.0
    return (before + status.epoch - 1 + within) / in_all

"""The machine in full: the last minutes of every GPU, what a step waits for, who holds the GPUs' memory."""

from __future__ import annotations

from statistics import median

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container

from nantui.machine.gpus import SILENT, Gpu, GpuProcess
from nantui.ui.charts.canvas import spark
from nantui.ui.context import RunView
from nantui.ui.format import clean, gigabytes
from nantui.ui.model.snapshot import StepCurves
from nantui.ui.screens.base import RunPage
from nantui.ui.styled_text import Line, column, fit
from nantui.ui.widgets.chart_wall import ChartWall
from nantui.ui.widgets.hardware import HardwarePanel
from nantui.ui.widgets.list_view import Listing

NEWEST_STEPS, WAITING_SHARE = 100, 0.3
"""A step that waits for its images for longer than this share is bound by the loader."""
NO_PROCESS = "no process holds memory of a GPU"
HEAD: Line = [(f"{'GPU':<5}{'pid':>8}{'memory':>10}  {'user':<14}{'whose':<10}command", "faint")]


class MachineScreen(RunPage):
    """Draws what the run's screen measures."""

    AUTO_FOCUS = "Listing"
    BINDINGS = [
        Binding("X", "kill", "kill", tooltip="kill every process of this run; others' are left alone")
    ]

    def __init__(self, over: RunView, panel: HardwarePanel) -> None:
        super().__init__(over)
        self.panel = panel
        self._processes: list[tuple[Gpu, GpuProcess]] = []

    def body(self) -> ComposeResult:
        with Container(id="machine-page"):
            yield ChartWall()
            yield Listing(id="processes", header=HEAD, empty=NO_PROCESS)

    def on_mount(self) -> None:
        self.set_interval(1.0, self.show)
        self.show()

    def show(self) -> None:
        sample = self.panel.sample
        if sample is not None:
            self.query_one(Listing).empty = SILENT if sample.note == SILENT else NO_PROCESS
            self._processes = [(gpu, one) for gpu in sample.gpus for one in gpu.processes]
            self._processes.sort(key=lambda pair: -(pair[1].gb or 0.0))
            self.query_one(ChartWall).show(self.panel.history.pictures())
            self.query_one(Listing).show([(gpu.index, one.pid) for gpu, one in self._processes], self._row)

    def heading(self, width: int) -> list[Line]:
        sample = self.panel.sample
        if sample is None:
            return [[("machine", "title"), ("   measuring..", "muted")]]
        busy, braille = [share / 100 for share in sample.host.busy], self.cockpit.glyphs.braille
        cores = spark(busy, -(-len(busy) // 2) if braille else len(busy), braille)
        told: Line = [("machine   ", "title"), ("cores ", "muted"), (cores, "accent")]
        return [fit([*told, (step_split(self.over.snapshot.steps), "text")], width)]

    def _row(self, index: int, width: int) -> Line:
        gpu, one = self._processes[index]
        memory = gigabytes(one.gb) if one.gb is not None else "unknown"
        whose = ("this run", "accent") if one.ours else ("other", "warn")
        line: Line = [
            (f"{gpu.index:<5}{one.pid:>8}{memory:>10}  ", "text"),
            (column(clean(one.user), 14), "muted"),
        ]
        return fit([*line, (column(whose[0], 10), whose[1]), (clean(one.command), "muted")], width)

    def action_kill(self) -> None:
        """End this run's processes, after a question; what is not of this run is left alone."""
        row = self.query_one(Listing).cursor
        if row < len(self._processes) and not self._processes[row][1].ours:
            self.say("not of this run: nantui ends only the processes of its own run", "warn")
        else:
            self.over.action_act("kill")


def step_split(steps: StepCurves) -> str:
    """Say how long the newest steps waited for their images and how long they computed."""
    whole, data = (steps.recent.get(name, ((), ()))[1][-NEWEST_STEPS:] for name in ("step_s", "data_s"))
    if not whole or not data:
        return ""
    waited, rest = median(data), max(0.0, median(whole) - median(data))
    bound = "loader" if waited > WAITING_SHARE * (waited + rest) else "compute"
    return f"   a step: {waited * 1000:.0f} ms data, {rest * 1000:.0f} ms compute: bound by the {bound}"

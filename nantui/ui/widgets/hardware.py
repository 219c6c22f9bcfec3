"""GPUs and host: memory first, since that is what ends a training; beside each figure where it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.geometry import Size

from nantui.ui.data.history import History
from nantui.ui.format import clean, duration, gigabytes
from nantui.ui.glyphs import meter
from nantui.ui.ink import Line, fit, spread, width
from nantui.ui.plot.spark import spark
from nantui.ui.widgets.lines import LinesWidget

if TYPE_CHECKING:
    from nantui.hardware import Gpu, Host, Sample

HOT_C = 85
NAME, NUMBERS = 6, 16
SCARCE_H, LOW_H, SCARCE_GB = 2.0, 12.0, 2.0


class HardwarePanel(LinesWidget):
    """One line per GPU (three where there is room), then the host."""

    def __init__(self) -> None:
        super().__init__(id="hardware", classes="panel")
        self.sample: Sample | None = None
        self.hours: float | None = None
        self._history = History()

    def show(self, sample: Sample, hours: float | None) -> None:
        """Draw another sample; `hours` is how long checkpoints of this run fit on the disk, if known."""
        before, self.sample, self.hours = self.sample, sample, hours
        self._history.add(sample)
        if before is None or len(before.gpus) != len(sample.gpus):
            self.refresh(layout=True)
        self.redraw()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return 4 + 3 * len(self.sample.gpus) if self.sample is not None else 4

    def build(self, width: int, height: int) -> list[Line]:
        sample = self.sample
        if sample is None:
            return [[("machine", "title")], [("measuring..", "muted")]]
        where = f"{len(sample.gpus)} GPU" if sample.gpus else "no GPU"
        lines = [spread([("machine", "title")], [(where, "muted")], width, self.glyphs.rule)]
        host = self._host(sample.host, width, sample.host.disk_total_gb > 0)
        rows = 1 if not sample.gpus else max(1, min(3, (height - 1 - len(host)) // len(sample.gpus)))
        for gpu in sample.gpus:
            lines += self._gpu(gpu, width)[:rows]
        return [*lines, *host][:height]

    def _gpu(self, gpu: Gpu, cells: int) -> list[Line]:
        """Memory; then the other figures; then the last minutes."""
        first = self._bar(f"GPU{gpu.index}", gpu.used_gb, gpu.total_gb, cells, self._busy(gpu, cells))
        facts: Line = [(" " * NAME, "text")]
        for value, unit, wide, ink in (
            (gpu.celsius, " C", 3, "bad" if (gpu.celsius or 0) >= HOT_C else "text"),
            (gpu.watts, " W", 4, "text"),
        ):
            if value is not None:
                facts.append((f"{value:{wide}.0f}{unit}  ", ink))
        facts += [(f"{gpu.ours_gb:5.1f} GB ours  ", "accent"), (f"{gpu.others_gb:.1f} GB others  ", "muted")]
        return [first, fit([*facts, (clean(gpu.name, 24), "faint")], cells), self._past(gpu, cells)]

    def _busy(self, gpu: Gpu, cells: int) -> Line:
        if gpu.busy is None or cells < 44:
            return []
        return [(f"  {gpu.busy:3.0f} %", "text")]

    def _past(self, gpu: Gpu, cells: int) -> Line:
        room = (cells - NAME - 15) // 2
        line: Line = [(" " * NAME, "text")]
        for label, name, ink in (
            ("busy ", f"busy{gpu.index}", "good"),
            ("memory ", f"memory{gpu.index}", "accent"),
        ):
            shares = self._history.shares(name)
            line += [(label, "faint"), (spark(shares, room, self.glyphs.braille), ink), ("  ", "text")]
        return fit(line, cells) if room >= 4 else []

    def _bar(self, name: str, used: float, total: float, cells: int, more: Line | None = None) -> Line:
        text = f" {gigabytes(used, total):>{NUMBERS}}"
        share = used / total if total else 0.0
        room = cells - NAME - width([(text, "")]) - width(more or [])
        filled, empty = meter(share, max(4, room), self.glyphs)
        ink = "bad" if share > 0.95 else "warn" if share > 0.85 else "accent"
        line: Line = [(f"{name:<{NAME}}", "muted"), (filled, ink), (empty, "faint"), (text, "text")]
        return fit([*line, *(more or [])], cells)

    def _host(self, host: Host, cells: int, disk: bool) -> list[Line]:
        bar = self._bar("RAM", host.memory_used_gb, host.memory_total_gb, cells)
        cpu: Line = [(f"{'CPU':<{NAME}}", "muted")]
        figure = f" {host.cpu:3.0f} % of {host.cores} cores"
        past = spark(self._history.shares("cpu"), max(4, cells - NAME - NUMBERS - 1), self.glyphs.braille)
        cpu += [(past, "good"), (f"{figure:>{NUMBERS + 1}}", "text")]
        return [bar, fit(cpu, cells), *([self._disk(host, cells)] if disk else [])]

    def _disk(self, host: Host, cells: int) -> Line:
        free, hours = host.disk_free_gb, self.hours
        scarce = free < SCARCE_GB or (hours is not None and hours < SCARCE_H)
        low = hours is not None and hours < LOW_H
        line: Line = [
            (f"{'disk':<{NAME}}", "muted"),
            (f"{gigabytes(free)} free", "bad" if scarce else "text"),
        ]
        if hours is not None:
            line += [
                ("  = ", "faint"),
                (duration(hours * 3600), "bad" if scarce else "warn" if low else "strong"),
            ]
            line += [(" of checkpoints", "muted")]
        return fit(line, cells)

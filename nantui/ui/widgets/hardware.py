"""GPUs and host: memory first, since that is what ends a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.geometry import Size

from nantui.ui.format import clean, gigabytes
from nantui.ui.glyphs import meter
from nantui.ui.ink import Line, fit, spread, width
from nantui.ui.widgets.lines import LinesWidget

if TYPE_CHECKING:
    from nantui.hardware import Gpu, Host, Sample

HOT_C = 85


class HardwarePanel(LinesWidget):
    """One line per GPU (two where there is room), then the host."""

    def __init__(self) -> None:
        super().__init__(id="hardware", classes="panel")
        self.sample: Sample | None = None

    def show(self, sample: Sample) -> None:
        """Draw another sample."""
        before, self.sample = self.sample, sample
        if before is None or len(before.gpus) != len(sample.gpus):
            self.refresh(layout=True)
        self.redraw()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return 3 + 2 * len(self.sample.gpus) if self.sample is not None else 3

    def build(self, width: int, height: int) -> list[Line]:
        sample = self.sample
        if sample is None:
            return [[("memory", "title")], [("measuring..", "muted")]]
        where = f"{len(sample.gpus)} GPU" if sample.gpus else "no GPU"
        lines = [spread([("memory", "title")], [(where, "muted")], width, self.glyphs.rule)]
        roomy = height >= 4 + 2 * len(sample.gpus)
        for gpu in sample.gpus:
            lines += self._gpu(gpu, width, roomy)
        return [*lines, *self._host(sample.host, width)][:height]

    def _gpu(self, gpu: Gpu, width: int, roomy: bool) -> list[Line]:
        first = self._bar(f"GPU{gpu.index}", gpu.used_gb, gpu.total_gb, width)
        if not roomy:
            return [first]
        facts: Line = [("     ", "text")]
        for value, unit, ink in (
            (gpu.busy, " %", "text"),
            (gpu.celsius, " C", "bad" if (gpu.celsius or 0) >= HOT_C else "text"),
            (gpu.watts, " W", "text"),
        ):
            if value is not None:
                facts.append((f"{value:.0f}{unit}  ", ink))
        facts += [(f"{gpu.ours_gb:.1f} ours ", "accent"), (f"{gpu.others_gb:.1f} others  ", "muted")]
        return [first, fit([*facts, (clean(gpu.name, 24), "faint")], width)]

    def _bar(self, name: str, used: float, total: float, cells: int) -> Line:
        text = f" {gigabytes(used, total)}"
        share = used / total if total else 0.0
        filled, empty = meter(share, max(4, cells - width([(text, "")]) - 5), self.glyphs)
        ink = "bad" if share > 0.95 else "warn" if share > 0.85 else "accent"
        return fit([(f"{name:<5}", "muted"), (filled, ink), (empty, "faint"), (text, "text")], cells)

    def _host(self, host: Host, cells: int) -> list[Line]:
        free = host.disk_free_gb
        line: Line = [("CPU  ", "muted"), (f"{host.cpu:3.0f} %", "text")]
        line += [("   disk ", "muted"), (f"{gigabytes(free)} free", "bad" if free < 2 else "text")]
        return [self._bar("RAM", host.memory_used_gb, host.memory_total_gb, cells), fit(line, cells)]

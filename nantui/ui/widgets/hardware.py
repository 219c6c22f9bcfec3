"""GPUs and host: memory first, since that is what ends a training; beside each figure where it came from.

What the GPUs did in the last minutes, a point every ten seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from textual.binding import Binding
from textual.geometry import Size

from nantui.machine.gpus import SILENT, Gpu, Host, Sample
from nantui.ui.charts.canvas import spark
from nantui.ui.charts.series import Curve, Picture, apart, stroke
from nantui.ui.format import clean, gigabytes
from nantui.ui.glyphs import meter
from nantui.ui.styled_text import Line, fit, spread, width
from nantui.ui.widgets.line_widget import LinesWidget
from nantui.words import count

OPEN = "screen.act('machine')"
POINT_S, MOST_POINTS = 10.0, 120
GPU_USE, GPU_MEMORY = "GPU use", "GPU memory"
UNITS = {
    GPU_USE: "%", GPU_MEMORY: "GB", "GPU power": "W", "GPU temperature": "°C", "CPU": "%", "memory": "GB",
    "disk": "MB/s", "network": "MB/s",
}  # fmt: skip
HOT_C = 85
NAME, NUMBERS = 6, 16
OTHERS_GB = 1.0
UNTIL_FULL = (" free, room for checkpoints: ", " free, room for ", ", room for ")
SCARCE_H, LOW_H, FAR_H, SCARCE_GB = 2.0, 12.0, 24.0 * 90, 2.0


class History:
    """Means over ten seconds each of what a machine was measured to do, by the title of their chart, by whose
    they are, and by slot of time; the slot that is being measured counts.
    """

    def __init__(self) -> None:
        self._charts: dict[str, dict[str, dict[int, tuple[float, int]]]] = {}

    def add(self, sample: Sample) -> None:
        slot = int(sample.t // POINT_S)
        for title, name, value in figures(sample):
            if value is not None:
                means = self._charts.setdefault(title, {}).setdefault(name, {})
                mean, number = means.get(slot, (0.0, 0))
                means[slot] = (mean + (value - mean) / (number + 1), number + 1)
                if len(means) > MOST_POINTS:
                    del means[min(means)]

    def pictures(self) -> list[Picture]:
        """Return what was measured as charts over minutes, those of the GPUs with a curve for each."""
        first = min((min(means) for found in self._charts.values() for means in found.values()), default=0)

        def curve(index: int, name: str, means: dict[int, tuple[float, int]]) -> Curve:
            points = (((slot - first) * POINT_S / 60, mean) for slot, (mean, _) in means.items())
            return Curve(name, *apart(points), *stroke(index))

        charts = {title: [*enumerate(found.items())] for title, found in self._charts.items()}
        return [
            Picture(title, tuple(curve(at, *one) for at, one in found), (), UNITS[title], "min", floor=0.0)
            for title, found in charts.items()
        ]

    def shares(self, title: str, name: str, whole: float) -> list[float]:
        """Return the finished points as shares of `whole`, oldest first; without one that under way."""
        means = self._charts.get(title, {}).get(name, {}) if whole else {}
        values = [mean / whole for mean, _ in means.values()]
        return values[:-1] or values


def figures(sample: Sample) -> Iterator[tuple[str, str, float | None]]:
    for gpu in sample.gpus:
        name = str(gpu.index)
        yield GPU_USE, name, gpu.busy
        yield GPU_MEMORY, name, gpu.used_gb
        yield "GPU power", name, gpu.watts
        yield "GPU temperature", name, gpu.celsius
    yield "CPU", "", sample.host.cpu
    yield "memory", "", sample.host.memory_used_gb
    for title, names in (("disk", ("read", "written")), ("network", ("received", "sent"))):
        for name in names:
            yield title, name, sample.host.moved.get(name)


def _grave(share: float) -> str:
    return "bad" if share > 0.95 else "warn" if share > 0.85 else "accent"


class HardwarePanel(LinesWidget, can_focus=True):
    """One line per GPU (three where there is room), then the host."""

    BINDINGS = [Binding("enter", OPEN, "the machine on the whole screen", show=False)]

    def __init__(self) -> None:
        super().__init__(id="hardware", classes="panel")
        self.sample: Sample | None = None
        self.hours: float | None = None
        self.history = History()

    @property
    def rows(self) -> int:
        sample = self.sample
        if sample is None:
            return 4
        return 4 + 3 * len(sample.gpus) + sum(2 + 2 * len(other.gpus) for _, other in sample.elsewhere)

    async def on_click(self) -> None:
        await self.run_action(OPEN)

    def show(self, sample: Sample, hours: float | None) -> None:
        """Draw another sample; `hours` is how long checkpoints of this run fit on the disk, if known."""
        rows, self.sample, self.hours = self.rows, sample, hours
        self.history.add(sample)
        if self.rows != rows:
            self.refresh(layout=True)
        self.redraw()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return self.rows

    def build(self, width: int, height: int) -> list[Line]:
        sample = self.sample
        if sample is None:
            return [[("machine", "title")], [("measuring..", "muted")]]
        none = "GPUs: no answer" if sample.note == SILENT else "no GPU"
        where = count(len(sample.gpus), "GPU") if sample.gpus else none
        title = ("machine", "cursor" if self.has_focus else "title")
        lines = [spread([title], [(where, "muted")], width, self.glyphs.rule)]
        host = self._host(sample.host, width)
        elsewhere = [line for name, other in sample.elsewhere for line in self._elsewhere(name, other, width)]
        room = height - 1 - len(host) - len(elsewhere)
        rows = 1 if not sample.gpus else max(1, min(3, room // len(sample.gpus)))
        if len(sample.gpus) > max(1, room + 1):  # the processor's line goes first
            lines += self._pairs(sample.gpus, width)
        else:
            lines += [line for gpu in sample.gpus for line in self._gpu(gpu, width)[:rows]]
        return [*lines, *host, *elsewhere][:height]

    def _elsewhere(self, name: str, other: Sample, cells: int) -> list[Line]:
        """Another host of the run: its GPUs in two lines each, and its memory."""
        title: Line = [("host ", "muted"), (clean(name, 40), "strong")]
        gpus = [line for gpu in other.gpus for line in self._gpu(gpu, cells)[:2]]
        memory = self._bar("RAM", other.host.memory_used_gb, other.host.memory_total_gb, cells)
        return [fit(title, cells), *gpus, memory]

    def _gpu(self, gpu: Gpu, cells: int) -> list[Line]:
        memory = self._bar(f"GPU{gpu.index}", gpu.used_gb, gpu.total_gb, cells)
        return [memory, self._facts(gpu, cells), self._past(gpu, cells)]

    def _pairs(self, gpus: Sequence[Gpu], cells: int) -> list[Line]:
        """Memory of two GPUs a line, where there is no room for a line each."""
        half = (cells - 2) // 2
        lines: list[Line] = []
        for one, *other in (gpus[start : start + 2] for start in range(0, len(gpus), 2)):
            right = [span for gpu in other for span in self._half(gpu, half)]
            lines.append([*self._half(one, half), ("  ", "text"), *right])
        return lines

    def _half(self, gpu: Gpu, cells: int) -> Line:
        share = gpu.used_gb / gpu.total_gb if gpu.total_gb else 0.0
        figure = f"{gpu.used_gb:3.0f} GB"
        return self._meter(f"GPU{gpu.index:<2}", share, figure, cells, _grave(share), NAME - 1)

    def _facts(self, gpu: Gpu, cells: int) -> Line:
        hot = "bad" if (gpu.celsius or 0) >= HOT_C else "text"
        known = (
            (gpu.busy, "{:3.0f} %", "text"),
            (gpu.celsius, "  {:2.0f} C", hot),
            (gpu.watts, "  {:3.0f} W", "text"),
            (gpu.others_gb, "  others {:.1f} GB", "warn" if gpu.others_gb > OTHERS_GB else "muted"),
            (gpu.ours_gb, "  ours {:.1f} GB", "accent"),
        )
        line: Line = [(" " * NAME, "text")]
        for value, form, ink in known:
            if value is not None and width(line) + len(form.format(value)) <= cells:
                line.append((form.format(value), ink))
        return fit([*line, ("  ", "text"), (clean(gpu.name, 24), "faint")], cells) if cells > 70 else line

    def _past(self, gpu: Gpu, cells: int) -> Line:
        room = (cells - NAME - 16) // 2
        line: Line = [(" " * NAME, "text")]
        for label, title, whole, ink in (
            ("busy ", GPU_USE, 100.0, "good"),
            ("memory ", GPU_MEMORY, gpu.total_gb, "accent"),
        ):
            shares = self.history.shares(title, str(gpu.index), whole)
            line += [(label, "faint"), (spark(shares, room, self.glyphs.braille), ink), ("  ", "text")]
        return fit(line, cells) if room >= 4 else []

    def _bar(self, name: str, used: float, total: float, cells: int) -> Line:
        share = used / total if total else 0.0
        return self._meter(name, share, f"{gigabytes(used, total):>{NUMBERS}}", cells, _grave(share))

    def _meter(self, name: str, share: float, figure: str, cells: int, ink: str, wide: int = NAME) -> Line:
        """A name of `wide` cells, a bar, and a figure."""
        bar = meter(share, max(2, cells - wide - 1 - len(figure)), self.glyphs, ink)
        return fit([(f"{name:<{wide}}", "muted"), *bar, (f" {figure}", "text")], cells)

    def _host(self, host: Host, cells: int) -> list[Line]:
        memory = self._bar("RAM", host.memory_used_gb, host.memory_total_gb, cells)
        busy = count(host.cores, "core") if host.cpu is None else f"{host.cpu:.0f} % of {host.cores}"
        processor = self._meter("CPU", (host.cpu or 0) / 100, f"{busy:>{NUMBERS}}", cells, "accent")
        disk = [self._disk(host, cells)] if host.disk_total_gb else []
        return [memory, *disk, processor]

    def _disk(self, host: Host, cells: int) -> Line:
        """Free space, and when checkpoints will have filled it; words go first where the line is short."""
        free, hours = host.disk_free_gb, self.hours
        scarce = free < SCARCE_GB or (hours is not None and hours < SCARCE_H)
        ink = "bad" if scarce else "warn" if hours is not None and hours < LOW_H else "strong"
        room: Line = [(f"{'disk':<{NAME}}", "muted"), (gigabytes(free), "bad" if scarce else "text")]
        if hours is None or hours > FAR_H:
            return fit([*room, (" free", "text")], cells)
        days = f"{hours / 24:.0f} d"
        left = (days if hours >= 48 else f"{hours:.0f} h" if hours >= 10 else f"{hours:.1f} h", ink)
        told = ([*room, (words, "muted"), left] for words in UNTIL_FULL)
        return next((line for line in told if width(line) <= cells), fit([*room, (" free", "text")], cells))

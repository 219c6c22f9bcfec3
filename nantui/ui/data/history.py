"""What the GPUs did in the last minutes, a point every ten seconds."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nantui.hardware import Sample

POINT_S, MOST_POINTS = 10.0, 120


class Curve:
    """Means over ten seconds each, newest last; the point that is being measured counts."""

    def __init__(self) -> None:
        self._points: deque[tuple[int, float, int]] = deque(maxlen=MOST_POINTS)

    def add(self, t: float, share: float) -> None:
        """Take a share (0 to 1) at `t`, s since the epoch."""
        slot = int(t // POINT_S)
        if self._points and self._points[-1][0] == slot:
            _, mean, count = self._points.pop()
            self._points.append((slot, mean + (share - mean) / (count + 1), count + 1))
        else:
            self._points.append((slot, share, 1))

    @property
    def shares(self) -> list[float]:
        """The finished points; while there is none, the one that is being measured."""
        points = [mean for _, mean, _ in self._points]
        return points[:-1] or points


class History:
    """The curves of one machine."""

    def __init__(self) -> None:
        self.curves: dict[str, Curve] = {}

    def add(self, sample: Sample) -> None:
        """Take a sample."""
        for gpu in sample.gpus:
            if gpu.busy is not None:
                self._add(f"busy{gpu.index}", sample.t, gpu.busy / 100)
            self._add(f"memory{gpu.index}", sample.t, gpu.used_gb / gpu.total_gb if gpu.total_gb else 0.0)

    def _add(self, name: str, t: float, share: float) -> None:
        self.curves.setdefault(name, Curve()).add(t, share)

    def shares(self, name: str) -> list[float]:
        """Return one of the curves, oldest point first, empty where nothing was measured."""
        return self.curves[name].shares if name in self.curves else []

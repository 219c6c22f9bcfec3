"""The charts of a run, made where the files are read and not where keys are answered.

A part whose data has not changed is the very same object as before, so that nothing is drawn for it.
"""

from __future__ import annotations

from typing import Any

from nantui.ui.data.pictures import epoch_charts, step_charts, step_extras
from nantui.ui.data.snapshot import RunSnapshot
from nantui.ui.plot.curves import Picture

Charts = tuple[Picture, ...]


class ChartMaker:
    """Keeps the charts of the last look; `make` returns (over epochs, over steps)."""

    def __init__(self) -> None:
        self._of_epochs: tuple[Any, ...] = ()
        self._of_steps: tuple[Any, ...] = ()
        self._epochs: Charts = ()
        self._steps: Charts = ()
        self._extras: Charts = ()

    def make(self, snapshot: RunSnapshot) -> tuple[Charts, Charts]:
        """Return the charts, those over epochs with the curves that are only known by steps at their end."""
        steps_changed = self._changed("_of_steps", snapshot.steps, snapshot.journal)
        if self._changed("_of_epochs", snapshot.rows, snapshot.journal, snapshot.steps.losses):
            self._epochs = _thinned(epoch_charts(snapshot))
        if steps_changed:
            self._steps = _thinned(step_charts(snapshot))
            self._extras = _thinned(step_extras(snapshot))
        return (*self._epochs, *self._extras), (*self._steps, *self._extras)

    def _changed(self, name: str, *parts: Any) -> bool:
        before = getattr(self, name)
        setattr(self, name, parts)
        return len(before) != len(parts) or any(
            old is not new and old != new for old, new in zip(before, parts, strict=True)
        )


def _thinned(pictures: list[Picture]) -> Charts:
    """Have long curves thinned here, where it holds up no key."""
    for picture in pictures:
        for curve in picture.curves:
            _ = curve.coarse
    return tuple(pictures)

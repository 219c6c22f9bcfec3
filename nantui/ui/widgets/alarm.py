"""The alarm: two lines that cannot be missed and take no keys away."""

from __future__ import annotations

from nantui.run.events import Incident
from nantui.ui.model.timeline import action_text, incident_text, where
from nantui.ui.styled_text import Line, fit, spread
from nantui.ui.styled_text import width as width_of
from nantui.ui.widgets.line_widget import LinesWidget


class Alarm(LinesWidget):
    """Shown while an incident is neither acknowledged nor followed by a recovery."""

    def __init__(self) -> None:
        super().__init__(id="alarm")
        self.incident: Incident | None = None
        self.keys: tuple[tuple[str, str], ...] = ()
        self.display = False

    def show(self, incident: Incident | None, keys: tuple[tuple[str, str], ...] = ()) -> None:
        """Show an incident with the keys that help, or nothing."""
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
        done = fit([(f"   {action_text(self.incident.action)}", "alarm")], max(0, width - width_of(keys) - 2))
        return [first, fit(spread(done, keys, width), width)]

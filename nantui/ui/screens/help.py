"""The keys of the screen that is open, made from its bindings."""

from __future__ import annotations

from collections.abc import Iterable

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.screen import Screen

from nantui.ui.actions import EVERY, KEY_NAMES
from nantui.ui.glyphs import SAMPLE
from nantui.ui.ink import Line, column, wrap
from nantui.ui.screens.base import Dialog
from nantui.ui.widgets.document import Document


class HelpDialog(Dialog):
    """Every key with what it does; one that cannot be used now says why."""

    BINDINGS = [("enter", "cancel", "close")]

    def __init__(self, screen: Screen[object]) -> None:
        super().__init__()
        self._of = screen

    def compose(self) -> ComposeResult:
        with Container(classes="dialog tall"):
            yield Document(write=self._write)

    def _write(self, width: int) -> list[Line]:
        lines: list[Line] = [[("Keys", "title"), ("   Esc closes", "faint")], []]
        shown: set[str] = set()
        for node in (self._of.focused, self._of, self.app):
            if node is None:
                continue
            for binding in node._bindings.key_to_bindings.values():
                lines += self._about(binding, width, shown)
        lines += [[], [("Signs: ", "muted"), (SAMPLE, "text")]]
        return lines + wrap("If these are boxes or do not line up, press A for plain ASCII.", width, "muted")

    def _about(self, bindings: Iterable[Binding], width: int, shown: set[str]) -> list[Line]:
        lines: list[Line] = []
        for binding in bindings:
            if binding.action in shown:
                continue
            shown.add(binding.action)
            name = binding.action.partition("'")[2].rstrip("')")
            text = EVERY[name].help if name in EVERY else binding.description
            reason = self._reason(name)
            key = KEY_NAMES.get(binding.key, binding.key)
            lines.append([(column(f"  {key}", 14), "key" if reason is None else "faint"), (text, "text")])
            if reason is not None:
                lines.append([(" " * 14, "text"), (f"not now: {reason}", "muted")])
        return lines

    def _reason(self, name: str) -> str | None:
        from nantui.ui.actions import RUN_ACTIONS, why_not

        if not any(action.name == name for action in RUN_ACTIONS):
            return None
        return why_not(name, getattr(self._of, "snapshot", None), getattr(self.app, "read_only", False))

"""The keys of the screen that is open, made from its bindings."""

from __future__ import annotations

from dataclasses import dataclass

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.screen import Screen

from nantui.ui.actions import EVERY, KEY_NAMES
from nantui.ui.dialogs.base import Dialog
from nantui.ui.glyphs import SAMPLE, legend
from nantui.ui.model.reasons import why_not
from nantui.ui.styled_text import Line, column, hanging, wrap
from nantui.ui.widgets.text_view import Document

SPOKEN = {
    **KEY_NAMES, "up": "Up", "down": "Down", "left": "Left", "right": "Right", "pageup": "PgUp",
    "pagedown": "PgDn", "home": "Home", "end": "End", "delete": "Del", "backspace": "Backspace",
    "shift+left": "Shift+Left", "shift+right": "Shift+Right",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One line of the help: all keys of an action, what it does, the action's name where it has one,
    and what a key runs.
    """

    group: str
    keys: str
    text: str
    name: str = ""
    action: str = ""


def keys_of_class(declaring: type, group: str) -> list[Entry]:
    """Return the bindings that our own classes declare, in their order; inherited ones last."""
    entries: dict[str, Entry] = {}
    for kind in declaring.__mro__:
        if not kind.__module__.startswith("nantui."):
            continue
        for binding in kind.__dict__.get("BINDINGS", ()):
            entry = _entry(binding if isinstance(binding, Binding) else Binding(*binding), group)
            entries.setdefault(f"{entry.group}{entry.text}{entry.name}", entry)
    return list(entries.values())


def _entry(binding: Binding, group: str) -> Entry:
    keys = " ".join(SPOKEN.get(key, key.replace("ctrl+", "^")) for key in binding.key.split(","))
    name = binding.action.partition("'")[2].rstrip("')")
    if name in EVERY:
        return Entry(EVERY[name].group, keys, EVERY[name].help, name, binding.action)
    return Entry(group, keys, binding.tooltip or binding.description, action=binding.action)


def all_keys(screen: Screen[object]) -> list[Entry]:
    """Return everything that can be pressed on `screen`, by group."""
    own = keys_of_class(type(screen), "On this screen")
    focused = keys_of_class(type(screen.focused), "In the list")
    entries = [*own, *focused, *keys_of_class(type(screen.app), "Everywhere")]
    entries = list({(entry.keys, entry.text): entry for entry in entries}.values())
    groups = list(dict.fromkeys(entry.group for entry in entries))
    return sorted(entries, key=lambda entry: groups.index(entry.group))


class HelpDialog(Dialog):
    """Every key with what it does; one that cannot be used now says why."""

    BINDINGS = [Binding("enter", "cancel", "close", show=False)]

    def __init__(self, screen: Screen[object]) -> None:
        super().__init__()
        self._entries = all_keys(screen)
        self._of = screen

    def compose(self) -> ComposeResult:
        with Container(classes="dialog tall"):
            yield Document(id="help", write=self._write)

    def on_mount(self) -> None:
        self.query_one(Document).focus()

    def _write(self, width: int) -> list[Line]:
        lines: list[Line] = [[("Keys", "title"), ("   Esc closes, j and k scroll", "faint")]]
        group = ""
        for entry in self._entries:
            if entry.group != group:
                group = entry.group
                lines += [[], [(group, "accent")]]
            lines += self._about(entry, width)
        return lines + self._legend(width)

    def _legend(self, width: int) -> list[Line]:
        """What the glyphs mean, and what to do where they are not legible."""
        lines: list[Line] = [[], [("Signs", "accent")]]
        for glyph, meaning in legend(self.cockpit.glyphs):
            lines += hanging((column(f"  {glyph}", 18), "strong"), wrap(meaning, max(10, width - 18)))
        lines += [[], [(SAMPLE, "text")]]
        return lines + wrap("If these are boxes or do not line up, press A for plain ASCII.", width, "muted")

    def _about(self, entry: Entry, width: int) -> list[Line]:
        reason = self._reason(entry.name)
        ink = "key" if reason is None else "faint"
        text = entry.text if reason is None else f"{entry.text} (not now: {reason})"
        words = wrap(text, max(10, width - 18), "text" if reason is None else "muted")
        return hanging((column(f"  {entry.keys}", 18), ink), words)

    def _reason(self, name: str) -> str | None:
        if not hasattr(self._of, "action_act"):
            return None
        return why_not(name, getattr(self._of, "snapshot", None), self.cockpit.read_only)

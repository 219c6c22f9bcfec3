"""What can be done on the screen that is open, made from its bindings: all keys, a command by its name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.screen import Screen
from textual.widgets import Input

from nantui.ui.actions import EVERY, GO, HELPS_IN_ALARM, KEY_NAMES, RUN, RUN_ACTIONS
from nantui.ui.dialogs.base import Dialog
from nantui.ui.dialogs.detail import DetailDialog
from nantui.ui.format import short_path
from nantui.ui.glyphs import SAMPLE, legend
from nantui.ui.styled_text import Line, column, fit, hanging, wrap
from nantui.ui.widgets.dialog_controls import Field
from nantui.ui.widgets.list_view import Listing

MOST_RUNS = 20
ASSIGNMENT = re.compile(r"\s*[a-z_]\w*\s*=\s*\S.*", re.IGNORECASE)
SPOKEN = {
    **KEY_NAMES, "up": "Up", "down": "Down", "left": "Left", "right": "Right", "pageup": "PgUp",
    "pagedown": "PgDn", "home": "Home", "end": "End", "delete": "Del", "backspace": "Backspace",
    "shift+left": "Shift+Left", "shift+right": "Shift+Right",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One thing to do: all its keys, what it does, its name and label where it has them, what a key runs,
    and why it cannot be done now.
    """

    group: str
    keys: str
    text: str
    name: str = ""
    action: str = ""
    label: str = ""
    reason: str | None = None

    @property
    def title(self) -> str:
        """What it is called: its label, without one what it does."""
        return self.label or self.text


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
    action = EVERY.get(binding.action.partition("'")[2].rstrip("')"))
    if action is not None:
        return Entry(action.group, keys, action.help, action.name, binding.action, action.label)
    return Entry(group, keys, binding.tooltip or binding.description, action=binding.action)


def _with_reasons(entries: Iterable[Entry], screen: Screen[object]) -> list[Entry]:
    """Return the entries, on a run's screen each with why it cannot be done now."""
    why_not = getattr(screen, "why_not", lambda name: None)
    return [replace(entry, reason=why_not(entry.name)) for entry in entries]


def all_keys(screen: Screen[object]) -> list[Entry]:
    """Return everything that can be pressed on `screen`, by group."""
    own = keys_of_class(type(screen), "On this screen")
    focused = keys_of_class(type(screen.focused), "In the list")
    entries = [*own, *focused, *keys_of_class(type(screen.app), "Everywhere")]
    entries = list({(entry.keys, entry.text): entry for entry in entries}.values())
    groups = list(dict.fromkeys(entry.group for entry in entries))
    return _with_reasons(sorted(entries, key=lambda entry: groups.index(entry.group)), screen)


def commands(screen: Screen[object]) -> list[Entry]:
    """Return what can be done on `screen`, what helps now first, and last what cannot, with the reason."""
    own = keys_of_class(type(screen), "")
    everywhere = [
        replace(one, action=f"app.{one.action}")
        for one in keys_of_class(type(screen.app), "")
        if one.name not in ("", "palette")
    ]
    if hasattr(screen, "action_act"):  # what only moves the focus is no command
        own = [entry for entry in own if entry.name]
    found = _with_reasons([*own, *everywhere], screen)
    alarm = any(entry.name == "acknowledge" and entry.reason is None for entry in found)
    urgent = HELPS_IN_ALARM if alarm else ()
    return sorted(found, key=lambda entry: (entry.reason is not None, entry.name not in urgent))


class HelpDialog(DetailDialog):
    """Every key with what it does; one that cannot be used now says why."""

    def __init__(self, over: Screen[object]) -> None:
        super().__init__("Keys", self._keys)
        self.over = over

    def _keys(self, width: int) -> list[Line]:
        lines: list[Line] = []
        group = ""
        for entry in all_keys(self.over):
            if entry.group != group:
                group = entry.group
                lines += [*([[]] if lines else []), [(group, "accent")]]
            now = entry.reason is None
            text = entry.text if now else f"{entry.text} (not now: {entry.reason})"
            head: Line = [(column(f"  {entry.keys}", 18), "key" if now else "faint")]
            lines += hanging(head, text, width, "text" if now else "muted")
        lines += [[], [("Signs", "accent")]]
        for glyph, meaning in legend(self.cockpit.glyphs):
            lines += hanging([(column(f"  {glyph}", 18), "strong")], meaning, width)
        lines += [[], [(SAMPLE, "text")]]
        return lines + wrap("If these are boxes or do not line up, press A for plain ASCII.", width, "muted")


class PaletteDialog(Dialog):
    """Type to narrow down, arrows to choose, Enter to do it."""

    BINDINGS = [
        Binding("down", "move(1)", "down", show=False, priority=True),
        Binding("up", "move(-1)", "up", show=False, priority=True),
    ]

    def __init__(self, over: Screen[object]) -> None:
        super().__init__()
        self.over = over
        self._commands: list[Entry] = []
        self._shown: list[Entry] = []

    def compose(self) -> ComposeResult:
        with Container(classes="dialog tall"):
            yield Field(placeholder="what do you want to do? also: lr0=0.005, or stop and a run")
            yield Listing(id="palette", empty="no command has these letters")

    def on_mount(self) -> None:
        self._commands = commands(self.over)
        self._narrow("")

    def on_input_changed(self, message: Input.Changed) -> None:
        self._narrow(message.value)

    def _narrow(self, typed: str) -> None:
        found = self._with_arguments(typed)
        found += [entry for entry in self._commands if matches(typed, f"{entry.title} {entry.text}")]
        if typed and not ASSIGNMENT.fullmatch(typed):
            found.sort(key=lambda entry: (entry.reason is not None, not matches(typed, entry.title)))
        self._shown = found
        listing = self.query_one(Listing)
        listing.show([entry.action for entry in found], self._row)
        listing.go(0)

    def _with_arguments(self, typed: str) -> list[Entry]:
        """Return `name=value`, and a run by a part of its path, with what to do there before it."""
        if ASSIGNMENT.fullmatch(typed) and hasattr(self.over, "action_save_setting"):
            text = typed.strip()
            action = f"save_setting({text!r})"
            return [Entry("", "", "save it for the next start", action=action, label=text)]
        *verb, name = typed.split() or [""]
        known = [one for one in RUN_ACTIONS if one.group in (RUN, GO)]
        meant = next((one for one in known if verb and one.label.lower().startswith(verb[0].lower())), None)
        if not name or (verb and meant is None and verb[0] != "open"):
            return []
        what, does = (meant.name, meant.label) if meant is not None else ("", "open")
        runs = [run for run in self.cockpit.runs if name.lower() in str(run).lower()]
        return [
            Entry("", "", f"{does} {short_path(run)}", action=f"app.visit({str(run)!r}, {what!r})")
            for run in runs[:MOST_RUNS]
        ]

    def _row(self, index: int, width: int) -> Line:
        entry = self._shown[index]
        possible, about = entry.reason is None, entry.text if entry.label else ""
        key = (column(entry.keys.partition(" ")[0], 6), "key" if possible else "faint")
        title = (column(entry.title, 15) if about else entry.title, "strong" if possible else "faint")
        return fit([key, title, (about if possible else f"not now: {entry.reason}", "muted")], width)

    def action_move(self, by: int) -> None:
        """Move the cursor while the typing goes on above."""
        self.query_one(Listing).action_move(by)

    def on_input_submitted(self) -> None:
        self._do(self.query_one(Listing).cursor)

    def on_listing_chosen(self, message: Listing.Chosen) -> None:
        self._do(message.row)

    def _do(self, row: int) -> None:
        if 0 <= row < len(self._shown):
            action, over = self._shown[row].action, self.over
            self.dismiss(None)
            self.app.call_later(over.run_action, action)


def matches(typed: str, text: str) -> bool:
    """Tell whether every typed word stands in `text`, or its first letters have the typed ones in order."""
    lowered = text.lower()
    words = typed.lower().split()
    rest = iter(lowered.split("  ")[0][:24])
    return all(word in lowered for word in words) or all(letter in rest for letter in "".join(words))

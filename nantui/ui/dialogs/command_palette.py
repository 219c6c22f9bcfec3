"""Find a command by its name: those that can be done now first, the others with the reason why not."""

from __future__ import annotations

import re
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.screen import Screen
from textual.widgets import Input

from nantui.ui.actions import APP_ACTIONS, GO, HELPS_IN_ALARM, RUN, RUN_ACTIONS, Action
from nantui.ui.dialogs.base import Dialog
from nantui.ui.dialogs.help import keys_of_class
from nantui.ui.format import clean
from nantui.ui.model.reasons import why_not
from nantui.ui.styled_text import Line, column, fit
from nantui.ui.widgets.dialog_controls import Field
from nantui.ui.widgets.list_view import Listing

MOST_RUNS = 20
ASSIGNMENT = re.compile(r"\s*[a-z_]\w*\s*=\s*\S.*", re.IGNORECASE)


@dataclass(frozen=True)
class Offer:
    """One line: the key, what it is called, what it does, the action it runs, and why it cannot be done."""

    key: str
    label: str
    text: str
    action: str
    reason: str | None = None


def offers(screen: Screen[object], read_only: bool) -> list[Offer]:
    """Return what can be done on `screen`, what helps now first, and last what cannot, with the reason."""
    snapshot = getattr(screen, "snapshot", None)

    def offer(action: Action, run: str) -> Offer:
        reason = why_not(action.name, snapshot, read_only)
        return Offer(action.shown_key, action.label, action.help, f"{run}('{action.name}')", reason)

    if hasattr(screen, "action_act"):
        found = [offer(action, "screen.act") for action in RUN_ACTIONS]
    else:
        keys = (entry for entry in keys_of_class(type(screen), "") if entry.action)
        found = [Offer(key.keys.split()[0], key.text, "", f"screen.{key.action}") for key in keys]
    found += [offer(action, "app.everywhere") for action in APP_ACTIONS if action.name != "palette"]
    alarm = why_not("acknowledge", snapshot, False) is None
    urgent = {f"screen.act('{name}')" for name in HELPS_IN_ALARM} if alarm else set()
    return sorted(found, key=lambda offer: (offer.reason is not None, offer.action not in urgent))


class PaletteDialog(Dialog):
    """Type to narrow down, arrows to choose, Enter to do it."""

    BINDINGS = [
        Binding("down", "move(1)", "down", show=False, priority=True),
        Binding("up", "move(-1)", "up", show=False, priority=True),
    ]

    def __init__(self, over: Screen[object]) -> None:
        super().__init__()
        self.over = over
        self._offers: list[Offer] = []
        self._shown: list[Offer] = []

    def compose(self) -> ComposeResult:
        with Container(classes="dialog tall"):
            yield Field(placeholder="what do you want to do? also: lr0=0.005, or stop and a run")
            yield Listing(id="palette", empty="no command has these letters")

    def on_mount(self) -> None:
        self._offers = offers(self.over, self.cockpit.read_only)
        self.query_one(Input).focus()
        self._narrow("")

    def on_input_changed(self, message: Input.Changed) -> None:
        self._narrow(message.value)

    def _narrow(self, typed: str) -> None:
        found = self._with_arguments(typed)
        found += [offer for offer in self._offers if matches(typed, f"{offer.label} {offer.text}")]
        if typed and not ASSIGNMENT.fullmatch(typed):
            found.sort(key=lambda offer: (offer.reason is not None, not matches(typed, offer.label)))
        self._shown = found
        listing = self.query_one(Listing)
        listing.show([offer.action for offer in found], self._row)
        listing.go(0)

    def _with_arguments(self, typed: str) -> list[Offer]:
        """Return `name=value`, and a run by a part of its path, with what to do there before it."""
        if ASSIGNMENT.fullmatch(typed) and hasattr(self.over, "action_save_setting"):
            text = typed.strip()
            return [Offer("", text, "save it for the next start", f"save_setting({text!r})")]
        *verb, name = typed.split() or [""]
        known = {action.label.lower(): action for action in RUN_ACTIONS if action.group in (RUN, GO)}
        action = next((known[label] for label in known if verb and label.startswith(verb[0].lower())), None)
        if not name or (verb and action is None and verb[0] != "open"):
            return []
        what, does = (action.name, action.label) if action is not None else ("", "open")
        runs = [run for run in self.cockpit.runs if name.lower() in str(run).lower()]
        shown = [(str(run), clean("/".join(run.parts[-2:]), 60)) for run in runs[:MOST_RUNS]]
        return [Offer("", f"{does} {run}", "", f"app.visit({path!r}, {what!r})") for path, run in shown]

    def _row(self, index: int, width: int) -> Line:
        offer = self._shown[index]
        possible = offer.reason is None
        key: Line = [(column(offer.key, 6), "key" if possible else "faint")]
        label = (column(offer.label, 15) if offer.text else offer.label, "strong" if possible else "faint")
        return fit([*key, label, (offer.text if possible else f"not now: {offer.reason}", "muted")], width)

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
    """Tell whether every typed word stands in `text`, or its letters do in this order."""
    lowered = text.lower()
    words = typed.lower().split()
    return all(word in lowered for word in words) or _in_order("".join(words), lowered.split("  ")[0][:24])


def _in_order(letters: str, text: str) -> bool:
    rest = iter(text)
    return all(letter in rest for letter in letters)

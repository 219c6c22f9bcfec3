"""What screens, dialogs and widgets may ask of the app and of the run's screen.

They are above, and import what is below them; nothing below imports them, not for their types either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from textual.dom import DOMNode

    from nantui.run.commands import Command
    from nantui.run.events import Event
    from nantui.ui.glyphs import Glyphs
    from nantui.ui.model.backend import Backend
    from nantui.ui.model.command_progress import Unanswered
    from nantui.ui.model.snapshot import RunSnapshot
    from nantui.ui.theme import Palette


class Cockpit(Protocol):
    """The app: what is the same on every screen."""

    backend: Backend
    glyphs: Glyphs
    inks: Palette
    read_only: bool
    runs: list[Path]
    narrate: Callable[[str, Sequence[Event]], str] | None
    held: bool
    """Nothing is painted while a screen takes shape."""

    @property
    def fleet_top(self) -> Path:
        """Where to look for all runs."""

    def let_go(self) -> None:
        """Paint the whole screen, and from now on what changes."""

    def open_run(self, run: Path, errand: str = "") -> None:
        """Show one run, and do there what the action `errand` says."""

    def can_undo(self, undo: Callable[[], str]) -> None:
        """Remember how a change of the cockpit's own is taken back; `undo` returns what to say."""

    def undo_own(self, after: float = 0.0) -> bool:
        """Take the newest of these changes back; False where none was made since `after`."""


class RunView(Protocol):
    """The run's screen, as those see it that stand over it: what is known of the run, and a way to act."""

    run_path: Path
    snapshot: RunSnapshot
    """The newest one; its `taken` is 0 before the run was read."""
    sent: Unanswered

    def follow(self, node: DOMNode, tell: Callable[[], None], *, at_once: bool = False) -> None:
        """Call `tell` for each snapshot that comes while `node` is there, with `at_once` also now."""

    def submit(self, kind: str, **options: object) -> Command:
        """Leave a command for the supervisor."""

    def action_act(self, name: str) -> None:
        """Do what the action `name` says, or say why not."""

    def look_now(self) -> None:
        """Read the run again without waiting for the next turn."""


class InCockpit:
    """A screen, a dialog or a widget of the cockpit."""

    @property
    def cockpit(self) -> Cockpit:
        """The app, as far as it may be asked."""
        return cast("Cockpit", cast("DOMNode", self).app)

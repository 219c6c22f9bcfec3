"""What screens, dialogs and widgets may ask of the app, of the run's screen, and of files, in a thread.

They are above, and import what is below them; nothing below imports them, not for their types either.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol, cast

from textual.message import Message

from nantui.errors import UserError

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
    """The app (app.py): what is the same on every screen."""

    backend: Backend
    glyphs: Glyphs
    inks: Palette
    read_only: bool
    runs: list[Path]
    narrate: Callable[[str, Sequence[Event]], str] | None

    @property
    def fleet_top(self) -> Path: ...
    def open_run(self, run: Path, errand: str = "") -> None: ...
    def can_undo(self, undo: Callable[[], str]) -> None: ...
    def undo_own(self, after: float = 0.0) -> bool: ...


class RunView(Protocol):
    """The run's screen (screens/run.py), as those see it that stand over it: what is known of the run, and
    a way to act. The `taken` of its snapshot is 0 before the run was read.
    """

    run_path: Path
    snapshot: RunSnapshot
    sent: Unanswered

    def follow(self, node: DOMNode, tell: Callable[[], None]) -> None: ...
    def submit(self, kind: str, **options: object) -> Command: ...
    def why_not(self, name: str) -> str | None: ...
    def action_act(self, name: str) -> None: ...


class Seen(Message, bubble=False):
    """What a thread saw: `take` is called with it. Where only the `latest` counts it takes the place of one
    that waits, so that a slow screen never falls behind.
    """

    def __init__(self, take: Callable[..., object], *seen: object, latest: bool = True) -> None:
        super().__init__()
        self.take, self.seen, self.latest = take, seen, latest

    def can_replace(self, message: Message) -> bool:
        return self.latest and isinstance(message, Seen) and message.take == self.take


def in_words(error: Exception) -> str:
    """Return what to say of an error; of one that nobody foresaw its kind, too."""
    return str(error) if isinstance(error, (UserError, OSError)) else f"{type(error).__name__}: {error}"


class InCockpit:
    """A screen, a dialog or a widget of the cockpit."""

    @property
    def cockpit(self) -> Cockpit:
        """The app, as far as it may be asked."""
        return cast("Cockpit", cast("DOMNode", self).app)

    def find_out(self, question: Callable[[], object], then: Callable[..., object]) -> None:
        """Answer `question` in a thread; `then` gets the answer and "", or None and what went wrong.

        The cockpit must outlive whatever a plan stumbles over; the person is told what it was.
        """
        post = cast("DOMNode", self).post_message

        def ask() -> None:
            try:
                answer = Seen(then, question(), "", latest=False)
            except Exception as error:
                answer = Seen(then, None, in_words(error), latest=False)
            post(answer)

        threading.Thread(target=ask, name="nantui-question", daemon=True).start()

    def on_seen(self, message: Seen) -> None:
        message.take(*message.seen)

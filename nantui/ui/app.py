"""The app: themes, glyphs, keys that work everywhere, and which screen comes first."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding
from textual.events import Key, Resize
from textual.geometry import Size
from textual.screen import Screen

from nantui.paths import styles_dir
from nantui.ui import preferences
from nantui.ui.actions import APP_ACTIONS, KEY_NAMES, bindings
from nantui.ui.format import clean, short_path
from nantui.ui.glyphs import ASCII, SAMPLE, UNICODE
from nantui.ui.styled_text import Line, wrap
from nantui.ui.textual_internals import SHAPING_S, NarrowApp
from nantui.ui.theme import CLASSES, NAMES, Palette, depth_of, load_theme
from nantui.ui.widgets.keybar import COMMANDS, HELP, QUIT, KeyBar, Speaking
from nantui.ui.widgets.line_widget import Inked, Title
from nantui.ui.widgets.list_view import Listing

if TYPE_CHECKING:
    from nantui.run.events import Event
    from nantui.ui.model.backend import Backend

SAMPLE_S = 20.0
SMALLEST = (70, 20)


class FirstScreen(Screen[None]):
    """Below all others: which run it is and how to leave, before what takes long to import is there."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self.place = place

    def compose(self) -> ComposeResult:
        place = short_path(self.place)
        head: Line = [("nantui ", "accent"), (place, "strong"), ("  reading..", "muted")]
        yield Title(lambda width: [head], id="header")
        yield KeyBar((HELP, COMMANDS, QUIT))


class TooSmall(Screen[None]):
    """Covers everything, and goes away by itself when there is room again."""

    def compose(self) -> ComposeResult:
        yield Title(self._lines, id="too-small")

    def on_screen_resume(self) -> None:
        """A dialog that has come over it meanwhile is closed: there may be room by now."""
        self.call_later(cast("CockpitApp", self.app).mind_the_size)

    def _lines(self, width: int) -> list[Line]:
        now = "nantui needs {} x {}, this terminal is {} x {}.".format(*SMALLEST, *self.app.size)
        return [*wrap("Enlarge it, or press q; the training goes on.", width), *wrap(now, width)]


def has_titles() -> bool:
    """Tell whether the terminal has a window with a title; the Linux console prints such a sequence."""
    return os.environ.get("TERM", "") not in ("", "linux", "dumb")


class CockpitApp(Speaking, NarrowApp):
    """The cockpit on one run, or on all runs below a directory."""

    CSS_PATH: ClassVar[list[str | PurePath]] = [*sorted(styles_dir().glob("*.tcss"))]
    COMPONENT_CLASSES: ClassVar[set[str]] = CLASSES
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None
    narrate: Callable[[str, Sequence[Event]], str] | None = None
    """Says of a run's state and journal what a newcomer wants to know."""
    BINDINGS = [
        *bindings(APP_ACTIONS, "everywhere"),
        Binding("ctrl+c", "everywhere('quit')", "quit", show=False, priority=True),
        Binding("u", "everywhere('undo_own')", "theme, alarm or saved preset as before", show=False),
    ]

    def __init__(
        self, top: Path, runs: list[Path], backend: Backend, *, ascii_only: bool = False,
        read_only: bool = False,
    ) -> None:  # fmt: skip
        """`runs` are those found below `top`; with exactly one, its screen is shown at once."""
        # Textual chooses how to leave colours out before any theme is known.
        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)
        self.top, self.runs, self.backend, self.read_only = top, runs, backend, read_only
        self.glyphs = ASCII if preferences.wants_ascii(ascii_only) else UNICODE
        self._own_changes: list[tuple[float, Callable[[], str]]] = []
        self.inks = Palette(self.get_component_styles)
        depth = depth_of(self.console.color_system, self.no_color)
        for name in NAMES:
            self.register_theme(load_theme(styles_dir() / "themes" / f"{name}.tcss", depth))
        remembered = preferences.load().get("theme")
        self.begin_with(remembered if isinstance(remembered, str) and remembered in NAMES else NAMES[0])

    def on_mount(self) -> None:
        self.theme_changed_signal.subscribe(self, self._recolour)
        self.call_after_refresh(self._open)

    def get_default_screen(self) -> Screen[Any]:
        return FirstScreen(self.runs[0] if len(self.runs) == 1 else self.top)

    def watch_title(self, title: str) -> None:
        """Put the title on the window too: an alarm is seen from another tab."""
        if has_titles():
            self.send(f"\x1b]2;{clean(title, 120)}\x07")

    def _open(self) -> None:
        """Show what was asked for; the first frame is on the terminal by now."""
        if len(self.runs) == 1:
            self.open_run(self.runs[0])
        else:
            from nantui.ui.screens.fleet import FleetScreen

            self.push_screen(FleetScreen(self.top))
        self.mind_the_size()
        gc.freeze()  # what was imported stays for good and need not be looked through
        gc.enable()
        self._show_glyphs_once()

    def _show_glyphs_once(self) -> None:
        """The first time, show the glyphs: no locale tells whether the terminal's font has them."""
        if not preferences.load() and self.glyphs.braille:
            preferences.save(signs_shown=True)
            self.set_timer(
                SHAPING_S,
                lambda: self.say(f"{SAMPLE}   boxes, or not in line? A: plain ASCII", seconds=SAMPLE_S),
            )

    def on_resize(self, event: Resize) -> None:
        self.mind_the_size(event.size)

    def mind_the_size(self, size: Size | None = None) -> None:
        """Say that the terminal is too small, until it no longer is."""
        size = size or self.size
        fits = size.width >= SMALLEST[0] and size.height >= SMALLEST[1]
        if fits and isinstance(self.screen, TooSmall):
            self.pop_screen()
        elif not fits and not isinstance(self.screen, (TooSmall, FirstScreen)):
            self.push_screen(TooSmall())

    @property
    def fleet_top(self) -> Path:
        """Where to look for all runs: the directory that was given, or the folder of the one run."""
        return self.top if self.top not in self.runs else self.top.parent

    def open_run(self, run: Path, errand: str = "") -> None:
        from nantui.ui.screens.run import RunScreen

        self.push_screen(RunScreen(run, errand))

    def action_visit(self, run: str, errand: str) -> None:
        self.open_run(Path(run), errand)

    def action_find(self) -> None:
        from nantui.ui.dialogs.choose import FindDialog

        if isinstance(self.screen.focused, Listing):
            self.push_screen(FindDialog(self.screen.focused))
        else:
            self.say("find: go to a list first, with Tab or a digit")

    def action_everywhere(self, name: str) -> None:
        if not isinstance(self.screen, TooSmall) or name in ("quit", "suspend"):
            getattr(self, f"do_{name}")()

    def has_no_use_for(self, event: Key) -> None:
        named = KEY_NAMES.get(event.key, event.character or event.key.replace("ctrl+", "^"))
        say = getattr(self.screen, "say", self.say)
        say(f"{clean(named, 20)} does nothing here; ? shows the keys")

    def do_suspend(self) -> None:
        self.action_suspend_process()

    def do_quit(self) -> None:
        self.exit(0)

    def do_help(self) -> None:
        from nantui.ui.dialogs.help import HelpDialog

        self._open_once(HelpDialog)

    def do_palette(self) -> None:
        from nantui.ui.dialogs.help import PaletteDialog

        self._open_once(PaletteDialog)

    def do_jump(self) -> None:
        from nantui.ui.dialogs.jump import JumpDialog

        self._open_once(JumpDialog)

    def _open_once(self, dialog: Callable[[Screen[Any]], Screen[Any]]) -> None:
        """Open a dialog about what is shown, none twice: each draws all below it, and only so many can."""
        if not any(type(screen) is dialog for screen in self.screen_stack):
            self.push_screen(dialog(self.screen))

    def can_undo(self, undo: Callable[[], str]) -> None:
        """Remember how a change of the cockpit's own is taken back; `undo` returns what to say."""
        self._own_changes.append((time.time(), undo))

    def undo_own(self, after: float = 0.0) -> bool:
        """Take the newest of these back; False where none was made since `after`, s since the epoch."""
        newer = bool(self._own_changes) and self._own_changes[-1][0] > after
        if newer:
            self.say(self._own_changes.pop()[1]())
        return newer

    def do_undo_own(self) -> None:
        if not self.undo_own():
            self.say("there is no change to undo")

    def do_theme(self) -> None:
        """Take the next theme and remember it."""
        self.can_undo(partial(self._take_theme, self.theme))
        self.say(self._take_theme(NAMES[(NAMES.index(self.theme) + 1) % len(NAMES)]))

    def _take_theme(self, name: str) -> str:
        self.theme = name
        preferences.save(theme=name)
        return f"theme: {name}"

    def do_ascii(self) -> None:
        self.glyphs = ASCII if self.glyphs is UNICODE else UNICODE
        preferences.save(ascii=not self.glyphs.braille)
        self._recolour()
        self.say("plain ASCII" if not self.glyphs.braille else "signs beyond ASCII; A changes back")

    def _recolour(self, _theme: object = None) -> None:
        self.inks.clear()
        for screen in self.screen_stack:
            for widget in screen.query(Inked):
                widget.recolour()

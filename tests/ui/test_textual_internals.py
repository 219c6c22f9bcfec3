"""What nantui leans on in Textual without a promise: a release that changes it turns one of these red."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pyte
import pytest
from rich.segment import Segment
from textual.app import App
from textual.color import Color
from textual.css.stylesheet import Stylesheet
from textual.dom import DOMNode
from textual.geometry import Size
from textual.reactive import reactive
from textual.screen import ModalScreen
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.theme import Theme
from textual.widget import Widget

import nantui.ui
from nantui.ui import textual_internals
from nantui.ui.textual_internals import HeldScreen, NarrowApp, NarrowUpdate, screen_rows, update_scrollbars

WIDTH, HEIGHT = 60, 5


class Counter(Widget):
    """A line whose last cell is a digit."""

    digit = 0

    def render_line(self, y):
        text = f"a header that stays as it is and a digit {self.digit}" if y == 0 else ""
        return Strip([Segment(text.ljust(self.size.width))])

    def count(self):
        self.digit += 1
        self.refresh()


class Rows(ScrollView):
    """Has its size without Textual's layout for each change of it."""

    virtual_size = reactive(Size(0, 0), repaint=False)

    def watch_virtual_size(self, _before, now):
        update_scrollbars(self, now)


class Held(HeldScreen):
    def compose(self):
        yield Counter()


class Over(ModalScreen):
    """A dialog with nothing in it."""


class Recording(NarrowApp):
    """Keeps what would be sent to a terminal."""

    CSS = "Counter { height: 1; }"

    def __init__(self):
        super().__init__()
        self.painted = []

    def get_default_screen(self):
        return Held()

    def _display(self, screen, renderable):
        self.painted.append(renderable)
        super()._display(screen, renderable)


@pytest.fixture
async def app():
    recording = Recording()
    async with recording.run_test(size=(WIDTH, HEIGHT)) as pilot:
        await pilot.pause()
        recording.painted.clear()
        recording.pilot = pilot
        yield recording


def played(*sequences):
    """Return what a terminal shows after these bytes."""
    terminal = pyte.Screen(WIDTH, HEIGHT)
    for sequence in sequences:
        pyte.Stream(terminal).feed(sequence)
    return terminal.display


async def at_rest(app):
    """Wait until nothing more is painted: what is new is painted twice at first, later on a busy machine."""
    quiet = 0
    while quiet < 5:
        before = len(app.painted)
        await app.pilot.pause(0.1)
        quiet = quiet + 1 if len(app.painted) == before else 0
    app.painted.clear()


async def changed(app):
    """Return the update that a new digit makes, and the bytes of the whole screen before it."""
    before = app.screen._compositor.render_update(full=True).render_segments(app.console)
    app.screen.query_one(Counter).count()
    await app.pilot.pause()
    (update,) = [one for one in app.painted if one is not None]
    return before, update


async def test_a_theme_to_begin_with_is_that_theme_and_the_styles_are_read_once(monkeypatch):
    app, again = Recording(), []
    monkeypatch.setattr(Stylesheet, "reparse", lambda self: again.append(self))
    app.register_theme(Theme("paper", primary="red", background="#f0e0d0", dark=False))
    app.begin_with("paper")
    async with app.run_test(size=(WIDTH, HEIGHT)):
        assert app.theme == "paper" and not again
        assert app.screen.background_colors[1] == Color.parse("#f0e0d0")
        assert app.has_class("-light-mode") and not app.has_class("-dark-mode")


async def test_a_change_comes_as_cells_that_can_be_cut_and_shows_the_same(app):
    before, update = await changed(app)
    assert isinstance(update, textual_internals.ChopsUpdate)
    update.spans = [(0, 40, 43)]
    whole = update.render_segments(app.console)
    narrow = NarrowUpdate(update.chops, update.spans, update.chop_ends).render_segments(app.console)
    assert played(before, narrow) == played(before, whole) != played(before)
    assert played(before, narrow)[0].endswith("digit 1" + " " * (WIDTH - 42))
    assert len(narrow) < len(whole) / 2


async def test_what_is_sent_to_the_terminal_is_cut(app, monkeypatch):
    sent = []
    monkeypatch.setattr(App, "_display", lambda self, screen, renderable: sent.append(renderable))
    await changed(app)
    assert [type(one) for one in sent if one is not None] == [NarrowUpdate]


async def test_a_held_screen_paints_nothing_and_all_of_it_afterwards(app):
    app.screen.held = True
    app.screen.query_one(Counter).count()
    await app.pilot.pause()
    assert app.painted == []
    app.screen.held = False
    app.screen.refresh()
    await app.pilot.pause()
    assert app.painted and "digit 1" in screen_rows(app)[0].text


async def test_below_a_dialog_a_change_is_painted_once_and_alone(app):
    below = app.screen.query_one(Counter)
    await at_rest(app)
    await app.push_screen(Over())
    await at_rest(app)
    below.count()
    await app.pilot.pause(0.1)
    (update,) = [one for one in app.painted if one is not None]
    assert {y for y, _, _ in update.spans} == {0} and "digit 1" in screen_rows(app)[0].text
    app.painted.clear()
    for _ in range(3):
        app.screen_stack[0].call_later(lambda: None)
        await app.pilot.pause(0.1)
    assert app.painted == []
    app.screen._compositor.size = Size(0, 0)  # as before its first layout
    below.count()
    await app.pilot.pause(0.1)
    app.screen._compositor.size = Size(WIDTH, HEIGHT)
    app.pop_screen()
    below.count()
    await app.pilot.pause(0.1)
    assert "digit 3" in screen_rows(app)[0].text


async def test_a_sequence_goes_to_the_terminal_as_it_is_and_nowhere_without_one(app, monkeypatch):
    written = []
    monkeypatch.setattr(app._driver, "write", written.append)
    app.send("\x1b]2;without\x07")
    monkeypatch.setattr(Recording, "is_headless", property(lambda self: False))
    app.send("\x1b]2;title\x07")
    monkeypatch.undo()
    assert written == ["\x1b]2;title\x07"]


async def test_scroll_bars_learn_a_new_size_without_a_layout(app):
    view = Rows()
    await app.screen.mount(view)
    view.virtual_size = Size(WIDTH // 2, 50)
    while view._layout_required or not view.vertical_scrollbar.display:
        await app.pilot.pause(0.01)
    view.virtual_size = Size(WIDTH // 2, 500)
    assert view.vertical_scrollbar.window_virtual_size == 500
    assert not view._layout_required


def sources():
    """Yield the tree of every module of the cockpit but the one that may use internals."""
    for path in sorted(Path(nantui.ui.__path__[0]).rglob("*.py")):
        if path != Path(textual_internals.__file__):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def test_no_other_module_imports_or_reaches_into_what_textual_keeps_to_itself():
    found = []
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                if names[0] == "textual" and any(map(is_private, names)):
                    found.append(f"{path.name}: {node.module}")
            elif isinstance(node, ast.Attribute) and is_private(node.attr):
                owner = node.value
                if isinstance(owner, ast.Name) and owner.id == "app":
                    found.append(f"{path.name}: app.{node.attr}")
    assert found == []


def own_classes():
    """Yield every class of the cockpit that Textual runs, but those of the one module."""
    for module in pkgutil.walk_packages(nantui.ui.__path__, "nantui.ui."):
        if module.name != textual_internals.__name__:
            for kind in vars(importlib.import_module(module.name)).values():
                if isinstance(kind, type) and issubclass(kind, DOMNode) and kind.__module__ == module.name:
                    yield kind


def private_names(kind):
    """Return what a class defines, or sets and reads on itself, with a leading underscore."""
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(kind)))
    of_self = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and (isinstance(node.value, ast.Name) and node.value.id == "self" or isinstance(node.value, ast.Call))
    }
    return {name for name in of_self | set(vars(kind)) if is_private(name)}


def test_no_class_of_ours_uses_or_covers_a_name_that_textual_keeps_to_itself():
    classes = list(own_classes())
    assert len(classes) > 30
    theirs = {
        base: private_names(base)
        for base in {base for kind in classes for base in kind.__mro__}
        if base.__module__.startswith("textual.")
    }
    ours = {base: private_names(base) for kind in classes for base in kind.__mro__ if base in set(classes)}
    # A name that each class has for itself, made by Python or by Textual's own metaclass.
    plain = type("Plain", (Widget,), {"cursor": reactive(0)})
    made = {name.removesuffix("cursor") for name in vars(plain) if is_private(name)}
    covered = {
        f"{kind.__name__}.{name} of {base.__name__}"
        for kind in classes
        for base in kind.__mro__
        if base in theirs
        for name in ours[kind] & theirs[base]
        if not name.startswith(tuple(made))
    }
    assert covered == set()


async def test_what_changes_in_a_dialog_and_below_it_at_once_is_both_on_the_terminal(app):
    class Speaking(ModalScreen):
        CSS = "Speaking Counter { dock: bottom; }"

        def compose(self):
            yield Counter()

    below = app.screen
    await app.push_screen(Speaking())
    await app.pilot.pause()
    app.painted.clear()
    before = app.screen._compositor.render_update(full=True, screen_stack=[below]).render_segments(
        app.console
    )
    for screen in (app.screen, below):
        counter = screen.query_one(Counter)
        counter.count()
        counter._repaint_required = False  # it has told its screen
        screen._dirty_widgets.add(counter)
    below._on_timer_update()  # what is below has its turn first
    app.screen._on_timer_update()
    await app.pilot.pause(0.1)
    sent = [one.render_segments(app.console) for one in app.painted if one is not None]
    seen = played(before, *sent)
    assert "digit 1" in seen[0] and "digit 1" in seen[-1], seen

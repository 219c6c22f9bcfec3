"""Fixtures of the cockpit's tests: an app on a synthetic run, and a home of its own for every test."""

from __future__ import annotations

import contextlib
import time

import pytest

from devtools.screen_svg import screen_text
from nantui.ui import preferences
from nantui.ui.app import CockpitApp
from tests import waiting
from tests.ui.fakes import FakeBackend
from tests.ui.synthetic import make_run


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Nothing a test does may touch, or depend on, the home of whoever runs it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("NANTUI_ASCII", raising=False)
    preferences.save(signs_shown=True)


class Driver:
    """The app with a person at its keyboard."""

    def __init__(self, app, pilot, backend):
        self.app, self.pilot, self.backend = app, pilot, backend

    @property
    def text(self):
        return screen_text(self.app)

    async def press(self, *keys):
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def eventually(self, look, what="it"):
        """Wait until `look` is true, and return what it found.

        The pilot takes a process that gets no core for one that has done all: no pause of its is long enough.
        """
        began = time.monotonic()
        while not (found := look()):
            late = time.monotonic() - began > waiting.PATIENCE_S
            assert not late, f"{what} did not come; the screen is\n{self.text}"
            await self.pilot.pause(0.05)
        return found

    async def until(self, *words, absent=()):
        """Wait until all words are on the screen and none of `absent` is; returns its text."""

        def look():
            text = self.text
            there = all(word in text for word in words) and not any(word in text for word in absent)
            return text if there else None

        return await self.eventually(look, f"{words} (without {absent})")

    async def type(self, text):
        names = {
            "=": "equals_sign",
            ".": "full_stop",
            "/": "slash",
            "-": "minus",
            " ": "space",
            "_": "underscore",
        }
        await self.press(*(names.get(letter, letter) for letter in text))


@pytest.fixture
def cockpit(tmp_path):
    """Return an async context manager: the app on a run (a synthetic one by default)."""

    @contextlib.asynccontextmanager
    async def opened(run=None, size=(120, 40), backend=None, wait=("clean",), top=None, runs=None, **more):
        made = {name: more.pop(name) for name in list(more) if name in MADE}
        if run is None and runs is None:
            run = make_run(tmp_path / f"runs{len(list(tmp_path.iterdir()))}" / "demo", **made)
        backend = backend or FakeBackend()
        runs = [run] if runs is None else runs
        app = CockpitApp(top or runs[0], runs, backend, **more)
        async with app.run_test(size=size) as pilot:
            driver = Driver(app, pilot, backend)
            await driver.until(*wait)
            yield driver

    return opened


MADE = frozenset({"epochs", "done", "steps", "nan_from", "state", "recovered", "checkpoints"})

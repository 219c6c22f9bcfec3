"""What is typed is to be seen, however high the key bar is; no key of several that come at once is lost."""

import asyncio
import pkgutil
from importlib import import_module

import pytest
from textual.events import Key

from nantui.ui import screens
from nantui.ui.widgets.dialog_controls import Field
from nantui.ui.widgets.keybar import KeyBar

SIZES = [(80, 24), (100, 30), (120, 40), (160, 45)]
WAYS = {
    "c": ("accepts", ("slash", "lr0"), ("enter", "ctrl+u")),
    "f": ("sorted by", ("slash",), ()),
    "o": ("lines", ("slash",), ()),
}
"""By the key of a screen: what tells that it is there, and the keys up to its fields."""
NAMES = {":": "colon", "?": "question_mark"}


def test_every_screen_that_is_typed_into_is_tried_here():
    kinds = {
        kind
        for module in pkgutil.iter_modules(screens.__path__)
        for kind in vars(import_module(f"{screens.__name__}.{module.name}")).values()
        if getattr(kind, "FIELD", None) is not None
    }
    assert len(kinds) == len(WAYS)


def arrive(app, *keys):
    """Let keys come in one piece, as from a paste or over a slow line; a text is its letters."""
    for key in keys:
        for one in [key] if key in ("enter", "escape", "slash", "ctrl+u") else key:
            app.post_message(Key(NAMES.get(one, one), one if len(one) == 1 else None))


async def opened(driver, key):
    await driver.press(key)
    await driver.until(WAYS[key][0])


@pytest.mark.parametrize("key", WAYS)
@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_what_is_typed_is_to_be_seen_beside_any_remark(cockpit, key, size):
    async with cockpit(size=size) as driver:
        await opened(driver, key)
        _, search, edit = WAYS[key]
        for way in filter(None, (search, edit)):
            arrive(driver.app, *way)
            field, bar = driver.app.screen.query_one(Field), driver.app.screen.query_one(KeyBar)
            for remark in ("", "a remark", "a remark of several lines " * 20):
                arrive(driver.app, "987654")
                await driver.until("987654")
                if remark:
                    bar.say(remark, whole=True)
                text = await driver.until("987654", remark[:8])
                assert text.split("\n")[-1 - bar.size.height].strip().endswith("987654")
                assert driver.app.screen.get_widget_at(1, field.region.y)[0] is field
                assert bar.region.bottom == size[1]
                arrive(driver.app, "ctrl+u")
                await driver.until(absent=("987654",))
            arrive(driver.app, *(way[1:] if way is search else ()), "enter")


async def test_keys_in_one_piece_are_taken_in_their_order(cockpit):
    async with cockpit() as driver:
        await opened(driver, "c")
        arrive(driver.app, "slash", "patience", "enter", "gj", "enter", "ctrl+u", "66", "enter")
        await driver.until("1 changed")
        assert driver.app.screen.draft.changes == {"patience": 66}


async def test_keys_behind_one_that_opens_a_dialog_go_into_it(cockpit):
    async with cockpit() as driver:
        arrive(driver.app, ":config", "enter")
        await driver.until("accepts")
        arrive(driver.app, "escape", "?")
        await driver.until("Keys")


async def test_a_key_that_never_comes_back_holds_up_the_others_only_shortly(cockpit, monkeypatch):
    async with cockpit() as driver:
        monkeypatch.setattr("nantui.ui.textual_internals.LONGEST_KEY_S", 0.0)
        monkeypatch.setattr(driver.app, "_follow", lambda way, again: asyncio.sleep(0))  # no way back
        arrive(driver.app, "d")
        await driver.until("causes")
        arrive(driver.app, "escape")
        await driver.until("clean")

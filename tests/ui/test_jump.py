"""One key puts a letter on each place, and the letter goes there: on screens, in dialogs, in fields."""

from textual.widgets import Input

from nantui.ui.dialogs.jump import LETTERS, JumpDialog, Letter
from nantui.ui.widgets.chart_wall import Chart, ChartWall
from nantui.ui.widgets.dialog_controls import Choice
from tests.ui.fakes import FakeBackend, make_plan


async def letters(driver):
    """Return the places on the screen by their letter, and that each letter stands on its place."""
    screen = driver.app.screen
    assert isinstance(screen, JumpDialog)
    for _ in range(100):
        rows, places = driver.text.split("\n"), {key: one.region for key, one in screen.places.items()}
        wrong = [key for key, at in places.items() if at and not rows[at.y][at.x :].startswith(f" {key} ")]
        if not wrong:
            break
        await driver.pilot.pause(0.05)
    assert not wrong
    return {letter: screen.places[letter] for letter, at in places.items() if at}


async def test_each_panel_and_chart_of_a_run_is_one_letter_away(cockpit):
    async with cockpit(size=(120, 40)) as driver:
        await driver.press("J")
        found = await letters(driver)
        charts = [letter for letter, widget in found.items() if isinstance(widget, Chart)]
        panels = {widget.id for widget in found.values() if not isinstance(widget, Chart)}
        assert len(charts) == 4 and panels == {"checkpoints", "hardware", "timeline"}
        await driver.press(charts[2])
        assert driver.app.focused is driver.app.screen.query_one(ChartWall)
        assert driver.app.focused.chosen == 2
        await driver.press("J")  # the wall may have more charts by now, and the letters with it
        again = await letters(driver)
        await driver.press(next(letter for letter, one in again.items() if one.id == "timeline"))
        assert driver.app.focused.id == "timeline"


async def test_any_other_letter_closes_it_and_says_so(cockpit):
    async with cockpit() as driver:
        before = driver.app.focused
        await driver.press("J", LETTERS[-1])
        await driver.until("no place has this letter")
        await driver.press("J", "escape")
        assert not isinstance(driver.app.screen, JumpDialog) and driver.app.focused is before


async def test_in_a_dialog_and_out_of_a_field(cockpit):
    async with cockpit(backend=FakeBackend(plan=make_plan())) as driver:
        await driver.press("R")
        await driver.until("Recover   y")
        await driver.press("ctrl+o")
        found = await letters(driver)
        buttons = next(letter for letter, widget in found.items() if isinstance(widget, Choice))
        await driver.press(*[letter for letter, widget in found.items() if widget.id == "candidates"])
        assert driver.app.focused.id == "candidates"
        await driver.press("J", buttons)
        assert isinstance(driver.app.focused, Choice) and not driver.backend.submitted
        await driver.press("escape", "colon")
        await driver.type("x")
        await driver.press("ctrl+o")
        assert {type(one).__name__ for one in (await letters(driver)).values()} == {"Field", "Listing"}
        await driver.press(
            next(key for key, one in (await letters(driver)).items() if not isinstance(one, Input))
        )
        assert driver.app.focused.id == "palette"


async def test_letters_follow_the_places_when_the_terminal_changes(cockpit):
    async with cockpit(size=(120, 40)) as driver:
        await driver.press("J")
        await letters(driver)
        await driver.pilot.resize_terminal(130, 36)
        await letters(driver)


async def test_letters_that_are_gone_are_not_put_anywhere(cockpit):
    async with cockpit() as driver:
        await driver.press("J")
        screen = driver.app.screen
        await letters(driver)
        await screen.query(Letter).remove()  # as when the app ends between two looks
        screen._put()
        await driver.press("escape")
        assert not isinstance(driver.app.screen, JumpDialog)

"""One key puts a letter on each place, and the letter goes there: on screens, in dialogs, in fields."""

from textual.widgets import Input

from nantui.ui.dialogs.jump import LETTERS, JumpDialog
from nantui.ui.widgets.chart_wall import Chart, ChartWall
from nantui.ui.widgets.dialog_controls import Choice
from tests.ui.fakes import FakeBackend, make_plan


async def letters(driver):
    """Return the places on the screen by their letter, and that each letter stands on its place."""

    def look():
        screen = driver.app.screen
        if not isinstance(screen, JumpDialog):
            return None
        rows, places = driver.text.split("\n"), {key: one.region for key, one in screen.places.items()}
        wrong = [key for key, at in places.items() if at and not rows[at.y][at.x :].startswith(f" {key} ")]
        return None if wrong else {letter: screen.places[letter] for letter, at in places.items() if at}

    return await driver.eventually(look, "each letter on its place")


async def test_each_panel_and_chart_of_a_run_is_one_letter_away(cockpit):
    async with cockpit(size=(120, 40)) as driver:
        run = driver.app.screen
        await driver.eventually(lambda: len(run.query_one(ChartWall).shown_charts) == 4, "four charts")
        await driver.press("J")
        found = await letters(driver)
        charts = [letter for letter, widget in found.items() if isinstance(widget, Chart)]
        panels = {widget.id for widget in found.values() if not isinstance(widget, Chart)}
        assert len(charts) == 4 and panels == {"checkpoints", "hardware", "timeline"}
        await driver.press(charts[2])
        wall = run.query_one(ChartWall)
        await driver.eventually(lambda: run.focused is wall and wall.chosen == 2, "the third chart")
        await driver.press("J")
        found = await letters(driver)
        await driver.press(next(letter for letter, one in found.items() if one.id == "timeline"))
        await driver.eventually(lambda: getattr(run.focused, "id", "") == "timeline", "the timeline")


async def test_any_other_letter_closes_it_and_says_so(cockpit):
    async with cockpit() as driver:
        run, before = driver.app.screen, driver.app.focused
        await driver.press("J", LETTERS[-1])
        await driver.until("no place has this letter")
        await driver.press("J", "escape")
        await driver.eventually(lambda: driver.app.screen is run, "the screen below")
        assert driver.app.focused is before


async def test_in_a_dialog_and_out_of_a_field(cockpit):
    async with cockpit(backend=FakeBackend(plan=make_plan())) as driver:
        await driver.press("R")
        await driver.until("Recover   y")
        await driver.press("ctrl+o")
        found = await letters(driver)
        buttons = next(letter for letter, widget in found.items() if isinstance(widget, Choice))
        await driver.press(*[letter for letter, widget in found.items() if widget.id == "candidates"])
        await driver.eventually(lambda: getattr(driver.app.focused, "id", "") == "candidates")
        await driver.press("J", buttons)
        await driver.eventually(lambda: isinstance(driver.app.focused, Choice), "the buttons")
        assert not driver.backend.submitted
        await driver.press("escape", "colon")
        await driver.type("x")
        await driver.press("ctrl+o")
        assert {type(one).__name__ for one in (await letters(driver)).values()} == {"Field", "Listing"}
        await driver.press(
            next(key for key, one in (await letters(driver)).items() if not isinstance(one, Input))
        )
        await driver.eventually(lambda: getattr(driver.app.focused, "id", "") == "palette")


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
        await screen.query(".jump").remove()  # as when the app ends between two looks
        screen._put()
        await driver.press("escape")
        assert not isinstance(driver.app.screen, JumpDialog)

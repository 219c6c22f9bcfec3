"""Any number of runs over each other: looked at with the keys of one run, read with a cursor that stays."""

from nantui.ui.widgets.chart_wall import ChartWall
from tests.ui.synthetic import make_run


async def overlaid(cockpit, tmp_path, names):
    top = tmp_path / "many"
    runs = [make_run(top / name, done=9, nan_from=None) for name in names]
    return cockpit(top=top, runs=runs, wait=(f"{len(runs)} runs",), size=(160, 45))


async def test_many_runs_are_overlaid_over_epochs_steps_and_time(cockpit, tmp_path):
    names = [f"run{letter}" for letter in "abcdefghijkl"]
    async with await overlaid(cockpit, tmp_path, names) as driver:
        for _ in names:
            await driver.press("space", "j")
        await driver.until("12 runs marked")
        await driver.press("o")
        text = await driver.until("settings that differ", "L runl")
        assert all(name in text for name in names)
        wall = driver.app.screen.query_one(ChartWall)
        assert [curve.name for curve in wall.pictures[0].curves] == list("ABCDEFGHIJKL")
        strokes = {(curve.ink, curve.dashed) for curve in wall.pictures[0].curves}
        assert len(strokes) >= 11, "curves are told apart"
        await driver.press("L", "m")
        await driver.until("log mean 5")
        await driver.press("e")
        await driver.until("curves over single steps", "step ")
        await driver.press("e")
        await driver.until("over the time of training")
        ends = [curve.xs[-1] for curve in wall.pictures[0].curves]
        assert all(end > 0 for end in ends) and wall.pictures[0].x_name in ("s", "min", "h")


async def test_enter_opens_the_chart_of_an_overlay_and_the_cursor_stays(cockpit, tmp_path):
    async with await overlaid(cockpit, tmp_path, ("one", "two", "three")) as driver:
        await driver.press("space", "j", "space", "j", "space", "o")
        await driver.until("C t", "settings that differ")
        await driver.press("l", "enter", "h", "h")
        text = await driver.until("epoch ", " A ", " B ", " C ")
        read = text.split("\n")[0]
        await driver.press("tab", "shift+tab")
        assert (await driver.until(" C ")).split("\n")[0] == read, "another chart and back"
        await driver.press("escape")
        await driver.until("settings that differ")
        assert driver.app.screen.query_one(ChartWall).view.cursor is not None

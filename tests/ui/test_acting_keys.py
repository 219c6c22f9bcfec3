"""No key is silent: it acts, also typed ahead, on a row and with the mouse, or it says why not."""

import pytest

from nantui.run.binding import bind
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec, write_spec
from nantui.ui.dialogs.help import HelpDialog
from nantui.ui.screens.run import RunScreen
from nantui.ui.widgets.chart_wall import ChartWall
from nantui.ui.widgets.checkpoints import Checkpoints
from nantui.ui.widgets.keybar import KeyBar
from tests.ui.fakes import FakeBackend, make_plan
from tests.ui.synthetic import command_done, journal, make_run


@pytest.fixture
def stopped(tmp_path):
    return make_run(tmp_path / "runs" / "demo", state="stopped")


async def test_what_is_typed_ahead_of_a_plan_chooses_in_it(cockpit, stopped):
    backend = FakeBackend(plan=make_plan())
    async with cockpit(stopped, backend=backend) as driver:
        backend.hold.clear()
        await driver.press("r", "j", "enter")
        await driver.until("working out a plan")
        backend.hold.set()
        await driver.until("Roll back   y")
        assert [asked[0] for asked in backend.asked] == [None, "epoch5.pt"], "the row below the proposed one"
        assert backend.submitted == []


async def test_a_checkpoint_under_the_cursor_is_what_r_goes_back_to(cockpit, stopped):
    backend = FakeBackend(plan=make_plan())
    async with cockpit(stopped, backend=backend) as driver:
        await driver.press("j", "j")
        chosen = driver.app.screen.query_one(Checkpoints).row.checkpoint.name
        await driver.press("r")
        await driver.until("Roll back   y")
        assert backend.asked[-1][0] == chosen


async def test_where_the_chosen_checkpoint_is_no_restore_point_another_is_proposed(cockpit, stopped):
    backend = FakeBackend(plan=make_plan())

    def plan(run, to, settings, presets, sound=backend.plan, **more):
        backend.plan_problem = ValueError("it is corrupt") if to else None
        return sound(run, to, settings, presets)

    backend.plan = plan
    async with cockpit(stopped, backend=backend) as driver:
        await driver.press("j", "r")
        await driver.until("it is corrupt", "go back to epoch6.pt", "Roll back   y")


async def test_a_saved_edit_is_seen_and_taken_back(cockpit, tmp_path):
    run = make_run(tmp_path / "runs" / "demo", nan_from=None)
    asked = {"id": "1", "kind": "set", "by": "ana", "options": {"set": {"mixup": 0.05}}}
    journal(run, kind="command", command=asked)
    async with cockpit(run, size=(120, 40)) as driver:
        await driver.until("1 edit for the next start")
        await driver.press("c")
        await driver.until("1 saved, from the next start on")
        await driver.press("u")
        await driver.until("asked the supervisor to take back what was saved: mixup")
        (command,) = driver.backend.submitted
        assert command.kind == "set" and command.options == {"back": ["mixup"]}
        journal(run, kind="command", command={**asked, "id": command.id, "options": command.options})
        command_done(run, command, True, "taken back: mixup")
        await driver.until("as in effect", "taken back: mixup")
        await driver.press("u")
        await driver.until("there is no change to undo")
        await driver.press("escape")
        await driver.until("checkpoints", absent=("for the next start",))


async def test_autopilot_is_seen(cockpit, tmp_path):
    run = make_run(tmp_path / "runs" / "demo", nan_from=None)
    write_spec(RunLayout(run).spec, Spec(train={}, created=0.0, auto=True))
    bind(run)
    async with cockpit(run) as driver:
        await driver.until("autopilot")


async def test_a_key_without_a_use_says_so(cockpit):
    async with cockpit() as driver:
        await driver.press("K")
        await driver.until("K does nothing here; ? shows the keys")
        await driver.press("c")
        await driver.until("accepts")
        await driver.press("f7")
        await driver.until("f7 does nothing here")


async def test_digits_go_to_panels_and_enter_opens_the_chart(cockpit):
    async with cockpit(size=(140, 44)) as driver:
        await driver.press("1", "l", "enter")
        await driver.until("cls", "h and l move a cursor")
        await driver.press("h", "escape")
        await driver.until("checkpoints")
        wall = driver.app.screen.query_one(ChartWall)
        assert wall.has_focus and wall.chosen == 1
        assert wall.view.cursor is not None, "the cursor stays on the small charts"
        await driver.press("5")
        assert driver.app.focused.id == "timeline"
        await driver.press("4")
        await driver.until("lines", absent=("checkpoints",))


async def test_the_mouse_opens_charts_and_presses_keys(cockpit):
    async with cockpit(size=(140, 44)) as driver:
        bar = driver.app.screen.query_one(KeyBar)
        await driver.pilot.click(KeyBar, offset=(2, bar.size.height - 1))
        await driver.until("Keys", "Esc closes")
        await driver.press("escape")
        await driver.pilot.click("#charts .chart", offset=(5, 3))
        await driver.until("h and l move a cursor")


@pytest.fixture
def fleet(tmp_path):
    top = tmp_path / "many"
    states = (("calm", "running"), ("ill", "stopped"), ("old", "finished"))
    return top, [make_run(top / name, state=state, nan_from=None) for name, state in states]


@pytest.mark.parametrize(
    ("row", "key", "shown"),
    [
        ("calm", "x", "Stop the training?"),
        ("calm", "X", "Kill every process of the run?"),
        ("ill", "c", "accepts"),
        ("calm", "d", "diagnosis"),
        ("ill", "o", "lines"),
        ("ill", "r", "Roll back   y"),
        ("calm", "R", "Recover   y"),
    ],
)
async def test_keys_act_on_the_row_and_escape_leads_back(cockpit, fleet, row, key, shown):
    top, runs = fleet
    backend = FakeBackend(plan=make_plan(), corrupt_from=None)
    async with cockpit(top=top, runs=runs, wait=("3 runs",), size=(140, 40), backend=backend) as driver:
        await driver.press("slash")
        await driver.type(row)
        await driver.press("enter", key)
        await driver.until(shown)
        shown_run = next(one for one in driver.app.screen_stack if isinstance(one, RunScreen))
        assert shown_run.run_path == top / row
        await driver.press("escape")
        await driver.until(f"many/{row}", "last incident", absent=(shown,))
        assert backend.submitted == []


async def test_a_key_that_cannot_act_on_the_row_says_why_there(cockpit, fleet):
    top, runs = fleet
    async with cockpit(top=top, runs=runs, wait=("3 runs",), size=(140, 40)) as driver:
        await driver.press("slash")
        await driver.type("fin")
        await driver.until("many/old", absent=("many/calm", "many/ill"))
        await driver.press("enter", "x")
        await driver.until("stop: nothing is running: it is finished", "last incident")


async def test_what_was_asked_of_a_row_is_followed_on_the_runs_screen(cockpit, fleet):
    top, runs = fleet
    async with cockpit(top=top, runs=runs, wait=("3 runs",), size=(140, 40)) as driver:
        await driver.press("slash")
        await driver.type("calm")
        await driver.press("enter", "x")
        await driver.until("Stop the training?")
        await driver.press("y")
        await driver.until("stop: asked the supervisor", "checkpoints")
        assert [command.kind for command in driver.backend.submitted] == ["stop"]


async def test_the_order_is_turned_round(cockpit, fleet):
    top, runs = fleet
    async with cockpit(top=top, runs=runs, wait=("3 runs",), size=(140, 30)) as driver:
        await driver.press("S", "I")
        text = await driver.until("sorted by name, reversed")
        assert text.index("many/old") < text.index("many/ill") < text.index("many/calm")


async def test_the_column_that_runs_are_sorted_by_is_marked_with_the_direction(cockpit, fleet):
    top, runs = fleet
    async with cockpit(top=top, runs=runs, wait=("3 runs",), size=(80, 24)) as driver:
        await driver.until("state ▾", absent=("▴",))
        for key, mark in (
            ("I", "state ▴"),
            ("S", "run ▴"),
            ("I", "run ▾"),
            ("S", "epoch ▾"),
            ("S", "left ▴"),
        ):
            await driver.press(key)
            text = await driver.until(mark)
            assert text.count("▴") + text.count("▾") == 1, "one column is marked"
        await driver.press("A")
        await driver.until("left ^")


async def test_a_large_terminal_shows_more_of_the_run_under_the_cursor(cockpit, fleet):
    top, runs = fleet
    async with cockpit(top=top, runs=runs, wait=("3 runs",), size=(200, 60)) as driver:
        await driver.until("box", "what happened", "checkpoints 14", "epoch11")


async def test_the_preview_says_which_checkpoints_are_clean(cockpit, fleet):
    top, runs = fleet
    (runs[1] / "weights" / "epoch6.pt").unlink()
    async with cockpit(top=top, runs=runs, wait=("3 runs",), size=(200, 60)) as driver:
        text = await driver.until("✗ corrupt    epoch11", "✓ clean      epoch6", "restore point")
        assert text.count("restore point") == 1
        fleet, scanner = driver.app.screen.watchers
        await driver.press("j")
        await driver.until("✓ clean      epoch5", absent=("epoch6",))
        assert driver.app.screen.watchers[0] is fleet and len(driver.app.screen.watchers) == 2
        scanner.join(20)
        assert not scanner.is_alive(), "the run before is scanned no longer"


async def test_a_row_of_any_list_is_found_by_its_text(cockpit):
    async with cockpit(size=(140, 44)) as driver:
        rows = driver.app.screen.query_one("#checkpoints")
        await driver.press("slash")
        await driver.type("epoch3")
        assert "epoch3" in rows.text_of(rows.cursor)
        await driver.press("escape")
        assert rows.cursor == 0, "Esc goes back to where it was"
        await driver.press("slash")
        await driver.type("clean")
        first = rows.cursor
        await driver.press("down", "enter")
        assert rows.cursor == first + 1 and "clean" in rows.text_of(rows.cursor)
        await driver.press("slash")
        await driver.type("zebra")
        await driver.until("no row has 'zebra'")


async def test_commands_take_a_setting_or_a_run(cockpit, fleet):
    top, runs = fleet
    async with cockpit(top=top, runs=runs, wait=("3 runs",), size=(140, 40)) as driver:
        await driver.press("colon")
        await driver.type("stop calm")
        await driver.until("stop many/calm")
        await driver.press("enter")
        await driver.until("Stop the training?")
        await driver.press("escape")
        await driver.until("last incident", absent=("Stop the training?",))
        await driver.press("colon")
        await driver.type("ill")
        await driver.press("enter")
        await driver.until("checkpoints", "many/ill")
        await driver.press("colon")
        await driver.type("mixup=7")
        await driver.press("enter")
        await driver.until("expects")
        await driver.press("colon")
        await driver.type("mixup=0.05")
        await driver.until("save it for the next start")
        await driver.press("enter")
        await driver.until("asked the supervisor to save it")
        assert [(one.kind, one.options) for one in driver.backend.submitted] == [
            ("set", {"set": {"mixup": 0.05}})
        ]


async def test_f1_helps_as_the_question_mark_does(cockpit, stopped):
    async with cockpit(stopped) as driver:
        await driver.press("f1")
        assert isinstance(driver.app.screen, HelpDialog)


async def test_keys_in_one_burst_close_one_dialog_and_not_the_screen_below(cockpit, stopped):
    async with cockpit(stopped) as driver:
        await driver.press("question_mark")
        dialog, below = driver.app.screen, driver.app.screen_stack[-2]
        assert isinstance(below, RunScreen)
        for _ in range(3):  # what waits in its queue while the first of them is carried out
            dialog.action_cancel()
        await driver.pilot.pause()
        assert driver.app.screen is below

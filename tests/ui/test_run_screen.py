"""The run screen: what it shows, at which sizes, and that every key acts or says why not."""

import json
import threading
from dataclasses import replace

import pytest

from nantui.recovery import plan
from nantui.run.layout import RunLayout
from nantui.run.status import RunStatus
from nantui.ui.dialogs.help import HelpDialog
from nantui.ui.screens.run import worth_a_bell
from tests.ui.fakes import MACHINE, FakeBackend, make_plan
from tests.ui.synthetic import journal, make_run


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60), (300, 100)])
async def test_everything_that_matters_is_on_the_screen_at_every_size(cockpit, size):
    async with cockpit(size=size, done=12) as driver:
        text = await driver.until(
            *("ALARM", "corrupt", "clean", "running", "epoch 12/20", "box", "cls", "dfl"),
            *("GPU0", "RAM", "checkpoints", "timeline", "? help"),
        )
        assert max(map(len, text.splitlines())) <= size[0]


async def test_alarm_names_the_nan_and_is_put_away_with_one_key(cockpit):
    async with cockpit() as driver:
        text = await driver.until("ALARM")
        assert "NaN in the BatchNorm statistics" in text and "epoch 8 step 3" in text
        assert driver.app.title.startswith("ALARM")
        await driver.press("a")
        await driver.until("clean", absent=("ALARM",))
        assert "NaN in the BatchNorm" in driver.text, "it stays in the timeline"


async def test_a_training_that_died_raises_the_alarm_until_it_is_acknowledged(cockpit):
    async with cockpit(state="failed", nan_from=None, backend=FakeBackend(corrupt_from=None)) as driver:
        await driver.until("ALARM", "the training has died", "s resume")
        await driver.press("a")
        await driver.until("clean", absent=("ALARM",))
        await driver.press("T", "u")
        await driver.until("theme: ", absent=("ALARM",))
        await driver.press("o", "u")
        await driver.until("the alarm is back")
        await driver.press("escape")
        await driver.until("ALARM", "the training has died")
        await driver.press("u")
        await driver.until("undo: there is no rollback, resume or phase to undo")


@pytest.mark.parametrize("state", ["failed", "running"])
async def test_the_alarm_offers_a_recovery_where_there_is_a_way_back_or_numbers_to_begin_again_from(
    cockpit, state
):
    dead = {"state": state, "nan_from": 8 if state == "running" else None}
    for checkpoints in (False, True):
        async with cockpit(checkpoints=checkpoints, wait=("ALARM",), **dead) as driver:
            text = await driver.until("a acknowledge")
            (offer,) = [line for line in text.splitlines() if "a acknowledge" in line]
            assert ("R recover" in offer) == (checkpoints or state == "running")


async def test_a_skipped_step_raises_no_alarm(cockpit, tmp_path):
    run = make_run(tmp_path / "quiet", nan_from=None)
    with RunLayout(run).journal.open("a") as journal:
        entry = {
            "t": 1.0,
            "kind": "incident",
            "incident": "nan_loss",
            "epoch": 3,
            "step": 2,
            "action": "skipped",
        }
        journal.write(json.dumps(entry) + "\n")
    async with cockpit(run, backend=FakeBackend(corrupt_from=None)) as driver:
        text = await driver.until("step skipped")
        assert "ALARM" not in text


async def test_no_alarm_after_a_recovery_and_old_epochs_stay_visible(cockpit):
    async with cockpit(recovered=True) as driver:
        await driver.until("rollback done")
        assert "ALARM" not in driver.text
        wall = driver.app.screen.query_one("#charts")
        assert {"old", "train", "val"} <= {curve.ink for curve in wall.pictures[0].curves}


async def test_alarm_of_a_foreign_run_comes_from_its_results(cockpit, tmp_path):
    run = make_run(tmp_path / "foreign", nan_from=6)
    import shutil

    shutil.rmtree(run / "nantui")
    async with cockpit(run) as driver:
        text = await driver.until("ALARM", "foreign")
        assert "epoch 6" in text


async def test_resuming_a_foreign_run_says_what_is_lost_and_asks(cockpit, tmp_path):
    run = make_run(tmp_path / "foreign", nan_from=None)
    import shutil

    shutil.rmtree(run / "nantui")
    async with cockpit(run, backend=FakeBackend(corrupt_from=None)) as driver:
        await driver.until("foreign")
        await driver.press("s")
        await driver.until("It goes on without", "whatever its script adds")
        assert driver.backend.submitted == []
        await driver.press("right", "enter")
        await driver.until("asked the supervisor")
        assert [command.kind for command in driver.backend.submitted] == ["resume"]


async def test_stop_asks_first_and_cancel_is_the_default(cockpit):
    async with cockpit() as driver:
        await driver.press("x")
        await driver.until("Stop the training?", "[ Cancel ]")
        await driver.press("enter")
        await driver.until("ALARM", absent=("Stop the training?",))
        assert driver.backend.submitted == []
        await driver.press("x", "right", "enter")
        await driver.until("asked the supervisor")
        assert [command.kind for command in driver.backend.submitted] == ["stop"]


@pytest.mark.parametrize(("key", "kind"), [("x", "stop"), ("X", "kill")])
async def test_confirmed_actions_leave_one_command(cockpit, key, kind):
    async with cockpit() as driver:
        await driver.press(key)
        await driver.until("[ Cancel ]")
        await driver.press("y")
        await driver.until("asked the supervisor")
        assert [command.kind for command in driver.backend.submitted] == [kind]


async def test_undo_of_a_finished_rollback(cockpit):
    async with cockpit(recovered=True, state="stopped") as driver:
        await driver.press("u")
        await driver.until("Undo the rollback to epoch6.pt (epoch 7)?")
        await driver.press("y")
        await driver.until("asked the supervisor")
        (command,) = driver.backend.submitted
        assert (command.kind, command.options) == ("undo", {"of": "r1"}), "the one that was shown"


async def test_after_an_undo_the_header_names_the_attempt_that_stands(cockpit, tmp_path):
    run = make_run(tmp_path / "demo", recovered=True, state="stopped")
    supervisor = RunLayout(run).supervisor
    supervisor.write_text(json.dumps({**json.loads(supervisor.read_text()), "attempt": 2}))
    journal(run, kind="in_effect", attempt=1, values={"guard": "observe"})
    journal(run, kind="in_effect", attempt=2, values={"guard": "protect"})
    async with cockpit(run, size=(140, 40)) as driver:
        await driver.until("attempt 2  ", absent=("only observes",))
        journal(run, kind="undo_begun", id="u1", of="r1", steps=[])
        journal(run, kind="undo_done", id="u1", of="r1", text="the rollback was taken back")
        await driver.until("attempt 1  ", "undo done", "guard only observes")


async def test_start_resumes_where_there_is_a_checkpoint_and_starts_where_there_is_none(cockpit, tmp_path):
    ours = make_run(tmp_path / "ours", state="stopped")
    (ours / "nantui" / "spec.yaml").write_text("{}\n")
    async with cockpit(ours) as driver:
        await driver.press("s")
        await driver.until("asked the supervisor to resume")
        assert driver.backend.submitted[0].kind == "resume"
    run = make_run(tmp_path / "new", state="stopped", nan_from=None, checkpoints=False)
    async with cockpit(run, wait=("none yet",)) as driver:
        await driver.press("s")
        await driver.until("asked the supervisor to start")
        assert driver.backend.submitted[0].kind == "start"


async def test_what_diverged_is_asked_about_before_the_same_settings_go_on(cockpit, tmp_path):
    run = make_run(tmp_path / "ours", state="stopped")  # as after an undo
    (run / "nantui" / "spec.yaml").write_text("{}\n")
    about = {"attempt": 1, "epoch": 8, "step": 4, "text": "gave up"}
    journal(run, t=1_763_750_300.0, kind="incident", incident="too_many_skips", action="ended", **about)
    async with cockpit(run) as driver:
        await driver.press("s")
        await driver.until("Go on with the same settings?", "R goes back")
        assert driver.backend.submitted == []
        await driver.press("y")
        await driver.until("asked the supervisor")
        assert driver.backend.submitted[0].kind == "resume"


async def test_a_run_of_somebodys_own_script_is_resumed_after_a_word_of_what_is_lost(cockpit):
    async with cockpit(state="stopped") as driver:
        await driver.press("s")
        await driver.until("Resume with nantui's own runner?", "a trainer class, callbacks")
        assert driver.backend.submitted == []
        await driver.press("y")
        await driver.until("asked the supervisor")
        assert driver.backend.submitted[0].kind == "resume"


async def test_files_that_do_not_answer_hold_up_no_key_after_s(cockpit, monkeypatch):
    hold = threading.Event()

    def lost(record):
        assert hold.wait(20)
        return ["its own script"]

    monkeypatch.setattr(plan, "lost_with_our_runner", lost)
    async with cockpit(state="stopped") as driver:
        await driver.press("s", "T")
        await driver.until("theme:")
        hold.set()
        await driver.until("Resume with nantui's own runner?", "its own script")


@pytest.mark.parametrize(
    ("key", "state", "reason"),
    [
        ("s", "running", "already running"),
        ("s", "finished", "finished"),
        ("x", "stopped", "nothing is running"),
        ("X", "stopped", "nothing is running"),
        ("r", "running", "stop it first"),
        ("u", "stopped", "no rollback, resume or phase to undo"),
    ],
)
async def test_a_key_that_cannot_act_says_why(cockpit, key, state, reason):
    async with cockpit(state=state) as driver:
        await driver.press(key)
        await driver.until(reason)
        assert driver.backend.submitted == []


@pytest.mark.parametrize("key", ["s", "x", "X", "r", "R", "u"])
async def test_read_only_changes_nothing(cockpit, key):
    async with cockpit(state="stopped", read_only=True) as driver:
        await driver.press(key)
        await driver.until("read-only: open it without")
        assert driver.backend.submitted == []


async def test_looking_keys(cockpit):
    async with cockpit(size=(120, 40)) as driver:
        await driver.press("L")
        await driver.until("box log")
        await driver.press("L", "m")
        await driver.until("mean 5")
        await driver.press("w")
        await driver.until("whole y range")
        await driver.press("e")
        await driver.until("curves over single steps")
        await driver.press("e")
        await driver.until("curves over the time of training")
        await driver.press("e")
        await driver.until("curves over epochs")


async def test_the_newest_part_of_the_curves(cockpit):
    async with cockpit(size=(120, 40), done=40, epochs=60, nan_from=None) as driver:
        wall = driver.app.screen.query_one("#charts")
        await driver.press("t", "t")
        await driver.until("the last 20 epochs", "box last 20")
        assert wall.pictures[0].curves[0].xs[0] == 21.0
        await driver.press("t", "e", "t", "t")
        await driver.until("the last 200 steps")
        assert len(wall.pictures[0].curves[0].xs) == 200
        await driver.press("e", "e")
        await driver.until("curves over epochs", absent=("last 200",))


async def test_gpus_have_a_past_and_it_is_told_when_the_disk_will_be_full(cockpit):
    backend = FakeBackend()
    backend.machine = replace(backend.machine, host=replace(backend.machine.host, disk_free_gb=0.05))
    async with cockpit(size=(200, 60), nan_from=None, backend=backend) as driver:
        await driver.until("97 %", "61 C", "412 W", "busy", "memory", "free, room for checkpoints: 8 d")


async def test_many_gpus_share_lines_where_there_are_few(cockpit):
    backend = FakeBackend()
    gpus = tuple(replace(backend.machine.gpus[0], index=index) for index in range(8))
    backend.machine = replace(backend.machine, gpus=gpus)
    async with cockpit(size=(80, 24), backend=backend) as driver:
        text = await driver.until("GPU0", "GPU7", "21 GB")
        assert "NaN in the" in text[text.index("timeline") :], "what happened last keeps its line"


async def test_charts_that_do_not_fit_are_a_page_away(cockpit):
    async with cockpit(size=(80, 24)) as driver:
        assert "learning rate" not in driver.text
        await driver.press("right_square_bracket")
        await driver.until("learning rate", "page 2 of")
        await driver.press("left_square_bracket")
        await driver.until("box")


async def test_enter_opens_findings_and_escape_returns(cockpit):
    async with cockpit() as driver:
        await driver.press("g", "enter")
        text = await driver.until("laundered", "running_var")
        assert "its weights are ruined" in text
        await driver.press("escape")
        await driver.until("ALARM", absent=("running_var",))


async def test_vi_keys_and_arrows_move_alike(cockpit):
    async with cockpit() as driver:
        listing = driver.app.screen.query_one("#checkpoints")
        await driver.press("j", "j", "down", "k")
        assert listing.cursor == 2
        await driver.press("G")
        assert listing.cursor == listing.rows - 1
        await driver.press("home")
        assert listing.cursor == 0
        await driver.press("tab")
        assert driver.app.focused.id == "hardware"
        await driver.press("tab")
        assert driver.app.focused.id == "timeline"


async def test_the_palette_offers_what_can_be_done_and_says_why_the_rest_cannot(cockpit):
    async with cockpit() as driver:
        await driver.press("colon")
        text = await driver.until("not now: it is already running")
        assert text.index("recover") < text.index("stop, roll") < text.index("not now:")
        assert text.index("acknowledge") < text.index("data labels"), "with an alarm, first what helps"
        await driver.type("kill")
        await driver.press("enter")
        await driver.until("Kill every process of the run?")


async def test_quit_leaves_with_status_zero(cockpit):
    async with cockpit() as driver:
        await driver.press("q")
        assert driver.app.return_value == 0


async def test_started_too_small_it_draws_nothing_but_that(cockpit):
    async with cockpit(size=(60, 15), wait=("nantui needs 70 x 20, this terminal is 60 x 15",)) as driver:
        await driver.pilot.pause(0.5)
        assert "epoch" not in driver.text and "checkpoints" not in driver.text
        await driver.pilot.resize_terminal(100, 30)
        await driver.until("checkpoints", absent=("nantui needs",))


@pytest.mark.parametrize("size", [(1, 1), (20, 5), (40, 10), (69, 19)])
async def test_however_small_it_becomes_nothing_breaks(cockpit, size):
    async with cockpit(backend=FakeBackend(plan=make_plan())) as driver:
        for keys in ((), ("R",), ("question_mark",), ("z",), ("c",)):
            await driver.press(*keys)
            await driver.pilot.resize_terminal(*size)
            await driver.pilot.pause(0.1)
            await driver.pilot.resize_terminal(100, 30)
            await driver.press("escape")
            await driver.until(absent=("nantui needs",))


async def test_dialogs_about_the_screen_do_not_pile_up(cockpit):
    async with cockpit() as driver:
        for key in ("f1", "ctrl+p", "f1", "ctrl+p", "ctrl+o", "f1", "ctrl+p"):
            await driver.press(key)
        assert len(driver.app.screen_stack) <= 5


async def test_what_comes_over_the_word_of_too_little_room_leaves_it_behind(cockpit):
    async with cockpit() as driver:
        await driver.pilot.resize_terminal(40, 10)
        await driver.until("nantui needs")
        deep = len(driver.app.screen_stack)
        await driver.press("question_mark", "colon", "J")
        assert len(driver.app.screen_stack) == deep, "there is no room for a dialog"
        driver.app.push_screen(HelpDialog(driver.app.screen))  # as one may that has waited for an answer
        await driver.pilot.resize_terminal(100, 30)
        await driver.until("Keys")
        await driver.press("escape")
        await driver.until("checkpoints", absent=("nantui needs",))


async def test_too_small_says_so_and_recovers(cockpit):
    async with cockpit() as driver:
        await driver.pilot.resize_terminal(60, 15)
        await driver.until("nantui needs 70 x 20")
        await driver.pilot.resize_terminal(100, 30)
        await driver.until("checkpoints", absent=("nantui needs",))


@pytest.mark.parametrize(
    ("before", "now", "rings"),
    [
        ("running", "finished", True), ("running", "failed", True), ("stopping", "stopped", True),
        ("recovering", "starting", True), ("running", "running", False), ("running", "stalled", False),
        ("stopped", "starting", False), ("diverged", "recovering", False),
    ],
)  # fmt: skip
def test_the_bell_rings_at_an_end_and_after_a_recovery(tmp_path, before, now, rings):
    assert worth_a_bell(RunStatus(tmp_path, before), RunStatus(tmp_path, now)) is rings


async def test_ages_are_whole_beside_a_scroll_bar(cockpit):
    async with cockpit(size=(160, 45), done=60, epochs=80) as driver:
        await driver.until("epoch55")
        rows = [line[:45].rstrip() for line in driver.text.splitlines() if " epoch5" in line[:45]]
        assert len(rows) > 3 and all(row.endswith("m") for row in rows), rows


@pytest.mark.parametrize(("state", "fills"), [("running", True), ("finished", False)])
async def test_only_a_training_that_goes_on_fills_the_disk(cockpit, state, fills):
    async with cockpit(state=state, size=(120, 40)) as driver:
        driver.backend.machine = replace(MACHINE, host=replace(MACHINE.host, disk_free_gb=0.001))
        await driver.until("disk  0.0 GB")
        assert ("room for" in driver.text) is fills

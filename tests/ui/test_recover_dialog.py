"""R: the plan, one confirmation with Cancel as default, progress, what is in effect, and failure."""

import asyncio
import json
from dataclasses import asdict

import pytest

from nantui.errors import UserError
from nantui.run.layout import RunLayout
from nantui.run.points import StepPoint
from nantui.ui.dialogs import recover
from tests.ui.fakes import FakeBackend, make_plan, point_candidate
from tests.ui.synthetic import journal, make_run, write_results


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "runs" / "demo")


def leave_point(run):
    """Leave a step point of what trains: four bytes stand for its file."""
    layout = RunLayout(run)
    layout.points.mkdir()
    layout.point("a").write_bytes(b"here")
    point = StepPoint("a", 1, 12, 3, 40, 443, 1_763_750_000.0, 4, "", {})
    layout.point_header("a").write_text(json.dumps(asdict(point)))


async def test_the_plan_says_what_moves_what_it_costs_and_what_changes(cockpit, run):
    async with cockpit(run, backend=FakeBackend(plan=make_plan()), size=(120, 60)) as driver:
        await driver.press("R")
        text = await driver.until("epoch6.pt", "[ Cancel ]")
        for word in (
            "at the next batch boundary",
            "5 epochs to train again",
            "about 1 h",
            "corrupted_backup/last_epoch8_corrupted.pt",
            "lr0",
            "0.01",
            "0.003",
            "explosion",
            "kept: yours is safer",
            "unknown",
            "Why not keep my learning rate?",
            "Why not best.pt?",
        ):
            assert word in text, f"{word} not in\n{text}"
        assert "laundered" in text, "why another candidate is out"


@pytest.mark.parametrize("size", [(80, 24), (160, 45)])
async def test_a_step_point_stands_beside_the_epochs_and_can_be_chosen(cockpit, run, size):
    plan = make_plan()
    plan.candidates = (plan.candidates[0], point_candidate(), *plan.candidates[1:])
    async with cockpit(run, backend=FakeBackend(plan=plan), size=size) as driver:
        await driver.press("R")
        text = await driver.until("epoch 12 step 1,240", "520 steps again", "2m ago")
        assert text.index("epoch6.pt") < text.index("epoch 12 step 1,240")
        await driver.press("down", "enter")
        await driver.until("Recover   y")
        assert driver.backend.asked[-1][0] == "epoch12-step1240" and driver.backend.submitted == []


async def test_enter_cancels_and_nothing_is_done(cockpit, run):
    async with cockpit(run, backend=FakeBackend(plan=make_plan())) as driver:
        await driver.press("R")
        await driver.until("epoch6.pt", "Recover   y")
        assert driver.backend.wanted == [True], "the next worker is brought up while the plan is read"
        await driver.press("enter")
        await driver.until("ALARM", absent=("what people ask",))
        assert driver.backend.submitted == []
        while len(driver.backend.wanted) < 2:
            await asyncio.sleep(0.01)
        assert driver.backend.wanted == [True, False], "and no longer wanted"


def let_it_be(run, **state):
    """Let the supervisor say where the run stands."""
    file = RunLayout(run).supervisor
    file.write_text(json.dumps({**json.loads(file.read_text()), **state}))


async def test_a_plan_for_a_training_that_has_ended_meanwhile_is_made_anew(cockpit, run):
    async with cockpit(run, backend=FakeBackend(plan=make_plan())) as driver:
        await driver.press("R")
        await driver.until("stops       the running attempt", "Recover   y")
        let_it_be(run, state="failed")
        await driver.until("the run is failed now: this plan was made anew", absent=("stops       the",))
        assert len(driver.backend.asked) == 2 and driver.backend.submitted == []
        let_it_be(run, state="running", attempt=2)
        await driver.until("the run is running now: this plan was made anew", "stops       the running")


async def test_what_cannot_be_done_any_more_is_not_asked_for(cockpit, run):
    let_it_be(run, state="stopped")
    async with cockpit(run, backend=FakeBackend(plan=make_plan())) as driver:
        await driver.press("r")
        await driver.until("Roll back   y")
        let_it_be(run, state="starting", attempt=2)
        await driver.until("this plan was made anew", "Roll back   y")
        await driver.press("y")
        await driver.until("it is starting: stop it first")
        assert driver.backend.submitted == []


async def test_a_judgement_is_a_second_proposal_and_b_takes_it(cockpit, run):
    plan = make_plan()
    plan.second = plan.candidates[1]
    plan.second_words = "epoch 6 (epoch5.pt): before the metrics were lost; a judgement, no proof"
    backend = FakeBackend(plan=plan)
    async with cockpit(run, backend=backend, size=(120, 50)) as driver:
        await driver.press("R")
        text = await driver.until("epoch6.pt", "a judgement, no proof", "Epoch 6   b")
        assert text.index("go back to epoch6.pt") < text.index("a judgement, no proof")
        await driver.press("b")
        await driver.until("Recover   y")
        assert backend.asked[-1][0] == "epoch5.pt" and backend.submitted == []


async def test_arrows_lead_from_the_buttons_to_the_restore_points(cockpit, run):
    async with cockpit(run, size=(110, 40), backend=FakeBackend(plan=make_plan())) as driver:
        await driver.press("R")
        await driver.until("Cancel", "epoch5.pt")
        await driver.press("j", "enter")
        await driver.until("j, k and Enter")
        assert driver.backend.asked[-1][0] == "epoch5.pt", "another plan, and not Cancel"


async def test_y_before_there_is_a_plan_does_nothing(cockpit, run):
    backend = FakeBackend(plan=make_plan())
    async with cockpit(run, backend=backend) as driver:
        backend.hold.clear()
        await driver.press("R", "y")
        await driver.until("working out a plan", "the plan is not there yet")
        assert backend.submitted == []
        backend.hold.set()
        await driver.until("Recover   y")


async def test_a_small_screen_says_on_the_dialog_itself_why_a_key_does_nothing(cockpit, run):
    async with cockpit(run, backend=FakeBackend(plan=make_plan()), size=(80, 24)) as driver:
        await driver.press("R")
        await driver.until("nothing has been done yet")
        await driver.press("b")
        await driver.until("there is no second proposal", absent=("Recover: stop",))
        await driver.press("K")
        await driver.until("K does nothing here; ? shows the keys")
        await driver.press("j", "enter")
        await driver.until("Recover: stop", absent=("K does nothing here",))


async def confirmed(driver, backend):
    """Press R, wait for the plan, say yes; returns the command that was left."""
    await driver.press("R")
    await driver.until("Recover   y")
    await driver.press("y")
    await driver.until("waiting for the supervisor")
    return backend.submitted[0]


async def test_confirmed_it_shows_stages_outcome_and_what_is_in_effect(cockpit, run):
    backend = FakeBackend(plan=make_plan())
    async with cockpit(run, backend=backend) as driver:
        command = await confirmed(driver, backend)
        assert command.kind == "recover"
        shown = {"presets": ["nan-safe"], "set": {"lr0": 0.003, "guard": "protect"}, "to": "epoch6.pt"}
        assert command.options == {**shown, "images": [], "propose": False, "attempt": 1}, "as it is shown"
        journal(run, kind="stage", command=command.id, stage="stop", text="stopping the training")
        await driver.until("stopping the training")
        journal(run, kind="attempt_started", attempt=2, asked={"lr0": 0.003, "batch": 8, "mixup": 0.0})
        note = "mosaic is closed: these are the last 10 epochs (close_mosaic)"
        values = {"lr0": 0.003, "batch": 4}
        journal(run, kind="in_effect", attempt=2, values=values, differences=[], notes=[note])
        journal(
            run,
            kind="command_done",
            id=command.id,
            command_kind="recover",
            ok=True,
            text="resumed from epoch 8",
        )
        text = await driver.until("resumed from epoch 8", "in effect")
        line = next(line for line in text.splitlines() if "batch " in line)
        assert "8" in line and "4" in line
        mixup = next(line for line in text.splitlines() if "mixup " in line and "not reported" in line)
        assert "None" not in mixup and "⚠" not in mixup and "mosaic is closed" in text
        await driver.press("escape")
        await driver.until("checkpoints")


@pytest.mark.parametrize("size", [(80, 24), (160, 45)])
async def test_what_trains_with_step_points_can_go_back_in_memory(cockpit, run, size):
    leave_point(run)
    backend = FakeBackend(plan=make_plan())
    async with cockpit(run, backend=backend, size=size, wait=("running",)) as driver:
        await driver.press("R")
        await driver.until("In memory   m     Recover   y", "cannot be undone")
        await driver.press("m")
        await driver.until("nothing is stopped")
        (command,) = backend.submitted
        assert (command.kind, command.options) == ("rewind", {})
        text = "went back in memory to epoch 3 step 2 in 0.05 s"
        journal(run, kind="command_done", id=command.id, command_kind="rewind", ok=True, text=text)
        await driver.until(text)


async def test_without_a_step_point_there_is_nothing_in_memory_to_go_back_to(cockpit, run):
    backend = FakeBackend(plan=make_plan())
    async with cockpit(run, backend=backend) as driver:
        await driver.press("R")
        assert "In memory" not in await driver.until("[ Cancel ]")
        await driver.press("m")
        await driver.until("nothing that went wrong trains here with a step point")
        assert backend.submitted == []


async def test_a_failure_says_that_nothing_is_lost(cockpit, run):
    backend = FakeBackend(plan=make_plan())
    async with cockpit(run, backend=backend) as driver:
        command = await confirmed(driver, backend)
        journal(run, kind="command_done", id=command.id, command_kind="recover", ok=False, text="disk full")
        await driver.until("disk full", "Nothing is lost")


async def test_no_plan_is_told_in_one_line(cockpit, run):
    backend = FakeBackend()
    backend.plan_problem = UserError("demo is finished: raise epochs with --set epochs=71")
    async with cockpit(run, backend=backend) as driver:
        await driver.press("R")
        await driver.until("raise epochs", "Nothing was changed", absent=("choose a restore point",))
        await driver.press("y", "escape")
        await driver.until("ALARM", absent=("Nothing was changed",))
        assert backend.submitted == []


@pytest.mark.parametrize("size", [(80, 24), (160, 45)])
async def test_a_finished_run_can_begin_again_once_it_was_shown_what_is_moved_aside(cockpit, tmp_path, size):
    run = make_run(tmp_path / "done", state="finished")
    plan = make_plan()
    plan.headline, plan.restore = "Plan B: a restart was asked for, the training begins again", None
    plan.candidates = plan.candidates[2:]  # of which none can be gone back to
    backend = FakeBackend(plan=plan)
    backend.plan_problem = UserError("done is finished: raise epochs with --set epochs=71")
    async with cockpit(run, backend=backend, size=size, wait=("epoch 12/20",)) as driver:
        await driver.press("s")
        await driver.until("R goes back to an older epoch, or begins again")
        await driver.press("R")
        await driver.until("b plans to begin again", "Begin again   b", absent=("Recover   y",))
        await driver.press("y", "b")
        text = await driver.until("Plan B: a restart was asked for", "Recover   y", absent=("Begin again",))
        assert "nothing has been done yet" in text and "choose a restore point" not in text
        assert "moves aside, u takes it" in text
        assert backend.submitted == [], "it is asked first"
        await driver.press("y")
        await driver.until("waiting for the supervisor")
        assert backend.submitted[0].options["force_restart"] is True


@pytest.mark.parametrize(("key", "state"), [("R", "running"), ("r", "finished")])
async def test_what_trains_or_only_goes_back_does_not_begin_again(cockpit, tmp_path, key, state):
    backend = FakeBackend(plan=make_plan())
    backend.plan_problem = UserError("there is nothing")
    run = make_run(tmp_path / "demo", state=state)
    async with cockpit(run, backend=backend, wait=("epoch 12/20",)) as driver:
        await driver.press(key)
        await driver.until("there is nothing")
        await driver.press("b")
        await driver.until("there is no second proposal", absent=("to begin again",))


async def test_another_restore_point_makes_another_plan_and_a_bad_one_says_why(cockpit, run):
    backend = FakeBackend(plan=make_plan())
    async with cockpit(run, backend=backend) as driver:
        await driver.press("R")
        await driver.until("Recover   y")
        await driver.press("tab", "j", "enter")
        await driver.until("Recover   y")
        assert backend.asked[-1][0] == "epoch5.pt"
        await driver.press("G", "enter")
        await driver.until("last.pt: corrupt (laundered)")


async def test_presets_can_be_changed(cockpit, run):
    backend = FakeBackend(plan=make_plan())
    async with cockpit(run, backend=backend, size=(120, 50)) as driver:
        await driver.press("R")
        await driver.until("Recover   y")
        await driver.press("p")
        await driver.until("conservative")
        await driver.press("g", "space", "enter")
        await driver.until("Recover   y")
        to, settings, presets = backend.asked[-1]
        assert settings == {} and presets and presets != ("nan-safe",)


async def test_rollback_of_a_stopped_run(cockpit, tmp_path):
    run = make_run(tmp_path / "stopped", state="stopped")
    backend = FakeBackend(plan=make_plan())
    async with cockpit(run, backend=backend) as driver:
        await driver.press("r")
        text = await driver.until("Roll back   y")
        assert "at the next batch boundary" not in text, "nothing is running, so nothing is stopped"
        await driver.press("y")
        await driver.until("waiting for the supervisor")
        assert backend.submitted[0].kind == "rollback"


async def test_waiting_edits_are_part_of_the_plan(cockpit, run):
    backend = FakeBackend(plan=make_plan())
    journal(run, kind="command", command={"id": "e", "kind": "set", "options": {"set": {"mixup": 0.0}}})
    async with cockpit(run, backend=backend) as driver:
        await driver.press("R")
        await driver.until("Recover   y")
        assert backend.asked == [(None, {"mixup": 0.0}, None)]


async def test_staying_automatic_is_offered_where_the_run_is_not_so_yet(cockpit, run):
    backend = FakeBackend(plan=make_plan(auto=False))
    async with cockpit(run, backend=backend) as driver:
        await driver.press("R")
        await driver.until("On autopilot   a")
        await driver.press("a")
        await driver.until("waiting for the supervisor")
        assert backend.submitted[0].options["auto"] is True and backend.submitted[0].options["to"]


async def test_on_a_small_terminal_what_changes_is_seen_and_the_rest_announced(cockpit, run):
    plan = make_plan()
    plan.warnings = [f"warning number {number}" for number in range(20)]
    async with cockpit(run, backend=FakeBackend(plan=plan), size=(80, 24)) as driver:
        await driver.press("R")
        text = await driver.until("Recover   y", "more lines below: PgDn")
        assert "lr0" in text and "0.003" in text and "observe" in text and "fit   0.300" in text
        assert text.index("guard") < text.index("kept: yours"), "what changes comes first"
        for _ in range(6):
            await driver.press("pagedown")
        await driver.until("shown here", absent=("more lines below",))


@pytest.mark.parametrize("size", [(80, 24), (160, 45)])
async def test_a_guilty_image_is_left_out_with_it_and_a_key_keeps_it(cockpit, run, size):
    plan, said = make_plan(), "leave out 1 image (005.png, proven by the autopsy)"
    plan.guilty = plan.images = ("/data/images/005.png",)
    backend = FakeBackend(plan=plan)
    async with cockpit(run, backend=backend, size=size) as driver:
        await driver.press("R")
        await driver.until("Recover   y", said, "i keeps it")
        await driver.press("i")
        await driver.until("Recover   y", "keep 1 image (005.png", absent=(said,))
        await driver.press("i")
        await driver.until("Recover   y", said)
        await driver.press("y")
        await driver.until("waiting for the supervisor")
        assert backend.submitted[0].options["images"] == ["/data/images/005.png"]


async def test_without_a_guilty_image_the_key_says_so(cockpit, run):
    async with cockpit(run, backend=FakeBackend(plan=make_plan())) as driver:
        await driver.press("R")
        await driver.until("Recover   y")
        await driver.press("i")
        await driver.until("no image is proven guilty")


@pytest.mark.parametrize("size", [(80, 24), (160, 45)])
async def test_the_buttons_of_the_presets_are_on_the_screen(cockpit, run, size):
    async with cockpit(run, backend=FakeBackend(plan=make_plan()), size=size) as driver:
        await driver.press("R")
        await driver.until("Recover   y")
        await driver.press("p")
        await driver.until("nan-safe", "[ Use these ]", "Cancel   Esc")


async def test_an_old_plan_is_made_anew_and_asked_again_where_it_has_trained_on(cockpit, run, monkeypatch):
    monkeypatch.setattr(recover, "FRESH_S", 0.0)
    backend = FakeBackend(plan=make_plan())
    async with cockpit(run, backend=backend, wait=("running",)) as driver:
        await driver.press("R")
        await driver.until("nothing has been done yet")
        write_results(RunLayout(run).results_csv, 13, 8, first=13, append=True)
        await driver.eventually(lambda: driver.app.screen.over.snapshot.status.epoch == 13)
        await driver.press("y")
        await driver.until("it has trained on to epoch 13")
        assert backend.submitted == []
        await driver.until("nothing has been done yet")
        await driver.press("y")
        await driver.eventually(lambda: len(backend.submitted) == 1)

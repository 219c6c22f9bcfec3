"""Before a stop and an undo: what the question says is true for this run, at this moment."""

import time
from dataclasses import replace

import pytest

from nantui.recovery.undo import what_it_was
from nantui.run.journal import newest_in_force
from nantui.run.layout import RunLayout
from nantui.run.points import StepPoint
from nantui.run.status import RunStatus
from nantui.ui.model.plan_text import kill_words, stop_question, stop_words, undo_words
from nantui.ui.model.reasons import open_alarm, why_not
from nantui.ui.model.run_reader import RunReader
from nantui.ui.model.snapshot import Checkpoint, RunSnapshot
from tests.ui.fakes import FakeBackend, make_plan
from tests.ui.synthetic import journal, make_run


def running(tmp_path, activity="training", names=(), **place):
    files = tuple(Checkpoint(tmp_path / "weights" / name, 1, 0.0) for name in names)
    status = RunStatus(tmp_path, "running", **place)
    return RunSnapshot(tmp_path, 0.0, status, activity=activity, checkpoints=files)


def test_before_the_first_step_nothing_is_promised(tmp_path):
    text = " ".join(stop_words(running(tmp_path, activity="setup")))
    assert "nothing to keep" in text and "nantui_stop.pt" not in text
    resumed = " ".join(stop_words(running(tmp_path, activity="setup", names=("last.pt",), epoch=4)))
    assert "s resumes from what was there before" in resumed and "nantui_stop.pt" not in resumed


def test_in_the_first_epoch_no_resume_is_promised(tmp_path):
    text = " ".join(stop_words(running(tmp_path, epoch=1, step=3)))
    assert "s cannot go on from here" in text and "s resumes" not in text


def test_later_s_resumes_from_the_stop_point(tmp_path):
    text = " ".join(stop_words(running(tmp_path, names=("last.pt",), epoch=2, step=1)))
    assert "nantui_stop.pt; s resumes from there" in text and "first epoch" not in text


def test_before_a_kill_the_steps_since_the_newest_point_are_named(tmp_path):
    point = StepPoint("b", 1, 2, 900, 1000, 1900, 60.0, 10, "", {})
    last, inside = Checkpoint(tmp_path / "last.pt", 1, 50.0), Checkpoint(tmp_path / "b.pt", 1, 60.0, point)
    seen = replace(running(tmp_path, epoch=3, step=150), taken=185.0, checkpoints=(last, inside))
    assert (
        kill_words(seen)[0]
        == "About 250 steps since the point of epoch 2 step 900, 2 min 05 s ago, are lost."
    )
    later = replace(seen, checkpoints=(replace(last, modified=70.0), inside))
    assert kill_words(later)[0] == "What was learned since the last checkpoint is lost."
    first = replace(seen, checkpoints=(inside,), status=replace(seen.status, epoch=1))
    assert "s resumes from there" in " ".join(stop_words(first)), "inside the first epoch, from a point"


def test_a_second_x_asks_whether_to_wait_no_longer_and_says_what_is_waited_for(tmp_path):
    doing = {"kind": "stop", "text": "waiting for the agreed step (no step for 9 s; rank 1 does not answer)"}
    seen = replace(running(tmp_path, epoch=3, step=150), taken=1.0)
    assert stop_question(seen)[0] == "stop" and why_not("stop", seen, False) is None
    stopping = replace(seen, status=replace(seen.status, state="stopping", doing=doing))
    assert why_not("stop", stopping, False) is None and why_not("kill", stopping, False) is None
    kind, _, text = stop_question(stopping)
    assert kind == "kill" and text[0] == doing["text"] and not any("Prefer x" in line for line in text)


def look(run):
    return RunReader(run, lambda path: RunStatus(path, "stopped"), lambda: 1_763_750_200.0).read()


def test_undo_says_which_rollback_what_goes_aside_and_which_settings_go_back(tmp_path):
    snapshot = look(make_run(tmp_path / "demo", recovered=True))
    begun = newest_in_force(snapshot.journal)
    text = " ".join(undo_words(snapshot, begun))
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(begun.t))
    assert f"It was done at {when}, " in text
    assert what_it_was(begun, snapshot.journal) == "the rollback to epoch6.pt (epoch 7)"
    assert "the 4 epochs that it gave up" in text
    assert "lr0 from 0.005 to 0.01" in text
    assert "6 epochs trained since: moved aside to nantui/backups/undo-" in text


def test_undo_of_a_resume_with_changed_settings_is_called_so(tmp_path):
    run = make_run(tmp_path / "demo", nan_from=None)
    journal(run, kind="command", command={"id": "s", "kind": "resume", "options": {"set": {"mixup": 0.0}}})
    changed = [{"name": "mixup", "now": 0.15, "then": 0.0, "why": "asked"}]
    journal(
        run, kind="rollback_begun", id="s", restore_point="last.pt", epoch=12, epochs_lost=0, settings=changed
    )
    journal(run, kind="rollback_done", id="s", text="")
    snapshot = look(run)
    begun = newest_in_force(snapshot.journal)
    text = " ".join(undo_words(snapshot, begun))
    named = what_it_was(begun, snapshot.journal)
    assert named == "the resume with changed settings from last.pt (epoch 12)"
    assert "mixup from 0.0 to 0.15" in text
    assert "gave up" not in text and "What was made since: moved aside" in text


def test_a_rollback_that_was_taken_back_is_no_longer_in_force(tmp_path):
    run = make_run(tmp_path / "demo", recovered=True)
    journal(run, kind="undo_done", id="u", of="r1")
    assert newest_in_force(look(run).journal) is None


@pytest.mark.parametrize(
    ("key", "state", "word"), [("x", "running", "nantui_stop.pt"), ("u", "stopped", "lr0 from")]
)
async def test_the_dialogs_say_so(cockpit, key, state, word):
    async with cockpit(size=(80, 24), state=state, recovered=True) as driver:
        await driver.press(key)
        await driver.until(word, "[ Cancel ]")


@pytest.mark.parametrize("key", ["x", "X", "R", "question_mark", "colon"])
async def test_no_dialog_leaves_scraps_of_the_screen_below_at_its_edges(cockpit, key):
    async with cockpit(size=(80, 24), recovered=True, backend=FakeBackend(plan=make_plan())) as driver:
        await driver.press(key)
        (region,) = [one.region for one in driver.app.screen.query(".dialog")]
        assert region.width == 80 or min(region.x, 80 - region.right) > 3, region


async def test_the_dialog_in_the_first_epoch_does_not_promise_a_resume(cockpit, tmp_path):
    run = make_run(tmp_path / "runs" / "young", done=1, nan_from=None, checkpoints=False)
    RunLayout(run).results_csv.unlink()
    async with cockpit(run, wait=("none yet",)) as driver:
        await driver.press("x")
        await driver.until("first epoch", "[ Cancel ]", absent=("s resumes from there",))


def test_an_undone_rollback_brings_the_alarm_back_that_it_had_answered(tmp_path):
    run = make_run(tmp_path / "demo", recovered=True)
    assert open_alarm(look(run), 0.0) is None
    begun = newest_in_force(look(run).journal)
    journal(run, kind="undo_done", id="u1", of=begun.id, text="undone")
    alarm = open_alarm(look(run), 0.0)
    assert alarm is not None and (alarm.incident, alarm.epoch) == ("nan_buffer", 8)
    assert open_alarm(look(run), alarm.t) is None, "a person has seen it before"


def test_what_diverged_before_its_first_checkpoint_is_recovered_by_a_new_beginning(tmp_path):
    ill = look(make_run(tmp_path / "ill", done=1, nan_from=1, checkpoints=False))
    assert why_not("recover", ill, False) is None
    assert "no checkpoint" in (why_not("rollback", ill, False) or "")
    well = look(make_run(tmp_path / "well", done=1, nan_from=None, checkpoints=False))
    failed = replace(well, status=replace(well.status, state="failed", text="no such file"))
    for seen in (well, failed):
        assert "no checkpoint" in (why_not("recover", seen, False) or "")


def test_the_alarm_is_about_what_ended_the_training_not_what_was_only_warned_of_before(tmp_path):
    run = make_run(tmp_path / "demo", nan_from=None, state="diverged")
    for t, kind, action in ((1.0, "nan_validation", "warned"), (2.0, "too_many_skips", "ended")):
        journal(run, t=1_763_750_100.0 + t, kind="incident", incident=kind, epoch=1, step=1, action=action)
    alarm = open_alarm(look(run), 0.0)
    assert alarm is not None and alarm.incident == "too_many_skips"
    assert open_alarm(look(run), alarm.t) is None, "one acknowledgement is for all of it"

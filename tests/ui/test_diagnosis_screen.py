"""The diagnosis: causes and remedies; deaths without a NaN; an older attempt's incident; the data."""

import threading

from nantui.errors import UserError
from nantui.run.status import RunStatus
from nantui.ui.glyphs import UNICODE
from nantui.ui.model.diagnosis_text import describe
from nantui.ui.model.run_reader import RunReader
from tests.ui.fakes import FakeBackend, diagnosis, make_plan
from tests.ui.inks import plain
from tests.ui.synthetic import journal, make_run, rank_event


def told(run, found, **status):
    snapshot = RunReader(run, lambda path: RunStatus(path, **status)).read()
    return "\n".join(map(plain, describe(snapshot, found, "", UNICODE, 100)))


async def test_diagnosis_shows_causes_evidence_and_opens_the_remedy(cockpit):
    async with cockpit(size=(110, 40)) as driver:
        await driver.press("d")
        text = await driver.until("gradient explosion", "70%", "what helps")
        assert "the norm rose from 8 to 4,000" in text and "BatchNorm" in text
        await driver.press("9")
        await driver.until("no remedy 9")
        await driver.press("1")
        await driver.until("Recover: stop")
        assert driver.app.screen.presets == ("gentle-lr",)


async def test_digits_count_the_remedies_that_a_key_can_apply(cockpit):
    advice = [{"cause": "hardware_fault", "why": "test the memory"}, {"preset": "gentle-lr", "why": "slower"}]
    async with cockpit(size=(110, 40)) as driver:
        driver.backend.diagnose = lambda run: diagnosis(advice=advice)
        await driver.press("d")
        text = await driver.until("by hand", "1 gentle-lr")
        assert "1 by hand" not in text
        await driver.press("2")
        await driver.until("no remedy 2")
        await driver.press("1")
        await driver.until("Recover: stop")
        assert driver.app.screen.presets == ("gentle-lr",)


async def test_the_key_of_an_image_that_was_named_opens_the_plan_that_leaves_it_out(cockpit):
    plan = make_plan()
    plan.guilty = ("/data/005.png",)
    named = {"cause": "data", "why": "nantui labels", "images": ["/data/005.png"]}
    async with cockpit(size=(110, 40), backend=FakeBackend(plan=plan)) as driver:
        driver.backend.diagnose = lambda run: diagnosis(advice=[named])
        await driver.press("d")
        await driver.until("1 leave out 005.png")
        await driver.press("1")
        await driver.until("Recover: stop", "leave out 1 image (005.png, proven")
        assert driver.app.screen.presets == ()


async def test_diagnosis_of_a_healthy_run_says_so(cockpit):
    async with cockpit(size=(110, 40), nan_from=None) as driver:
        driver.backend.diagnose = lambda run: diagnosis()
        await driver.press("d")
        await driver.until("no sign of trouble")


def test_without_an_incident_warnings_are_listed_and_what_a_recovery_would_do(tmp_path):
    run = make_run(tmp_path / "demo", nan_from=None)
    warned = {"kind": "warning", "warning": "loss_exploded", "epoch": 4, "step": 7, "text": "loss 1e6"}
    rank_event(run, **warned, evidence={"value": 1e6})
    journal(run, **warned, attempt=1)
    text = told(run, diagnosis(), state="running")
    assert "no sign of trouble" not in text and text.count("loss 1e6") == 1 and "incidents" not in text
    assert "the loss exploded   epoch 4 step 7" in text and "warnings   1, newest first" in text
    assert "R would stop it, go back to the newest clean checkpoint and resume" in text
    assert "R would go back to" in told(run, diagnosis(), state="stopped")
    nothing = told(make_run(tmp_path / "new", nan_from=None, checkpoints=False), diagnosis(), state="running")
    assert "R does nothing now: there is no checkpoint to go back to yet." in nothing


def test_causes_of_a_mere_warning_stand_above_it(tmp_path):
    run = make_run(tmp_path / "demo", nan_from=None)
    rank_event(run, kind="warning", warning="zero_loss", epoch=2, step=1, text="all zero")
    text = told(run, diagnosis([{"title": "dead network"}], [{"cause": "by_hand"}]), state="running")
    assert text.index("dead network") < text.index("all zero") and "incidents" not in text
    assert "what helps" not in text, "advice that says nothing has no heading"


async def test_a_killed_training_is_not_called_healthy(cockpit):
    async with cockpit(size=(110, 40), nan_from=None, state="failed") as driver:
        driver.backend.diagnose = lambda run: diagnosis()
        await driver.press("d")
        text = await driver.until("the training has died", "No NaN or other incident was recorded")
        assert "no sign of trouble" not in text


def test_how_it_ended_is_told_in_the_supervisors_words(tmp_path):
    run = make_run(tmp_path / "demo", nan_from=None)
    text = told(run, diagnosis(), state="lost", text="rank 0 was killed", attempt=2, epoch=4, step=3)
    assert "attempt 2: the training is gone without a word, epoch 4 step 3" in text
    assert "rank 0 was killed" in text and "no sign of trouble" not in text


def test_before_the_answer_is_there_no_run_is_called_healthy(tmp_path):
    text = told(make_run(tmp_path / "demo", nan_from=None), None, state="running")
    assert "looking for signs of trouble" in text and "no sign of trouble" not in text


def test_an_older_attempts_incident_is_named_as_such(tmp_path):
    run = make_run(tmp_path / "demo", recovered=True)
    journal(run, kind="attempt_started", attempt=2, asked={})
    text = told(run, None, state="running", attempt=2)
    assert "in attempt 1; attempt 2, the newest, has had no incident" in text
    assert "the newest" not in told(run, None, state="running", attempt=1)


async def test_the_causes_are_looked_for_again_once_more_has_happened(cockpit, tmp_path):
    run, asked = make_run(tmp_path / "demo"), []

    def diagnose(run):
        asked.append(run)
        return diagnosis([{"title": f"cause {len(asked)}"}])

    async with cockpit(run, size=(110, 40)) as driver:
        driver.backend.diagnose = diagnose
        await driver.press("d")
        await driver.until("cause 1")
        below, known = driver.app.screen_stack[-2], len(driver.app.screen_stack[-2].snapshot.journal)
        journal(run, kind="note", text="nothing that a cause could come from")
        await driver.eventually(lambda: len(below.snapshot.journal) > known, "the note")
        assert len(asked) == 1
        journal(run, kind="attempt_started", attempt=2, asked={})
        await driver.until("cause 2", absent=("cause 1",))


async def test_a_digit_before_the_answer_is_told_to_wait(cockpit):
    hold = threading.Event()
    async with cockpit(size=(110, 40)) as driver:
        driver.backend.diagnose = lambda run: hold.wait(20) and diagnosis()
        await driver.press("d", "1")
        await driver.until("still looking for causes")
        hold.set()


async def test_the_key_of_the_data_says_at_once_that_it_is_checking(cockpit):
    hold = threading.Event()

    def check(run, progress):
        hold.wait(20)
        raise UserError("no such data set")

    async with cockpit(size=(110, 40)) as driver:
        driver.backend.diagnose = lambda run: diagnosis(advice=[{"cause": "data", "why": "look"}])
        driver.backend.labels = check
        await driver.press("d")
        await driver.until("1 look at the data")
        await driver.press("1")
        await driver.until("checking: looking for the data set's files")
        hold.set()
        await driver.until("no such data set")

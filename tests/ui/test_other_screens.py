"""Zoom, output, diagnosis, labels, compare, fleet, help, themes and signs."""

import threading
import time
from dataclasses import replace

import pytest
from textual.widgets import Input

from nantui.paths import user_config_dir
from nantui.run.layout import RunLayout
from nantui.ui import preferences
from nantui.ui.screens.fleet import FleetList
from nantui.ui.theme import NAMES
from tests.ui.fakes import FakeBackend
from tests.ui.synthetic import make_run, write_attempt


async def test_zoom_reads_values_zooms_and_turns(cockpit):
    async with cockpit(size=(100, 30)) as driver:
        await driver.press("z")
        await driver.until("box", "1/10")
        await driver.press("h")
        await driver.until("epoch 11", "train")
        await driver.press("plus")
        low, high = driver.app.screen.view.low, driver.app.screen.view.high
        assert high - low < 11
        await driver.press("minus", "minus", "0")
        assert driver.app.screen.view.low is None
        await driver.press("tab")
        await driver.until("cls", "2/10")
        await driver.press("shift+tab", "L", "m", "w", "e")
        await driver.until("log", "mean 5")
        await driver.press("escape")
        await driver.until("checkpoints")


async def test_output_follows_holds_and_finds(cockpit):
    async with cockpit(size=(100, 30)) as driver:
        await driver.press("o")
        text = await driver.until("40 lines, following", "epoch 39/20")
        assert "\x1b" not in text and "[31m" not in text
        await driver.press("slash")
        await driver.type("epoch 17")
        await driver.press("enter")
        await driver.until("held, match 1 of 1 with 'epoch 17'")
        log = driver.app.screen.query_one("#log")
        assert log.cursor == 17
        await driver.press("n")
        await driver.until("no other line has 'epoch 17'")
        assert log.cursor == 17
        await driver.press("i")
        assert log.cursor == 18, "every line has a NaN, so the next one"
        await driver.press("slash")
        await driver.type("zzz")
        await driver.press("enter")
        await driver.until("no line has ")
        await driver.press("p")
        await driver.until("following")
        await driver.press("escape")
        await driver.until("checkpoints")


async def test_an_output_without_a_line_has_no_nan_to_go_to(cockpit, tmp_path):
    run = make_run(tmp_path / "runs" / "demo")
    RunLayout(run).attempt_log(1).write_text("")
    async with cockpit(run, size=(100, 30)) as driver:
        await driver.press("o")
        await driver.until("0 lines, following")
        await driver.press("i")
        assert (await driver.until("0 lines, following")).count("nothing was written yet") == 2


async def test_long_lines_of_the_output_can_be_read(cockpit, tmp_path):
    run = make_run(tmp_path / "runs" / "demo")
    long = f"begins {'x' * 150} middle {'y' * 150} the end of it"
    RunLayout(run).attempt_log(1).write_text(f"short\n{long}\nlast words\nmiddle again\n")
    async with cockpit(run, size=(100, 30)) as driver:
        await driver.press("o")
        await driver.until("4 lines", "begins", absent=("middle yy",))
        await driver.press("w")
        await driver.until("wrapped", "middle yy", "the end of it")
        await driver.press("slash")
        await driver.type("middle")
        await driver.press("enter")
        await driver.until("match 1 of 2 with 'middle'")
        assert driver.app.screen.query_one("#log").number == 1, "a line is found, not a part of one"
        await driver.press("n")
        await driver.until("match 2 of 2 with 'middle'")
        await driver.press("w", "g", "j", "l")
        await driver.until("from column 21", absent=("begins", "wrapped"))
        await driver.press("h")
        await driver.until("begins", absent=("from column",))
        await driver.press("enter")
        await driver.until("line 2", "the end of it", "Esc closes")


async def test_what_is_known_of_a_checkpoint_is_there_whole(cockpit):
    backend = FakeBackend()
    why, known = "stripped: the training had ended, and epoch and optimizer were taken out", backend.verdict
    backend.verdict = lambda path: replace(known(path), why_not_resumable=why)
    async with cockpit(size=(80, 24), backend=backend) as driver:
        await driver.press("enter")
        text = await driver.until("resume", "no: stripped", "ultralytics")
        assert " ".join(why.split()[-3:]) in text, "not cut off at the edge"


async def test_the_output_of_earlier_attempts_is_there(cockpit, tmp_path):
    run = make_run(tmp_path / "runs" / "demo", nan_from=7, recovered=True)
    layout = RunLayout(run)
    write_attempt(layout, 2, run, 20, 1000.0)
    layout.attempt_log(1).write_text("first words\n")
    layout.attempt_log(2).write_text("second words\n")
    async with cockpit(run, size=(100, 30)) as driver:
        await driver.press("o")
        await driver.until("attempt 2 of 2", "second words")
        await driver.press("left_square_bracket")
        await driver.until("attempt 1 of 2", "first words", absent=("second words",))
        await driver.press("left_square_bracket")
        await driver.until("there is no earlier attempt")
        await driver.press("right_square_bracket")
        await driver.until("attempt 2 of 2", "second words", absent=("first words",))


async def test_labels_tells_why_it_cannot_check(cockpit):
    async with cockpit(size=(110, 40)) as driver:
        await driver.press("D")
        await driver.until("shapes.yaml: no such file")
        await driver.press("w")
        await driver.until("the check is not done yet")
        await driver.press("escape")
        await driver.until("checkpoints")


async def test_who_leaves_the_labels_ends_their_check(cockpit):
    ended = threading.Event()

    def check(run, progress):
        while not progress(1, 9):
            time.sleep(0.01)
        ended.set()

    async with cockpit(size=(110, 40)) as driver:
        driver.backend.labels = check
        await driver.press("D")
        await driver.until("1 / 9 files")
        assert not ended.is_set()
        await driver.press("escape")
        await driver.eventually(ended.is_set, "the end of the check")


async def test_labels_groups_errors_by_kind(cockpit, tmp_path):
    from nantui.labels.problem_kinds import KINDS
    from nantui.labels.report import Issue, LabelReport

    issues = [Issue(f"{name}.txt", 3, name, f"about {name}") for name in list(KINDS)[:2]]
    async with cockpit(size=(110, 40)) as driver:
        driver.backend.labels = lambda run, progress: LabelReport("d.yaml", "detect", 5, 5, 9, issues)
        driver.backend.write_labels = lambda run, report: tmp_path / "labels.csv"
        await driver.press("D")
        first, second = list(LabelReport("d", "detect", issues=issues).counts)
        await driver.until(f"about {first}", absent=(f"about {second}",))
        await driver.press("j")
        await driver.until(f"about {second}", absent=(f"about {first}",))
        await driver.press("w")
        await driver.until("labels.csv")


async def test_images_with_errors_are_left_out_with_one_key_and_taken_back(cockpit):
    from nantui.labels.problem_kinds import ERROR, KINDS
    from nantui.labels.report import Issue, LabelReport

    error = next(name for name, kind in KINDS.items() if kind.severity == ERROR)
    note = next(name for name, kind in KINDS.items() if kind.severity != ERROR)
    issues = [Issue("/d/a.txt", 3, error, "bad"), Issue("/d/b.txt", 1, note, "odd")]
    images = {"/d/a.txt": "/d/a.png", "/d/b.txt": "/d/b.png"}
    report = LabelReport("d.yaml", "detect", 5, 5, 9, issues, image_of=images)
    faulty = set(report.faulty_images())
    assert len(faulty) == 1
    async with cockpit(size=(110, 40)) as driver:
        driver.backend.labels = lambda run, progress: report
        await driver.press("D")
        await driver.until("bad")
        await driver.press("Q")
        await driver.until("Leave 1 image with errors out", "[ Cancel ]")
        await driver.press("enter")
        assert driver.backend.submitted == [], "the default is Cancel"
        await driver.press("Q")
        await driver.until("[ Cancel ]")
        await driver.press("y")
        await driver.until("asked the supervisor")
        (command,) = driver.backend.submitted
        assert command.kind == "quarantine" and set(command.options["images"]) == faulty
        driver.backend.left_out = faulty
        await driver.press("Q")
        await driver.until("left out already")
        await driver.press("u")
        await driver.until("take the last change")
        assert driver.backend.submitted[-1].options == {"undo": True}


async def test_read_only_leaves_no_image_out(cockpit):
    async with cockpit(size=(110, 40), read_only=True) as driver:
        await driver.press("D", "Q")
        await driver.until("read-only: open it without")


async def test_two_runs_marked_among_all_are_compared(cockpit, tmp_path):
    top = tmp_path / "many"
    runs = [make_run(top / name, done=9, nan_from=None) for name in ("one", "three", "two")]
    async with cockpit(top=top, runs=runs, wait=("3 runs",), size=(140, 30)) as driver:
        await driver.until("many/two")
        await driver.press("v")
        await driver.until("mark two runs")
        await driver.press("space", "j", "j", "space")
        await driver.until("v compares")
        await driver.press("v")
        await driver.until("A one", "B two", "settings that differ")
        await driver.press("escape")
        await driver.until("3 runs")


async def test_the_palette_knows_the_keys_of_every_screen(cockpit):
    async with cockpit(size=(110, 40)) as driver:
        await driver.press("D", "colon")
        await driver.until("leave the images with errors out", "write all findings as CSV")
        await driver.type("csv")
        await driver.press("enter")
        await driver.until("the check is not done yet")


async def test_the_first_time_the_signs_are_shown_to_be_judged(cockpit):
    preferences.save(signs_shown=True)
    (user_config_dir() / preferences.FILE).unlink()
    async with cockpit() as driver:
        await driver.until("boxes, or not in line? A: plain ASCII")
    async with cockpit() as driver:
        await driver.until("? help", absent=("not in line?",))


async def test_compare_two_attempts(cockpit, tmp_path):
    run = make_run(tmp_path / "runs" / "two", recovered=True)
    layout = RunLayout(run)
    write_attempt(layout, 2, run, 30, 1_763_750_000.0)
    layout.steps(2).write_text(layout.steps(1).read_text())
    async with cockpit(run, size=(140, 40)) as driver:
        await driver.press("v")
        text = await driver.until("settings that differ", "two attempt 1", "two attempt 2")
        assert "epochs" in text and "20" in text and "30" in text
        await driver.press("x")
        await driver.until("A two attempt 2")
        await driver.press("a")
        await driver.until("Compare what as A?")
        await driver.press("escape", "escape")
        await driver.until("checkpoints")


async def test_compare_with_nothing_to_compare_with(cockpit):
    async with cockpit() as driver:
        await driver.press("v")
        await driver.until("nothing to compare with")


async def test_fleet_sorts_filters_and_opens(cockpit, tmp_path):
    top = tmp_path / "many"
    runs = [
        make_run(top / name, done=done, state=state, nan_from=None)
        for name, done, state in (("calm", 3, "running"), ("ill", 9, "diverged"), ("old", 12, "finished"))
    ]
    async with cockpit(top=top, runs=runs, wait=("3 runs",), size=(140, 30)) as driver:
        text = await driver.until("many/ill", "many/calm", "many/old")
        assert text.index("ill") < text.index("calm") < text.index("old"), "the gravest first"
        await driver.press("S")
        await driver.until("sorted by name")
        await driver.press("slash")
        await driver.eventually(lambda: isinstance(driver.app.focused, Input), "a field")
        await driver.type("finished")
        await driver.until("many/old", absent=("many/calm",))
        await driver.press("enter")
        await driver.eventually(lambda: isinstance(driver.app.focused, FleetList), "the list")
        await driver.press("enter")
        await driver.until("checkpoints", "epoch 12/20")
        await driver.press("escape")
        await driver.until("many/old", absent=("checkpoints",))
        await driver.press("escape")
        await driver.until("many/calm")


async def test_the_cursor_of_a_fleet_begins_on_the_gravest_and_then_stays_with_its_run(cockpit, tmp_path):
    top = tmp_path / "many"
    runs = [make_run(top / name, done=3, state="running", nan_from=None) for name in ("a", "b", "c")]
    async with cockpit(top=top, runs=runs, wait=("3 runs",), size=(140, 30)) as driver:
        screen = driver.app.screen
        fleet, known = screen.query_one(FleetList), list(screen.query_one(FleetList).statuses)
        states = ("running", "diverged", "failed")
        calm, gravest, grave = (replace(one, state=state) for one, state in zip(known, states, strict=True))
        fleet.show_statuses([], whole=False)
        for arrived in ([calm], [calm, grave], [calm, grave, gravest]):
            screen.show_runs(arrived, whole=len(arrived) == 3)
            assert fleet.cursor == 0
        assert fleet.key == gravest.path
        screen.show_runs([replace(gravest, state="finished"), calm, grave])
        assert fleet.key == gravest.path and fleet.cursor == 2


async def test_one_run_leads_to_the_fleet_around_it(cockpit, tmp_path):
    runs = [make_run(tmp_path / "many" / name, nan_from=None) for name in ("a", "b")]
    async with cockpit(runs[0]) as driver:
        await driver.press("f")
        await driver.until("2 runs", "many/a", "many/b")


async def test_help_lists_every_binding_of_the_screen(cockpit):
    from nantui.ui.actions import APP_ACTIONS, RUN_ACTIONS

    async with cockpit(size=(110, 100)) as driver:
        await driver.press("question_mark")
        text = " ".join((await driver.until("Keys", "Everywhere")).split())
        for action in (*RUN_ACTIONS, *APP_ACTIONS):
            assert " ".join(action.help.split()[:3]) in text, action.name
        await driver.press("escape")
        await driver.until("checkpoints", absent=("Everywhere",))


async def test_themes_change_and_are_remembered(cockpit):
    async with cockpit() as driver:
        seen = []
        for _ in NAMES:
            await driver.press("T")
            await driver.until(f"theme: {driver.app.theme}")
            seen.append(driver.app.theme)
        assert set(seen) == set(NAMES)
        assert preferences.load()["theme"] == seen[-1]
        await driver.press("u")
        await driver.until(f"theme: {seen[-2]}")
        assert driver.app.theme == preferences.load()["theme"] == seen[-2]


async def test_the_help_explains_every_sign_of_the_lists(cockpit):
    async with cockpit(size=(80, 24)) as driver:
        await driver.press("question_mark", "G")
        await driver.until("the restore point, the newest", "repairable", "▪ ", "a changed setting")


@pytest.mark.parametrize("keys", [(), ("R",), ("c",), ("o",), ("question_mark",), ("colon",), ("z",), ("d",)])
async def test_ascii_is_ascii_on_every_screen(cockpit, keys):
    async with cockpit(ascii_only=True) as driver:
        await driver.press(*keys)
        await driver.pilot.pause(0.5)
        text = driver.text.replace("\u2801", "")
        sample = "Signs" in text
        assert sample or text.isascii(), sorted({c for c in text if not c.isascii()})


async def test_a_key_changes_to_ascii_and_it_is_remembered(cockpit):
    async with cockpit() as driver:
        assert not driver.text.isascii()
        await driver.press("A")
        await driver.until("plain ASCII")
        assert driver.text.isascii()
        assert preferences.wants_ascii(False)

"""The config editor: search, edit, checks while typing, presets as a draft, undo, save, copy,
and drafts that stay.
"""

import yaml

from nantui.paths import user_config_dir
from tests.ui.synthetic import command_done, journal, make_run


async def opened(driver):
    await driver.press("c")
    await driver.until("model", "accepts")


async def find(driver, name):
    await driver.press("slash")
    await driver.type(name)
    await driver.press("enter", "g", "j")


async def test_settings_are_grouped_and_explained(cockpit):
    async with cockpit(size=(120, 40)) as driver:
        await opened(driver)
        await find(driver, "lr0")
        text = await driver.until("initial learning rate", "default")
        assert "0.01" in text and "search 'lr0'" in text
        await driver.press("escape")
        await driver.until("Hyperparameters", "lr0", "plots", absent=("search 'lr0'",))


async def test_an_edit_is_checked_drafted_saved_and_left_to_the_supervisor(cockpit):
    async with cockpit(size=(120, 40)) as driver:
        await opened(driver)
        await find(driver, "mixup")
        await driver.press("enter", "ctrl+u")
        await driver.type("7")
        await driver.until("expects")
        await driver.press("enter")
        assert driver.app.screen.draft.changes == {}, "a value out of range is not taken"
        await driver.press("ctrl+u")
        await driver.type("0.05")
        await driver.press("enter")
        await driver.until("1 changed, not saved", "was 0.15")
        await driver.press("w")
        await driver.until("the draft is kept until that is done", "1 changed, asked the supervisor")
        (command,) = driver.backend.submitted
        assert command.kind == "set" and command.options == {"set": {"mixup": 0.05}}
        command_done(driver.app.runs[0], command, True, "kept for the next start: mixup=0.05")
        text = await driver.until("saved, from the next start on", "now 0.15", absent=("changed,",))
        assert next(line for line in text.splitlines() if "in effect" in line).split()[-1] == "0.15"
        await driver.press("escape", "C")
        await driver.until("mixup", "from the next start on, now 0.15", absent=("nothing is", "cos_lr"))


async def test_what_is_not_known_to_be_fine_is_not_called_so(cockpit):
    async with cockpit(size=(120, 40)) as driver:
        await opened(driver)
        for typed, said in (
            ("data=a.yaml", "looked for at the next start"),
            ("data=a", "names no YAML file"),
            ("device=cpu", "device: fine"),
        ):
            name, _, value = typed.partition("=")
            await find(driver, name)
            await driver.press("enter", "ctrl+u")
            await driver.type(value)
            await driver.until(said)
            await driver.press("escape", "escape")
        await find(driver, "project")
        await driver.press("enter", "ctrl+u")
        await driver.type("elsewhere")
        await driver.until("settled when the run was made")


async def test_space_takes_the_next_choice_and_u_takes_it_back(cockpit):
    async with cockpit(size=(120, 40)) as driver:
        await opened(driver)
        await find(driver, "cos_lr")
        await driver.press("space")
        await driver.until("1 changed", "True")
        await driver.press("u")
        await driver.until("as in effect")
        await driver.press("u")
        await driver.until("no change to undo")


async def test_presets_become_a_visible_draft_with_reasons(cockpit):
    async with cockpit(size=(120, 40)) as driver:
        await opened(driver)
        await driver.press("p")
        await driver.until("nan-safe")
        listing = driver.app.screen.query_one("#presets")
        listing.go([preset.name for preset in driver.app.screen._presets].index("nan-safe"))
        await driver.press("space", "enter")
        await driver.until("settings drafted")
        await driver.press("C")
        text = await driver.until("changed only")
        assert "lr0" in text and "0.003" in text and "imgsz" not in text, "a safer value of one's own is kept"
        assert driver.app.screen.draft.why["lr0"]
        await driver.press("T", "u")
        await driver.until("theme: ", "changed, not saved")
        await driver.press("u")
        await driver.until("the last change was taken back", "as in effect")
        assert not driver.app.screen.draft.changes, "all of the preset in one step"


async def test_a_draft_survives_a_closed_terminal(cockpit, tmp_path):
    run = make_run(tmp_path / "runs" / "kept")
    for visit in range(2):
        async with cockpit(run, size=(120, 40)) as driver:
            await opened(driver)
            if visit == 0:
                await find(driver, "cos_lr")
                await driver.press("space")
                await driver.until("1 changed")
            else:
                await driver.until("1 changed, not saved")


async def test_copy_sends_python_through_the_terminal(cockpit):
    async with cockpit(size=(120, 40)) as driver:
        await opened(driver)
        await find(driver, "cos_lr")
        await driver.press("space", "y")
        await driver.until("OSC 52")
        values = {}
        exec(driver.app.clipboard, {"dict": dict}, values)
        assert values["settings"] == {"cos_lr": True}


async def test_a_draft_becomes_a_preset_of_ones_own(cockpit):
    async with cockpit(size=(120, 40)) as driver:
        await opened(driver)
        await driver.press("n")
        await driver.until("nothing is changed")
        await find(driver, "cos_lr")
        await driver.press("space", "n")
        await driver.type("mine")
        await driver.press("enter")
        await driver.until("saved as")
        saved = yaml.safe_load((user_config_dir() / "presets" / "mine.yaml").read_text())
        assert saved["settings"]["cos_lr"]["exactly"] is True
        assert "mine" in driver.backend.presets(driver.app.runs[0]), "it can be read back"
        await driver.press("u")
        await driver.until("put aside as", "1 changed, not saved")
        assert "mine" not in driver.backend.presets(driver.app.runs[0])
        assert (user_config_dir() / "presets" / "mine.yaml.undone").is_file(), "nothing is lost"
        await driver.press("u")
        await driver.until("the last change was taken back", "as in effect")


async def test_save_and_resume_in_one_key_and_why_not_while_it_runs(cockpit):
    async with cockpit(size=(120, 40)) as driver:
        await opened(driver)
        await driver.press("s")
        await driver.until("already running")
    async with cockpit(size=(120, 40), state="stopped", run=None, done=11) as driver:
        await opened(driver)
        await find(driver, "cos_lr")
        await driver.press("space", "s")
        await driver.until("asked the supervisor to resume")
        (command,) = driver.backend.submitted
        assert command.options == {"set": {"cos_lr": True}}
        await driver.press("s")
        await driver.until("asked already to resume")
        journal(driver.app.runs[0], kind="attempt_started", attempt=2, asked={"cos_lr": True})
        command_done(driver.app.runs[0], command, True, "attempt 2 resumed from epoch 11")
        await driver.until("attempt 2 resumed from epoch 11", "as in effect", absent=("changed,",))


async def test_a_refused_resume_is_shown_whole_and_keeps_the_draft(cockpit):
    async with cockpit(size=(80, 24), state="stopped", done=11) as driver:
        await opened(driver)
        await find(driver, "cos_lr")
        await driver.press("space", "s")
        await driver.until("asked the supervisor to resume")
        (command,) = driver.backend.submitted
        why = f"cos_lr cannot be resumed with: {'one more word, ' * 12}and that is the end of it"
        command_done(driver.app.runs[0], command, False, why)
        text = await driver.until("resume: NOT DONE", "1 changed, not saved", "? help")
        assert "and that is the end of it" in " ".join(text.split())
        await driver.press("s")
        await driver.until("asked the supervisor to resume")
        assert driver.backend.submitted[1].options == {"set": {"cos_lr": True}}


async def test_what_the_worker_reports_is_shown_and_not_what_was_asked(cockpit, tmp_path):
    run = make_run(tmp_path / "runs" / "auto")
    args = yaml.safe_load((run / "args.yaml").read_text())
    (run / "args.yaml").write_text(yaml.safe_dump({**args, "optimizer": "auto"}))
    journal(run, kind="in_effect", attempt=1, values={"lr0": 0.001429, "amp": False, "optimizer": "AdamW"})
    async with cockpit(run, size=(120, 40)) as driver:
        await opened(driver)
        await find(driver, "lr0")
        await driver.until("0.001429", "(optimizer=auto chose it;", "lr0=0.01 is ignored)")
        await driver.press("enter", "ctrl+u")
        await driver.type("0.005")
        await driver.press("enter")
        await driver.until("was 0.001429")
        await find(driver, "amp")
        text = await driver.until("train precision", "in effect  ")
        assert next(line for line in text.splitlines() if "in effect  " in line).split()[-1] == "False"


async def test_read_only_saves_nothing(cockpit):
    async with cockpit(size=(120, 40), read_only=True) as driver:
        await opened(driver)
        await find(driver, "cos_lr")
        await driver.press("space")
        await driver.until("read-only: open it without --read-only to edit")
        await driver.press("enter", "p", "w")
        await driver.until("read-only: open it without --read-only to save", "as in effect")
        assert driver.backend.submitted == [] and driver.app.screen.draft.changes == {}


async def test_a_search_among_the_changed_ones_says_that_only_these_are_searched(cockpit):
    async with cockpit(size=(120, 40)) as driver:
        await opened(driver)
        await driver.press("C")
        await find(driver, "lr0")
        await driver.until("no changed setting matches 'lr0'; C shows")
        await driver.press("C")
        await driver.until("lrf", absent=("no changed setting",))

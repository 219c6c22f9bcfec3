"""The two lines on top: what is odd about where a run stands, said once, and whether it is in doubt."""

from dataclasses import replace

import pytest

from nantui.ui.widgets.header import Header
from tests.ui.fakes import FakeBackend
from tests.ui.synthetic import journal, make_run, rank_event


class Told(FakeBackend):
    """A run that its supervisor says something of."""

    def __init__(self, **said):
        super().__init__(corrupt_from=None)
        self.said = said

    def status(self, run):
        return replace(super().status(run), **self.said)


def lines(driver):
    header = driver.app.screen.query_one(Header)
    return ["".join(text for text, _ in line) for line in header.lines]


async def test_a_save_that_failed_is_said_until_one_succeeds(cockpit, tmp_path):
    run = make_run(tmp_path / "demo", nan_from=None)
    rank_event(run, kind="saved", paths=["weights/last.pt"], epoch=11)
    async with cockpit(run, size=(80, 24), backend=FakeBackend(corrupt_from=None)) as driver:
        await driver.until("ETA", absent=("the last save failed",))
        rank_event(run, kind="save_failed", path="weights/last.pt", text="OSError: no space left on device")
        await driver.eventually(lambda: "the last save failed" in lines(driver)[1])
        rank_event(run, kind="saved", paths=["weights/last.pt"], epoch=12)
        await driver.eventually(lambda: "the last save failed" not in lines(driver)[1])


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_warnings_that_stand_make_the_header_doubt(cockpit, tmp_path, size):
    run = make_run(tmp_path / "demo", nan_from=None)
    async with cockpit(run, size=size, backend=FakeBackend(corrupt_from=None)) as driver:
        await driver.until("ETA", absent=("suspicious",))
        rank_event(run, kind="warning", warning="loss_climbing", text="loss 9", epoch=12, step=4)
        await driver.until("suspicious (d)", "ETA")
        journal(run, kind="incident", incident="nan_loss", epoch=12, step=5, action="ended", attempt=1)
        await driver.until("ALARM", absent=("suspicious (d)",))


async def test_an_early_warning_of_an_epoch_that_ended_well_is_over(cockpit, tmp_path):
    run = make_run(tmp_path / "demo", nan_from=None)
    rank_event(run, kind="warning", warning="loss_climbing", text="loss 9", epoch=11, step=4)
    async with cockpit(run, backend=FakeBackend(corrupt_from=None)) as driver:
        await driver.eventually(lambda: driver.app.screen.snapshot.steps.columns, "the second look")
        assert "suspicious" not in driver.text


async def test_epochs_that_lost_what_was_learned_make_the_header_doubt(cockpit, tmp_path):
    run = make_run(tmp_path / "demo", nan_from=None, epochs=60, done=50)
    results = run / "results.csv"
    head, *rows = results.read_text().splitlines()
    at = [index for index, name in enumerate(head.split(",")) if name.startswith("metrics/")]
    for number, row in enumerate(rows[15:], 15):
        cells = row.split(",")
        rows[number] = ",".join("0.0" if index in at else cell for index, cell in enumerate(cells))
    results.write_text("\n".join([head, *rows]) + "\n")
    async with cockpit(run, backend=FakeBackend(corrupt_from=None)) as driver:
        await driver.until("suspicious (d)")


@pytest.mark.parametrize(
    ("state", "text", "ending", "shown"),
    [
        ("stopped", "stopped in epoch 3 after batch 5; it goes on there", "", "in epoch 3 after batch 5"),
        ("stopped", "stopped; the next worker waits (process 7, 300 MB)", "", ""),
        ("stopped", "stopped", "", ""),
        ("diverged", "NaN in the loss", "diverged", ""),
        ("diverged", "diverged: NaN in the loss", "diverged", "NaN in the loss"),
    ],
)  # fmt: skip
async def test_the_word_of_the_state_is_said_once(cockpit, tmp_path, state, text, ending, shown):
    run = make_run(tmp_path / "demo", nan_from=None, state=state)
    async with cockpit(run, backend=Told(text=text, ending=ending)) as driver:
        told = " ".join(lines(driver))
        assert told.count(state) == 1 and shown in told and "worker waits" not in told

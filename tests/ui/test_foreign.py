"""A training that nantui did not start is stopped from the cockpit by typing the run's name, and only so."""

from dataclasses import replace

import pytest

from nantui.run.layout import RunLayout
from tests.ui.fakes import FakeBackend
from tests.ui.synthetic import make_run


class SomebodyTrains(FakeBackend):
    """A run of plain Ultralytics with two living processes."""

    def status(self, run):
        text = "process 77 of eve, from tmux session night, 2.0 hours old: python train.py (certain)"
        return replace(super().status(run), state="foreign", pids=(77, 78), text=text)


@pytest.fixture
def foreign(tmp_path):
    run = make_run(tmp_path / "theirs")
    RunLayout(run).supervisor.unlink()
    return run


@pytest.mark.parametrize(("key", "kind"), [("x", "stop"), ("X", "kill")])
async def test_the_name_confirms(cockpit, foreign, key, kind):
    backend = SomebodyTrains()
    async with cockpit(foreign, backend=backend) as driver:
        await driver.until("foreign")
        await driver.press(key)
        await driver.until("process 77 of eve", "tmux session night")
        await driver.press(*"yes", "enter")
        assert backend.submitted == []
        await driver.press(*"theirs", "enter")
        await driver.until("asked the supervisor")
        (command,) = backend.submitted
        assert (command.kind, command.options) == (kind, {"foreign": True})


async def test_recover_asks_for_a_stop_first(cockpit, foreign):
    backend = SomebodyTrains()
    async with cockpit(foreign, backend=backend) as driver:
        await driver.until("foreign")
        await driver.press("R")
        await driver.until("stop it with x first")
        await driver.press("d")
        await driver.until("causes", absent=("stop it with x first",))
        await driver.press("R")
        await driver.until("causes", "recover: nantui did not start this training: stop it with x first")
        assert backend.submitted == [] and backend.asked == []

"""What became of a command: whatever was not carried out is said whole, on the screen that is open."""

import pytest

from nantui.errors import UserError
from tests.ui.fakes import FakeBackend
from tests.ui.synthetic import command_done


@pytest.mark.parametrize(("key", "state"), [("x", "running"), ("X", "running"), ("u", "stopped")])
async def test_a_command_that_was_not_carried_out_is_shown_whole_above_the_keys(cockpit, key, state):
    async with cockpit(size=(80, 24), state=state, recovered=True) as driver:
        await driver.press(key)
        await driver.until("[ Cancel ]")
        await driver.press("y")
        await driver.until("asked the supervisor")
        (command,) = driver.backend.submitted
        command_done(driver.app.runs[0], command, False, f"refused, {'for a long reason, ' * 6}as it ends")
        text = await driver.until("NOT DONE", "? help")
        assert "as it ends" in " ".join(text.split())


async def test_a_command_that_cannot_be_left_is_shown_too(cockpit):
    def refuse(run, command):
        raise UserError("the spool is full")

    backend = FakeBackend()
    backend.submit = refuse
    async with cockpit(state="stopped", backend=backend) as driver:
        await driver.press("s")
        await driver.until("It goes on without")
        await driver.press("y")
        await driver.until("resume: NOT DONE. the spool is full")

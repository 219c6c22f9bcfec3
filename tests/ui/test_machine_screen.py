"""The machine in full: curves of every GPU, what a step waits for, whose memory it is; a kill of ours."""

from dataclasses import replace

import pytest

from nantui.machine.gpus import SILENT, GpuProcess, Sampler
from nantui.ui.model.snapshot import StepCurves
from nantui.ui.screens.machine import step_split
from nantui.ui.widgets.chart_wall import ChartWall
from tests.ui.fakes import FakeBackend


@pytest.fixture
def backend():
    played = FakeBackend()
    processes = (
        GpuProcess(41, 20.0, True, "ana", "python -m nantui.worker runs/demo"),
        GpuProcess(42, 30.0, False, "bo", "python notebook.py"),
    )
    gpus = (replace(played.machine.gpus[0], processes=processes), played.machine.gpus[1])
    host = replace(played.machine.host, busy=(100.0, 0.0), moved={"read": 12.5, "written": 0.5})
    played.machine = replace(played.machine, t=100.0, gpus=gpus, host=host)
    return played


async def test_curves_processes_and_cores_are_shown(cockpit, backend):
    async with cockpit(size=(160, 45), backend=backend) as driver:
        await driver.until("61 C")
        await driver.press("3", "enter")
        text = await driver.until("GPU use", "GPU power", "disk", "this run", "notebook.py", "cores")
        assert text.index("notebook.py") < text.index("runs/demo"), "the largest first"
        use = driver.app.screen.query_one(ChartWall).pictures[0]
        assert [(curve.name, curve.ys[-1]) for curve in use.curves] == [("0", 97.0), ("1", 95.0)]


async def test_a_driver_that_hangs_is_named_and_the_host_is_shown_all_the_same(cockpit, backend):
    backend.machine = replace(backend.machine, gpus=(), note=SILENT)
    async with cockpit(backend=backend) as driver:
        assert "RAM" in await driver.until("GPUs: no answer")
        await driver.press("M")
        await driver.until(SILENT, absent=("no process holds memory",))


async def test_only_processes_of_the_run_are_ended(cockpit, backend):
    async with cockpit(size=(160, 45), backend=backend) as driver:
        await driver.until("61 C")
        await driver.press("M", "X")
        await driver.until("not of this run")
        await driver.press("j", "X")
        await driver.until("Kill every process of the run?")
        await driver.press("y")
        await driver.until("GPU use")
        assert [command.kind for command in driver.backend.submitted] == ["kill"]


@pytest.mark.parametrize(("waits", "bound"), [(0.08, "loader"), (0.001, "compute")])
def test_a_step_is_bound_by_what_it_waits_for(waits, bound):
    xs = (1.0, 2.0)
    steps = StepCurves(recent={"step_s": (xs, (0.1, 0.1)), "data_s": (xs, (waits, waits))})
    assert step_split(steps).endswith(f"bound by the {bound}")
    assert step_split(StepCurves()) == ""


def test_a_sample_has_each_core_and_what_was_moved(tmp_path):
    sampler = Sampler(tmp_path)
    host = sampler.sample().host
    assert len(host.busy) >= 1 and all(0 <= share <= 100 for share in host.busy)
    assert set(host.moved) == {"read", "written", "received", "sent"}
    assert all(rate >= 0 for rate in host.moved.values())

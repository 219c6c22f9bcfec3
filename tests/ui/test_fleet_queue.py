"""The queue among all runs: what waits and for what, moved, taken out, paused; all from the row of a run."""

from dataclasses import replace
from threading import Event

import pytest
from textual.events import Key

from nantui.run.events import Incident, document_of
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec, write_spec
from nantui.run.status import RunStatus
from nantui.supervisor.queue import devices
from nantui.supervisor.queue.entries import Entry, change, read_queue
from nantui.ui.model.backend import Backend
from tests.ui.fakes import FakeBackend
from tests.ui.synthetic import make_run


@pytest.fixture
def queued(tmp_path):
    """Return a folder with a run that has finished and three that wait for the CPU."""
    top = tmp_path / "runs"
    make_run(top / "done", state="finished", nan_from=None)
    for name in ("first", "second", "third"):
        (top / name).mkdir()
        write_spec(RunLayout(top / name).spec, Spec({"model": "yolov8n.yaml", "device": "cpu"}))
    new = [Entry(0, str(top / name), str(tmp_path), "cpu") for name in ("first", "second", "third")]
    change(lambda queue: queue.added(new, {}))
    change(lambda queue: queue.__class__(queue.entries, True, queue.last, queue.environments))
    return top


def order():
    return [entry.name for entry in read_queue().entries]


@pytest.fixture
def fleet(cockpit, queued):
    asked = {"top": queued, "runs": [], "size": (120, 40), "wait": ("place 3 of 3",)}
    return lambda **more: cockpit(backend=Backend(), **{**asked, **more})


async def to_row(driver, name):
    await driver.press("slash")
    await driver.type(name)
    await driver.press("enter")


async def test_each_row_says_its_place_and_what_it_waits_for(fleet):
    async with fleet() as driver:
        text = await driver.until("place 1 of 3, paused", "waits for the CPU: #1 (first) waits for it before")
        assert text.index("place 1") < text.index("place 2") < text.index("place 3")
        await driver.press("end")
        await driver.until("box", "learning rate")
        await driver.press("home")
        await driver.until("what happened", absent=("box", "learning rate"))


async def test_a_queued_row_says_what_tells_it_from_the_others(fleet):
    def asked(queue):
        return replace(
            queue, entries=tuple(replace(one, asks=f"lr0=0.0{one.number}") for one in queue.entries)
        )

    change(asked)
    async with fleet(size=(80, 24)) as driver:
        text = await driver.until("lr0=0.01", "lr0=0.02", "place 3 of 3")
        assert next(line for line in text.splitlines() if "lr0=0.02" in line).split()[0] == "runs/second"


async def test_a_filter_is_told_with_how_many_of_all_it_leaves(fleet):
    async with fleet(size=(80, 24)) as driver:
        await to_row(driver, "ir")
        await driver.until("2 of 4 runs with 'ir'", absent=("runs/second",))
        await driver.press("escape")
        await driver.until("4 runs sorted by state", "runs/second")


async def test_a_queued_run_is_moved_and_moved_back(fleet):
    async with fleet() as driver:
        await to_row(driver, "third")
        for key, place, names in (("plus", 2, "132"), ("minus", 3, "123"), ("minus", 3, "123")):
            await driver.press(key)
            await driver.until(f"third is at place {place} of the queue", f"place {place} of 3")
            assert order() == [{"1": "#1 (first)", "2": "#2 (second)", "3": "#3 (third)"}[n] for n in names]
            driver.app.screen.say("")


async def test_keys_in_one_burst_move_it_as_often(fleet):
    async with fleet() as driver:
        await to_row(driver, "third")
        for _ in range(2):  # before the list has been read again
            driver.app.post_message(Key("plus", "+"))
        await driver.until("third is at place 1 of the queue", "place 1 of 3")
        assert order()[0] == "#3 (third)"


async def test_a_filter_that_nothing_matches_says_so_and_gives_the_lines_back(fleet):
    async with fleet(size=(80, 24)) as driver:
        await driver.press("slash")
        await driver.type("zzz")
        driver.app.screen.show_runs(driver.app.screen.fleet.statuses)  # as with the next look at the runs
        await driver.pilot.pause(0.3)
        assert "no run matches 'zzz'" in driver.text
        await driver.press("escape")
        await driver.until("runs/done", "place 3 of 3")


async def test_one_is_taken_out_once_that_was_confirmed(fleet, queued):
    async with fleet() as driver:
        await to_row(driver, "second")
        await driver.press("x")
        await driver.until("Take second out of the queue?")
        await driver.press("escape", "delete")
        await driver.until("Take second out of the queue?")
        assert len(order()) == 3
        await driver.press("y")
        await driver.until("second is out of the queue")
        assert order() == ["#1 (first)", "#3 (third)"] and not (queued / "second").exists()


async def test_the_queue_goes_on_and_is_paused_however_long_the_gpus_take(fleet, monkeypatch):
    monkeypatch.setattr("nantui.supervisor.queue.entries.wake", lambda: None)  # nothing trains here
    answer = Event()
    monkeypatch.setattr(devices, "look", lambda *_: [] if answer.wait(60) else [])
    async with fleet() as driver:
        screen = driver.app.screen
        await driver.eventually(lambda: screen.paused)
        await driver.press("p")
        await driver.until("the queue goes on")
        assert not read_queue().paused
        answer.set()
        await driver.until("the queue goes on", absent=(", paused",))
        await driver.eventually(lambda: screen.paused is False)
        await driver.press("p")
        await driver.until("what trains goes on", ", paused")
        assert read_queue().paused
        screen.paused = None
        await driver.press("p")
        await driver.until("the queue is still being read")
        assert read_queue().paused


async def test_keys_say_why_they_do_nothing(fleet):
    async with fleet() as driver:
        await to_row(driver, "done")
        for key in ("plus", "minus", "delete"):
            await driver.press(key)
            await driver.until("waits in no queue")
    async with fleet(read_only=True) as driver:
        await to_row(driver, "first")
        for key in ("plus", "delete", "p"):
            await driver.press(key)
            await driver.until("read-only")
            driver.app.screen.say("")
    assert len(order()) == 3 and read_queue().paused


async def test_a_queue_that_cannot_be_read_is_told_and_the_runs_are_shown(fleet, queued):
    from nantui.supervisor.queue.entries import queue_file

    async with fleet() as driver:
        queue_file().write_text("no queue\n")
        await driver.until("cannot read runs or queue: /", "runs/done")


async def test_a_run_with_an_alarm_stands_before_all_others_and_a_skipped_step_is_none(cockpit, tmp_path):
    def status(name, state, action):
        incident = document_of(Incident(t=1.0, incident="nan_ema", epoch=3, action=action))
        return RunStatus(tmp_path / name, state, 4, 9, last_incident=incident)

    backend = FakeBackend()
    seen = [status("died", "failed", "skipped"), status("ruined", "running", "observed")]
    backend.fleet = lambda top: [*seen, status("well", "running", "skipped")]
    async with cockpit(backend=backend, top=tmp_path, runs=[], wait=("3 runs sorted",)) as driver:
        text = await driver.until("NaN in", "/well")
        assert text.index("/ruined") < text.index("/died") < text.index("/well")

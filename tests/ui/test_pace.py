"""Repaints in a slow link's rhythm, means of ten seconds, and how long the disk lasts."""

from pathlib import Path
from types import SimpleNamespace

from nantui.machine.gpus import Host
from nantui.ui.model.checkpoint_rows import hours_of_room
from nantui.ui.model.snapshot import Checkpoint
from nantui.ui.watchers import Pace
from nantui.ui.widgets.hardware import History


def test_a_few_repaints_at_once_and_then_one_at_a_time():
    now = [0.0]
    pace = Pace(2.0, at_once=2, clock=lambda: now[0])
    assert [pace.allows() for _ in range(4)] == [True, True, False, False]
    allowed = 0
    for _ in range(40):
        now[0] += 0.5
        allowed += pace.allows()
    assert allowed == 10


def sample(t, busy):
    gpu = SimpleNamespace(index=0, busy=busy, used_gb=20.0, total_gb=80.0, watts=None, celsius=None)
    host = Host(37.0, 64, 12.0, 128.0, 48.2, 64.0, 1.0, 4000.0, 412.0, 9.0)
    return SimpleNamespace(t=t, gpus=(gpu,), host=host)


def test_a_point_of_the_past_is_a_mean_and_does_not_move():
    history = History()
    for t, busy in ((0, 100.0), (4, 50.0), (11, 10.0), (12, None)):
        history.add(sample(t, busy))
    assert history.shares("GPU use", "0", 100.0) == [0.75]
    assert history.shares("GPU memory", "0", 80.0) == [0.25]
    assert history.shares("GPU use", "7", 100.0) == []


def files(*names, every=600.0, size=10**9):
    return tuple(Checkpoint(Path(name), size, index * every) for index, name in enumerate(names))


def test_hours_of_room_are_counted_from_what_is_kept():
    assert hours_of_room(files("epoch0.pt", "epoch5.pt", "epoch10.pt"), 12.0) == 2.0
    assert hours_of_room(files("last.pt", "best.pt", "epoch0.pt", "epoch5.pt"), 12.0) is None

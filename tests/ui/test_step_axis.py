"""One axis for the steps of a whole run: no gap and no overlap where the batch size or the phase changes."""

from __future__ import annotations

import pytest

from nantui.run.layout import RunLayout
from nantui.supervisor.status import read_status
from nantui.ui.model.run_reader import RunReader
from nantui.ui.model.step_store import StepAxis, StepStore, place_of
from tests.ui.synthetic import make_run, write_attempt, write_steps


def trained(axis, attempt, phase, epochs, steps):
    """Return where the first and the last step of some epochs stand."""
    axis.begin_attempt(attempt, phase)
    places = [axis.place(epoch, step, steps) for epoch in epochs for step in range(1, steps + 1)]
    assert sum(stretch.attempt == attempt for stretch in axis.stretches) == 1
    return places[0], places[-1]


def test_a_resume_with_half_the_batch_goes_on_where_its_epoch_began():
    axis = StepAxis()
    assert trained(axis, 1, 1, range(1, 6), 10) == (1, 50)
    assert trained(axis, 2, 1, range(4, 7), 20) == (31, 90)
    assert trained(axis, 3, 1, range(5, 6), 20) == (51, 70), "from the place that attempt 2 gave the epoch"
    assert place_of(axis.stretches, 1, 5, 3) == 43 and place_of(axis.stretches, 2, 5, 3) == 53
    assert place_of(axis.stretches, 9, 5, 3) is None and place_of(axis.stretches, 3, 4, 1) is None


def test_a_phase_begins_where_the_one_before_has_ended_and_again_after_an_undo():
    axis = StepAxis()
    trained(axis, 1, 1, range(1, 6), 10)
    assert trained(axis, 2, 2, range(1, 3), 5) == (51, 60)
    assert trained(axis, 3, 2, range(2, 3), 5) == (56, 60)
    assert trained(axis, 4, 1, range(5, 8), 10) == (41, 70), "the phase was taken back"
    assert trained(axis, 5, 2, range(1, 3), 5) == (71, 80)


def test_an_attempt_from_before_the_first_known_epoch_has_its_place():
    axis = StepAxis()
    assert trained(axis, 1, 1, range(50, 52), 10) == (491, 510)
    assert trained(axis, 2, 1, range(48, 49), 10) == (471, 480)


def test_a_file_whose_epochs_change_their_length_all_the_time_takes_no_memory():
    axis = StepAxis()
    axis.begin_attempt(1, 1)
    for index in range(10_000):
        axis.place(7, 1, 10 + index % 2)
    assert len(axis.stretches) == 1


@pytest.fixture
def long_attempts(tmp_path):
    """A run whose first attempt has more telemetry than one look takes in; the second repeats an epoch."""
    layout = RunLayout(make_run(tmp_path / "run", done=3, epochs=150))
    write_steps(layout.steps(1), 150, 100, 0.0)
    write_attempt(layout, 2, layout.run, 150, 0.0)
    lines = layout.steps(1).read_text().splitlines(keepends=True)
    layout.steps(2).write_text("".join([lines[0], *lines[-100:]]))
    return layout


def test_an_earlier_attempt_is_read_whole_and_before_the_next(long_attempts, monkeypatch):
    assert 1 << 20 < long_attempts.steps(1).stat().st_size < 1 << 21
    order, read = [], StepStore.read

    def noted(store, steps, *of):
        order.append(steps.path.name)
        return read(store, steps, *of)

    monkeypatch.setattr(StepStore, "read", noted)
    reader = RunReader(long_attempts.run, read_status)
    reader.read()
    steps = reader.read().steps
    assert order == sorted(order)
    assert [(stretch.attempt, stretch.x) for stretch in steps.stretches] == [(1, 0), (2, 14_900)]
    newest, _ = steps.recent["box_loss"]
    assert newest == tuple(map(float, range(15_000 - len(newest) + 1, 15_001))) and len(newest) > 1_900
    assert ("attempt", 14_900) in {(mark.kind, mark.x) for mark in reader.read().step_charts[0].marks}

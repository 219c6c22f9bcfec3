"""A plan's phases are one training on the screen: one epoch axis, a mark where a phase begins, one ETA."""

from dataclasses import replace

import yaml

from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec, write_spec
from nantui.ui.model.run_reader import RunReader
from tests.ui.fakes import FakeBackend
from tests.ui.synthetic import make_run, write_attempt, write_results, write_steps


def in_second_phase(tmp_path):
    """Return a run whose first phase of 12 epochs lies in phases/01 and whose second has trained 4 of 8."""
    run = make_run(tmp_path / "runs" / "plan", epochs=8, done=4, nan_from=None)
    layout = RunLayout(run)
    aside = layout.home / "phases" / "01"
    aside.mkdir(parents=True)
    write_results(aside / "results.csv", 12, None)
    listed = [{"title": "small", "settings": {"epochs": 12}}, {"title": "large", "settings": {"epochs": 8}}]
    plan = {"name": "two", "phase": 2, "phases": listed, "base": {"train": {}, "ours": {}}}
    write_spec(layout.spec, Spec(train=yaml.safe_load(layout.args_yaml.read_text()), plan=plan))
    lines = layout.journal.read_text().splitlines(keepends=True)
    layout.journal.write_text(lines[0])
    journal = Journal(layout.journal)
    journal.append("rollback_begun", id="r1", restore_point="epoch4.pt", epoch=5)
    journal.append("phase_begun", id="p1", phase=2, title="large", aside="nantui/phases/01", text="phase 2")
    journal.append("phase_done", id="p1", phase=2, text="phase 2 of 2 begins")
    journal.append("incident", incident="nan_loss", epoch=3, step=2, action="skipped", attempt=1)
    return run


class Planned(FakeBackend):
    """Tells the place in the plan as the supervisor's own reader does."""

    def __init__(self, **phase):
        super().__init__(corrupt_from=None)
        self.phase = {
            "number": 2,
            "of": 3,
            "title": "large",
            "epochs_before": 12,
            "epochs_in_all": 40,
            **phase,
        }
        self.eta_s = 7200.0

    def status(self, run):
        return replace(super().status(run), epochs=8, phase=self.phase, eta_s=self.eta_s)


def test_epochs_of_all_phases_are_one_row_with_marks_where_they_happened(tmp_path):
    run = in_second_phase(tmp_path)
    reader = RunReader(run, Planned().status)
    snapshot = reader.read()
    assert [row.epoch for row in snapshot.rows] == list(range(1, 17))
    assert not any(row.superseded for row in snapshot.rows), "the second phase repeats no epoch of the first"
    box = snapshot.epoch_charts[0]
    marks = {(mark.kind, mark.x, mark.text) for mark in box.marks}
    assert marks == {("rollback", 5.0, ""), ("phase", 12.5, "large"), ("skip", 15.0, "")}
    assert reader.read().rows is snapshot.rows


def test_steps_of_all_phases_are_one_row_with_marks_where_they_happened(tmp_path):
    layout = RunLayout(in_second_phase(tmp_path))
    write_attempt(layout, 2, layout.run, 8, 0.0)
    write_steps(layout.steps(2), 4, 5, 0.0)
    journal = Journal(layout.journal)
    journal.append("attempt_started", attempt=2, mode="resume", phase={"number": 2, "of": 2})
    journal.append("incident", incident="nan_loss", epoch=3, step=2, action="ended", attempt=2)
    reader = RunReader(layout.run, Planned().status)
    reader.read()
    box = reader.read().step_charts[0]
    assert box.curves[0].xs == tuple(map(float, range(1, 4 * 8 + 4 * 5 + 1)))
    marks = {(mark.kind, mark.x, mark.text) for mark in box.marks}
    assert marks == {("phase", 32.0, "large"), ("incident", 32.0 + 2 * 5 + 2, "")}


async def test_the_header_tells_the_phase_and_the_time_to_the_end_of_the_plan(cockpit, tmp_path):
    async with cockpit(in_second_phase(tmp_path), backend=Planned(), size=(160, 45)) as driver:
        await driver.until("phase 2 of 3  epoch 4/8", "ETA 2 h 00 min", "large")


async def test_where_a_later_phase_was_never_timed_only_this_one_is_told(cockpit, tmp_path):
    backend = Planned(eta_s=600.0, unknown="phase 3 (20 epochs)")
    backend.eta_s = None
    async with cockpit(in_second_phase(tmp_path), backend=backend) as driver:
        await driver.until("ETA 10 min 00 s for this phase")

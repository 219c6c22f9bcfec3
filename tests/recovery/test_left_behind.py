"""What the present weights hold of earlier attempts: told by attempt, epoch and step, whatever clocks say."""

from __future__ import annotations

from pathlib import Path

import pytest

from nantui.recovery.trouble import first_trouble, judge_warnings
from nantui.run.attempts import Attempt, write_attempt
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.run.telemetry import AFTER_LOSSES, BEFORE_LOSSES


class Told:
    """A run whose attempts each have one step, at `begins`, and which is told in its journal."""

    def __init__(self, place: Path) -> None:
        self.layout = RunLayout(place)
        self.journal = Journal(self.layout.journal)

    def attempt(self, number: int, begins: tuple[int, int], created: float = 0.0, loss: str = "1.0") -> None:
        mode = "resume" if number > 1 else "start"
        write_attempt(self.layout, Attempt(number, f"u{number}", created, mode, None, {}, {}, "python"))
        columns = ",".join((*BEFORE_LOSSES, "box_loss", *AFTER_LOSSES))
        row = f"1.0,{begins[0]},{begins[1]},50,0,,{loss}{',' * len(AFTER_LOSSES)}"
        self.layout.steps(number).write_text(f"{columns}\n{row}\n")
        self.journal.append("attempt_started", attempt=number, mode=mode)

    def incident(self, attempt: int, epoch: int, step: int | None = None) -> None:
        about = {"attempt": attempt, "epoch": epoch, "step": step}
        self.journal.append("incident", incident="nan_loss", action="observed", text="", **about)

    def warning(self, attempt: int, epoch: int, step: int) -> None:
        about = {"attempt": attempt, "epoch": epoch, "step": step}
        self.journal.append("warning", warning="loss_exploded", text="left its range", **about)

    def sign(self) -> tuple[int, int | None] | None:
        found = first_trouble(RunRecord(self.layout))
        return (found.epoch, found.step) if found else None

    def warned(self) -> int | None:
        found = judge_warnings(RunRecord(self.layout))
        return found.epoch if found else None


@pytest.fixture
def run(tmp_path: Path) -> Told:
    return Told(tmp_path)


@pytest.mark.parametrize("ahead", [-1e6, 1e6], ids=["the clock was set back", "the clock was set forward"])
def test_after_a_rollback_the_order_of_the_journal_counts(run: Told, ahead: float) -> None:
    run.attempt(1, (3, 1), created=2e9 - ahead, loss="nan")
    assert run.sign() == (3, 1)
    run.journal.append("rollback_begun", id="a", steps=[], restore_point="weights/epoch1.pt")
    run.journal.append("rollback_done", id="a")
    assert run.sign() is None
    run.attempt(2, (2, 1), created=2e9 + ahead, loss="nan")
    run.incident(2, 2, 1)
    assert run.sign() == (2, 1)
    run.journal.append("undo_done", id="b", of="a")
    assert run.sign() == (3, 1), "the work of the first attempt is back, that of the second is gone"


def test_a_step_point_holds_what_was_before_it_in_its_epoch(run: Told) -> None:
    run.attempt(1, (1, 1))
    run.incident(1, 5, 40)
    run.incident(1, 5)
    run.attempt(2, (5, 40))
    assert run.sign() is None, "the point lies before both"
    run.incident(1, 5, 39)
    assert run.sign() == (5, 39)
    run.attempt(3, (5, 1))
    assert run.sign() is None


def test_a_suspicion_that_a_resume_has_left_behind_is_forgotten_without_any_metric(run: Told) -> None:
    """With val=False no metric ever shows that nothing came of it."""
    run.attempt(1, (1, 1))
    run.warning(1, 6, 30)
    assert run.warned() == 6
    run.attempt(2, (6, 1))
    assert run.warned() is None
    run.warning(2, 7, 2)
    assert run.warned() == 7, "this one's own counts, though the first attempt began before it"

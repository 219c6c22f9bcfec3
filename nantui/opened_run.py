"""A run for notebooks and scripts: `nantui.open_run(path)`, tidy pandas frames, and nothing is changed.

Columns and units of the frames stand in docs/file-formats.md; `nantui plot` and `nantui export` show and
write the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from nantui.checkpoint.catalog import Catalog
from nantui.errors import UserError
from nantui.run.events import Incident, of_kind
from nantui.run.record import AttemptRecord, RunRecord, read_run
from nantui.run.status import RunStatus
from nantui.run.telemetry import AFTER_LOSSES, read_steps

if TYPE_CHECKING:
    from pandas import DataFrame

INCIDENT_COLUMNS = ("t", "attempt", "epoch", "step", "rank", "incident", "action", "text")
CHECKPOINT_COLUMNS = ("name", "epoch", "bytes", "badge", "resumable", "best", "fitness", "finding")
FRAMES = ("epochs", "steps", "incidents", "checkpoints")


class OpenRun:
    """One look at the run in the directory `path`. What is written later is seen by a new one.

    Nothing in the run directory is written, moved or started. Raises UserError where there is no run.
    """

    def __init__(self, path: str | Path) -> None:
        self._record: RunRecord = read_run(Path(path))

    @property
    def path(self) -> Path:
        """The run's directory."""
        return self._record.run

    @property
    def name(self) -> str:
        """The last part of the run's path."""
        return self.path.resolve().name

    def status(self) -> RunStatus:
        """Return where the run stands now: state, epoch, losses, seconds to go, last incident."""
        from nantui.supervisor.status import read_status

        return read_status(self.path)

    def epochs(self, superseded: bool = False) -> DataFrame:
        """Return a row an epoch: `epoch` from 1, `seconds` since that start of training, `segment`, and the
        columns of results.csv. With `superseded` also the rows that a recovery trained anew.
        """
        from pandas import DataFrame

        rows = self._record.results if superseded else self._record.epochs
        names = dict.fromkeys(name for row in rows for name in row.values)
        kept = ["epoch", "seconds", "segment", *(["superseded"] if superseded else [])]
        table = [{**{name: getattr(row, name) for name in kept}, **row.values} for row in rows]
        return DataFrame(table, columns=[*kept, *names])

    def steps(self, attempt: int | None = None) -> DataFrame:
        """Return a row a step, of one attempt or of all: `attempt`, `t` in s since 1970, `epoch` and `step`
        from 1, `skipped`, `reason`, a column a loss, and what was measured (`grad_norm`, `lr`, `loss_scale`,
        `step_s` in s, `images_s`, memory in GB); NaN where it was not. Raises UserError for no such attempt.
        """
        from pandas import DataFrame

        table = [
            {"attempt": one.number, **vars(step), **step.losses, **step.values}
            for one in self._attempts(attempt)
            for step in read_steps(one.layout.steps(one.number))
        ]
        losses = dict.fromkeys(name for row in table for name in row if name.endswith("loss"))
        first = ("attempt", "t", "epoch", "step", "steps", "skipped", "reason")
        return DataFrame(table, columns=[*first, *losses, *AFTER_LOSSES])

    def incidents(self) -> DataFrame:
        """Return a row for each thing that would have spoilt the weights, and what was done of it."""
        from pandas import DataFrame

        table = [
            [one.number if name == "attempt" else getattr(event, name) for name in INCIDENT_COLUMNS]
            for one in self._attempts()
            for event in of_kind(one.events(), Incident)
        ]
        return DataFrame(table, columns=list(INCIDENT_COLUMNS))

    def checkpoints(self) -> DataFrame:
        """Return a row for each checkpoint, newest first, judged without being run: `epoch` from 1 (NaN where
        the file does not tell), `bytes`, `badge`, `resumable`, `best`, `fitness`, and the worst finding.
        """
        from pandas import DataFrame

        table = [
            [one.path.name, one.work_epoch, one.bytes, one.badge, one.resumable, one.best, one.fitness,
             one.findings[0].detail if one.findings else ""]
            for one in Catalog(self._record.layout.weights).verdicts()
        ]  # fmt: skip
        return DataFrame(table, columns=list(CHECKPOINT_COLUMNS))

    def _attempts(self, number: int | None = None) -> Iterable[AttemptRecord]:
        if number is None:
            return self._record.attempts
        if number not in self._record.layout.attempt_numbers():
            known = ", ".join(map(str, self._record.layout.attempt_numbers())) or "none"
            raise UserError(f"{self.path} has no attempt {number}; there is {known}")
        return [self._record.attempt(number)]

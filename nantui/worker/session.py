"""One rank's part in one attempt: what was asked, where it reports, and how its end is recorded."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from nantui.errors import UserError
from nantui.machine.process_identity import this_machine, this_process
from nantui.run.attempts import (
    EXIT_CODES,
    PREEMPTED_CODE,
    STOPPED,
    Attempt,
    RankExit,
    read_attempt,
    write_exit,
)
from nantui.run.layout import RunLayout
from nantui.run.spec import read_spec
from nantui.worker.incident import Incident, TrainingEnded
from nantui.worker.options import Options, read_options
from nantui.worker.telemetry import Recorder
from nantui.worker.torchrun_env import rank


@dataclass
class TrainingPosition:
    """Where the training is; both count from 1, None before the first batch."""

    epoch: int | None = None
    step: int | None = None


class Session:
    """Holds the attempt, the recorder and the place in the run directory for one rank."""

    def __init__(self, layout: RunLayout, attempt: Attempt, also_stopped_by: Path | None = None) -> None:
        """`also_stopped_by` is another file whose appearance asks for a stop."""
        self.layout, self.attempt = layout, attempt
        self.rank = rank()
        self.options: Options = read_options(attempt.ours)
        self.progress = TrainingPosition()
        self.told = ""
        """The signal that has told this rank to end."""
        number = attempt.attempt
        first = self.rank == 0
        requests = [layout.stop_request(number), *filter(None, [also_stopped_by])]
        self.recorder = Recorder(
            layout.events(number, self.rank), self.rank, steps=layout.steps(number) if first else None,
            stop_requests=requests if first else (),
            rewind_request=layout.rewind_request(number) if first else None,
        )  # fmt: skip

    @classmethod
    def open(cls, run: Path, number: int) -> Session:
        """Return the session of attempt `number`. Raises UserError when its record is missing or broken."""
        layout = RunLayout(run.resolve())
        attempt = read_attempt(layout, number)
        if attempt is None:
            raise UserError(f"{layout.attempt(number)}: no readable record of this attempt")
        return cls(layout, attempt)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def unattended(self) -> bool:
        """Tell whether the run is to recover by itself (`--auto`), which may be said at any time."""
        path = self.layout.spec
        try:  # whose it is was looked at by the supervisor that started this process
            spec = read_spec(path, trusted={path.stat().st_uid}, agreed=True)
        except (OSError, UserError):
            return False
        return spec is not None and spec.auto

    def register(self) -> None:
        """Say which process this is, so that it can be found and told apart from a later one."""
        own = this_process()
        where = asdict(this_machine())
        self.recorder.event("registered", **asdict(own), **where, uuid=self.attempt.uuid)

    def phase(self, name: str) -> None:
        """Report what this rank is doing now: importing, setup, training, validating, saving, ending."""
        self.recorder.event("phase", phase=name)

    def report(self, incident: Incident) -> None:
        """Report an incident."""
        if self.first:
            self.recorder.event("incident", **incident.fields())

    def warn(self, kind: str, text: str, **evidence: object) -> None:
        """Report something that is not an incident but may become one."""
        if not self.first:
            return
        place = {"epoch": self.progress.epoch, "step": self.progress.step}
        self.recorder.event("warning", warning=kind, text=text, evidence=evidence, **place)

    def end(self, outcome: str, text: str = "", ended: TrainingEnded | None = None) -> int:
        """Record how this rank ended, and return its exit code."""
        incident = getattr(ended, "incident", None)
        ending = RankExit(
            outcome=outcome, rank=self.rank, pid=os.getpid(),
            code=PREEMPTED_CODE if self.told and outcome == STOPPED else EXIT_CODES[outcome],
            signal=self.told, t=time.time(), epoch=self.progress.epoch, step=self.progress.step,
            text=text or (ended.text if ended else ""), incident=incident.fields() if incident else None,
            checkpoint=getattr(ended, "checkpoint", None), resumable=bool(getattr(ended, "resumable", False)),
        )  # fmt: skip
        self.recorder.close()
        try:
            write_exit(self.layout, self.attempt.attempt, ending)
        except OSError as error:  # the exit code says the outcome, too
            print(f"nantui: how this rank ended could not be written: {error}", file=sys.stderr)
        return ending.code

"""How a training ends other than by reaching its last epoch: stopped when asked, or diverged.

Both are raised at one step that all ranks agreed on. They are a SystemExit, so that a user's own script
that catches `Exception` around `train()` ends with the right code instead of going on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from nantui.run.attempts import DIVERGED, EXIT_CODES, STOPPED
from nantui.run.documents import Document
from nantui.run.incidents import REWOUND

Evidence: TypeAlias = dict[str, Any]
"""What was measured, by name; it goes into an event as JSON."""


@dataclass(frozen=True)
class Incident:
    """Something that would have spoilt the weights; `epoch` and `step` count from 1."""

    incident: str
    epoch: int
    step: int
    action: str
    text: str
    evidence: Evidence = field(default_factory=dict)

    def fields(self) -> Document:
        """Return the fields of the event."""
        return asdict(self)


class TrainingEnded(SystemExit):
    """The training was ended on purpose, at an agreed step; `code` is the worker's exit code."""

    outcome = STOPPED
    alone = False
    """Whether this rank ends without the others: a collective would wait for them."""

    def __init__(self, text: str) -> None:
        super().__init__(EXIT_CODES[self.outcome])
        self.text = text


class TrainingStopped(TrainingEnded):
    """Somebody asked; `checkpoint` is what was left to go on from, relative to the run."""

    def __init__(self, text: str, checkpoint: str | None = None, resumable: bool = False) -> None:
        super().__init__(text)
        self.checkpoint = checkpoint
        self.resumable = resumable


class TrainingDiverged(TrainingEnded):
    """The training cannot get better from here; nothing was saved from this state."""

    outcome = DIVERGED

    def __init__(self, incident: Incident) -> None:
        super().__init__(incident.text)
        self.incident = incident

    @property
    def goes_back(self) -> bool:
        """Whether all ranks have agreed to go back in memory instead of ending."""
        return self.incident.action == REWOUND

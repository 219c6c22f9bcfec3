"""The fault matrix: every pair of fault, optimizer, number of ranks and moment occurs in 24 cases."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

WARNED = ("nan_label", "loss_spike")  # contaminate nothing: the step is taken, with a warning
FAULTS = {
    "nan_pixel": "nan_loss",
    "inf_pixel": "nan_loss",
    "nan_label": "nan_label",
    "nan_weight": "nan_weight",
    "nan_gradient": "nan_gradient",
    "batchnorm_nan": "nan_buffer",
    "nan_loss": "nan_loss",
    "loss_spike": "loss_climbing",
}
OPTIMIZERS = ("SGD", "AdamW", "MuSGD")
MOMENTS = {"first": (1, 1), "later": (2, 4), "resumed": (2, 2)}


@dataclass(frozen=True)
class Case:
    """One training with one fault; `epoch` and `batch` count from 1."""

    fault: str
    optimizer: str
    ranks: int
    moment: str

    @property
    def name(self) -> str:
        return f"{self.fault}-{self.optimizer}-{self.ranks}-{self.moment}"

    @property
    def place(self) -> tuple[int, int]:
        epoch, batch = MOMENTS[self.moment]
        return epoch, max(batch, 4) if self.fault == "loss_spike" else batch

    @property
    def rank(self) -> int:
        """The rank that is hit: the second one where there are two."""
        return self.ranks - 1

    @property
    def faults(self) -> list[dict[str, object]]:
        epoch, batch = self.place
        return [{"fault": self.fault, "epoch": epoch, "batch": batch, "rank": self.rank}]


def pairwise() -> list[Case]:
    """Return 24 cases in which every pair of values occurs."""
    cases = []
    for (i, fault), (j, optimizer) in itertools.product(enumerate(FAULTS), enumerate(OPTIMIZERS)):
        cases.append(Case(fault, optimizer, 1 + (i + j) % 2, list(MOMENTS)[(i + j) % 3]))
    return cases


def everything() -> list[Case]:
    """Return the full product, for the soak."""
    return [Case(*values) for values in itertools.product(FAULTS, OPTIMIZERS, (1, 2), MOMENTS)]

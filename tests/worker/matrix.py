"""The fault matrix: every pair of fault, optimizer, number of ranks and moment occurs in 24 cases.

The soak runs every combination, of some more faults as well.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

WARNED = ("nan_label", "loss_spike", "zero_loss")  # contaminate nothing: the step is taken, with a warning
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
MORE_FAULTS = {"inf_loss": "nan_loss", "inf_gradient": "nan_gradient", "zero_loss": "zero_batch"}
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
    faults = [*FAULTS, *MORE_FAULTS]
    return [Case(*values) for values in itertools.product(faults, OPTIMIZERS, (1, 2), MOMENTS)]


def table(cases: list[Case], wrong: dict[Case, str]) -> str:
    """Return a row a fault, a column an optimizer and number of ranks; in each cell a letter a moment."""
    columns = list(itertools.product(OPTIMIZERS, (1, 2)))
    lines = [" " * 14 + "".join(f"{optimizer:>7} x{ranks}" for optimizer, ranks in columns)]
    by_value = {(c.fault, c.optimizer, c.ranks, c.moment): c for c in cases}
    for fault in dict.fromkeys(case.fault for case in cases):
        cells = []
        for column in columns:
            there = {moment[0]: by_value.get((fault, *column, moment)) for moment in MOMENTS}
            marks = [m.upper() if c in wrong else m if c else "-" for m, c in there.items()]
            cells.append("".join(marks))
        lines.append(f"{fault:14}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join([*lines, *(f"{case.name}: {why}" for case, why in wrong.items())])

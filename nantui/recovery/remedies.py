"""What cures which cause, as it was measured (docs/remedies.md, made together with configs/remedies.csv)."""

from __future__ import annotations

import csv
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from nantui.paths import configs_dir


@dataclass(frozen=True)
class Measured:
    """One remedy against trainings broken on purpose: of the `trials` so many were `cured`, with the share
    `kept` of the mAP50 without the fault. `step` is a step of the ladder, "" for what is none.
    """

    remedy: str
    step: str
    trials: int
    cured: int
    kept: float

    @property
    def words(self) -> str:
        """The figures in short words."""
        return f"{self.remedy}: cured {self.cured} of {self.trials}, keeps {self.kept:.0%} of the mAP"


def measured(cause: str, evidence: Collection[str]) -> list[Measured]:
    """Return the remedies, best first, for a cause that was diagnosed ("": none was): those of the trainings
    with most of the `evidence`; none for what is not in the table.
    """
    near = [key for key in _table() if key[0] == cause and key[1] <= set(evidence)]
    return _table()[max(near, key=lambda key: len(key[1]))] if near else []


def in_words(table: list[Measured], step: str) -> str:
    """Return the figures of the step that is proposed, or that there are none."""
    if not table:
        return "not measured: no training of the table broke like this"
    best = table[0]
    if not best.cured:
        return f"nothing cured it in {best.trials}; {best.remedy} keeps {best.kept:.0%} of the mAP"
    return next((row.words for row in table if row.step == step), f"not measured here; {best.words}")


@lru_cache(maxsize=1)
def _table() -> dict[tuple[str, frozenset[str]], list[Measured]]:
    """Return the rows of each cause and evidence, in the file's order; no recovery fails for one of them."""
    found: dict[tuple[str, frozenset[str]], list[Measured]] = {}
    path = configs_dir() / "remedies.csv"
    with suppress(OSError), path.open(encoding="utf-8", errors="replace", newline="") as file:
        for row in csv.DictReader(file):
            with suppress(LookupError, AttributeError, TypeError, ValueError):
                numbers = int(row["trials"]), int(row["cured"]), float(row["kept"])
                one = Measured(row["remedy"], row["step"], *numbers)
                found.setdefault((row["cause"], frozenset(row["evidence"].split())), []).append(one)
    return found

"""What a signal is worth: how long before the break it warns, against how often it warns for nothing.

A threshold is chosen on the trainings with an even seed and judged on those with an odd one. The steps before
something is wrong with a training count as healthy ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from benchmarks.lead_time_record import Recorded
from benchmarks.lead_time_signals import NOTHING, warned
from nantui.words import count

EARLY = 20
"""Steps before the first value that is not finite, from which on a warning is early enough."""
GRADUAL = 40
"""Steps from the first that is wrong to the break; what breaks faster is sudden, and listed apart."""
BUDGET = 1.0
"""The most warnings in 10,000 healthy steps."""
Scores = dict[str, Any]
Rule = dict[str, float]
"""Thresholds by signal; the first that is passed warns."""


@dataclass(frozen=True)
class Seen:
    """A recorded training with the scores of every signal."""

    one: Recorded
    scores: Scores

    @property
    def fp16(self) -> bool:
        """Whether it was trained under a loss scale."""
        return bool(np.isfinite(self.one.column("scale")).any())

    @property
    def lasted(self) -> int:
        """How many steps passed from the first that was wrong to the break; 0 where none came."""
        return len(self.one.rows) - 1 - self.one.since if self.one.broke and not self.one.healthy else 0

    @property
    def gradual(self) -> bool:
        return self.lasted >= GRADUAL

    @property
    def sudden(self) -> bool:
        return 0 < self.lasted < GRADUAL

    @property
    def healthy_steps(self) -> int:
        """How many steps nothing was wrong with."""
        return len(self.one.rows) if self.one.healthy else self.one.since

    def warnings(self, rule: Rule) -> Any:
        """Return the steps of the warnings of a rule; several signals in one episode are one."""
        above = [self.scores[name] - threshold for name, threshold in rule.items() if name in self.scores]
        return warned(np.max(above, axis=0), 0.0) if above else np.array([], int)

    def lead(self, rule: Rule) -> int:
        """Return how many steps before the break the first warning for a reason came, 0 for none."""
        steps = self.warnings(rule)
        steps = steps[(steps >= self.one.since) & (steps < len(self.one.rows) - 1)]
        return len(self.one.rows) - 1 - int(steps[0]) if len(steps) else 0

    def false(self, rule: Rule) -> int:
        """Return how many warnings came for nothing."""
        return int((self.warnings(rule) < self.healthy_steps).sum())


@dataclass(frozen=True)
class Sure:
    """What came of a rule's warnings: a lead for each training that broke after one, of how many."""

    leads: tuple[int, ...]
    warned: int
    false: int
    steps: int

    @property
    def said(self) -> str:
        """The words that the product says it in."""
        within = f", half within {median(self.leads):.0f} steps" if self.leads else ""
        return (
            f"{len(self.leads)} of {self.warned} broke{within}; "
            f"{count(self.false, 'warning')} in {self.steps:,} healthy steps"
        )


@dataclass(frozen=True)
class Worth:
    """What a rule did on some trainings: a lead for each gradual one, warnings for nothing, healthy steps."""

    leads: tuple[int, ...]
    false: int
    steps: int

    @property
    def early(self) -> int:
        """How many were warned of early enough."""
        return sum(lead >= EARLY for lead in self.leads)

    @property
    def share(self) -> float:
        return self.early / max(len(self.leads), 1)

    @property
    def rate(self) -> float:
        """Warnings in 10,000 healthy steps."""
        return self.false / max(self.steps, 1) * 10_000

    @property
    def typical(self) -> float:
        """The median lead of all gradual ones, 0 where most were not warned of."""
        return median(self.leads) if self.leads else 0.0


def ended_at(one: Seen, statistic: float) -> Seen:
    """Return a training that something is wrong with as it would be had it broken where BatchNorm's largest
    statistic passes a value; itself where it never does."""
    if one.one.healthy:
        return one
    above = np.flatnonzero(one.one.column("statistics") > statistic)
    if not len(above):
        return one
    steps = int(above[0]) + 1
    scores = {name: score[:steps] for name, score in one.scores.items()}
    return Seen(replace(one.one, rows=one.one.rows[:steps], broke=one.one.broke or "nan_loss"), scores)


def half(seen: Sequence[Seen], odd: bool) -> list[Seen]:
    """Return the trainings that thresholds are chosen on, or those that give the figures."""
    return [one for one in seen if one.one.seed % 2 == odd]


def worth(seen: Iterable[Seen], rule: Rule) -> Worth:
    """Return what a rule does on some trainings; those that lack all of its signals are left out."""
    seen = [one for one in seen if any((one.scores[name] > NOTHING).any() for name in rule)]
    leads = tuple(one.lead(rule) for one in seen if one.gradual)
    return Worth(leads, sum(one.false(rule) for one in seen), sum(one.healthy_steps for one in seen))


def sure(seen: Iterable[Seen], rule: Rule) -> Sure:
    """Return what came of a rule's warnings in trainings, healthy ones or not."""
    seen = list(seen)
    warned = [one for one in seen if any(step < len(one.one.rows) - 1 for step in one.warnings(rule))]
    leads = [lead for one in warned if one.lasted and (lead := one.lead(rule))]
    steps = sum(one.healthy_steps for one in seen)
    return Sure(tuple(leads), len(warned), sum(one.false(rule) for one in seen), steps)


def thresholds(seen: Iterable[Seen], name: str, count: int = 40) -> list[float]:
    """Return thresholds worth trying for a signal: where its highest scores lie."""
    peaks = [float(one.scores[name].max()) for one in seen if len(one.scores[name])]
    known = [peak for peak in peaks if np.isfinite(peak)]
    return (
        sorted({float(f"{value:.2g}") for value in np.quantile(known, np.linspace(0, 1, count))})
        if known
        else []
    )


def best(seen: Sequence[Seen], rules: Iterable[Rule], budget: float = BUDGET) -> tuple[Rule, Worth] | None:
    """Return the rule that warns early of most within the budget; the fewest for nothing where several do."""
    tried = [(rule, worth(seen, rule)) for rule in rules]
    fitting = [(rule, found) for rule, found in tried if found.rate <= budget]

    def merit(one: tuple[Rule, Worth]) -> tuple[float, ...]:
        return one[1].early, -one[1].rate, one[1].typical

    return max(fitting, key=merit, default=None)

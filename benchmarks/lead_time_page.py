"""The page about the lead of warnings: the curve of every signal, what was chosen, and what it misses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from statistics import median

import numpy as np

from benchmarks.lead_time_figures import (
    BUDGET,
    EARLY,
    GRADUAL,
    Rule,
    Seen,
    Worth,
    best,
    half,
    thresholds,
    worth,
)

TOGETHER = 3
"""Signals that stand together at most."""
MOST_BESIDE = 14
"""The best single signals, which are tried together."""
POINTS = 8
EXISTING: Rule = {"loss, jump": 6.0, "gradient norm, jump": 6.0}
"""`loss_climbing` and `gradient_climbing` as they were, at the default `loss_limit`."""
TITLES = (
    f"| signal | warned of {EARLY} steps before | median lead | warned of at all "
    "| warnings in healthy steps | per 10,000 |\n| --- | --: | --: | --: | --: | --: |"
)
Found = list[tuple[Rule, Worth]]


def page(seen: Sequence[Seen], chosen: Rule) -> Iterator[str]:
    """Yield the page's lines; `chosen` is what the product has."""
    choose, figures = half(seen, odd=False), half(seen, odd=True)
    singles = single_rules(choose)
    yield from _head(seen)
    yield "## What nantui warns of\n"
    yield from _table([chosen, EXISTING], figures)
    yield f"## Each signal alone, at no more than {BUDGET:g} warning in 10,000 healthy steps\n"
    yield from _table([rule for rule, _ in singles], figures)
    yield "## Signals together\n"
    yield from _table([rule for rule, _ in together(choose, singles)], figures)
    yield from _curves([*chosen, *(name for rule, _ in singles for name in rule)], figures)
    yield from _ways(figures, chosen)
    yield from _apart(seen)


def single_rules(seen: Sequence[Seen]) -> Found:
    """Return each signal's best rule within the budget on these trainings, the best first."""
    names = dict.fromkeys(name for one in seen for name in one.scores)
    found = (best(seen, [{name: value} for value in thresholds(seen, name)]) for name in names)
    return sorted(filter(None, found), key=lambda one: (-one[1].early, one[1].rate))


def together(seen: Sequence[Seen], singles: Found) -> Found:
    """Return the best rule of two signals, and of more, within the budget on these trainings."""
    rules = [rule for rule, _ in singles[:MOST_BESIDE]]
    found: Found = []
    for count in range(2, TOGETHER + 1):
        every = combinations(rules, count)
        one = best(seen, ({name: value for part in some for name, value in part.items()} for some in every))
        found += [one] if one else []
    return found


def shown(rule: Rule) -> str:
    """Return a rule in words."""
    return " or ".join(f"{name} > {threshold:g}" for name, threshold in rule.items())


def _head(seen: Sequence[Seen]) -> Iterator[str]:
    gradual, sudden = sum(one.gradual for one in seen), sum(one.sudden for one in seen)
    wrong = sum(not one.one.healthy for one in seen)
    steps = sum(one.healthy_steps for one in seen)
    yield "# How long before the break a warning comes\n"
    yield f"Made by `make lead-time` from {len(seen)} trainings, recorded step by step. {wrong} of them were"
    yield f"broken on purpose: {gradual} broke gradually (at least {GRADUAL} steps from the first that was"
    yield f"wrong to the first value that is not finite), {sudden} suddenly, the others not at all. {steps:,}"
    yield "steps were healthy: those of the healthy trainings, and those before something went wrong."
    yield "Thresholds were chosen on trainings with an even seed; every figure is of those with an odd one.\n"


def _table(rules: Sequence[Rule], figures: Sequence[Seen]) -> Iterator[str]:
    yield TITLES
    for rule in rules:
        found = worth(figures, rule)
        yield (
            f"| {shown(rule)} | {found.early} of {len(found.leads)} ({found.share:.0%}) "
            f"| {found.typical:.0f} | {sum(lead > 0 for lead in found.leads)} "
            f"| {found.false} in {found.steps:,} | {found.rate:.1f} |"
        )
    yield ""


def _curves(names: Sequence[str], figures: Sequence[Seen]) -> Iterator[str]:
    yield "## The curve\n"
    yield f"Share warned of {EARLY} steps before / warnings per 10,000 healthy steps, by threshold.\n"
    yield "| signal |" + " |" * POINTS + "\n| --- |" + " --: |" * POINTS
    for name in dict.fromkeys(names):
        places = np.quantile(thresholds(figures, name), np.linspace(0, 0.95, POINTS), method="nearest")
        found = [(place, worth(figures, {name: float(place)})) for place in places]
        cells = (f"{one.share:.0%} / {one.rate:.1f} (> {place:g})" for place, one in found)
        yield f"| {name} | " + " | ".join(cells) + " |"
    yield ""


def _ways(figures: Sequence[Seen], chosen: Rule) -> Iterator[str]:
    yield "## What broke, and how\n"
    yield "| what was wrong | trained | broke | gradually | from wrong to break | warned early | before |"
    yield "| --- | --: | --: | --: | --: | --: | --: |"
    for way in sorted({one.one.way for one in figures if not one.one.healthy}):
        of = [one for one in figures if one.one.way == way]
        lasted = [one.lasted for one in of if one.gradual]
        broke = sum(bool(one.one.broke) for one in of)
        middle = f"{median(lasted):.0f}" if lasted else ""
        now, then = worth(of, chosen).early, worth(of, EXISTING).early
        yield f"| {way} | {len(of)} | {broke} | {len(lasted)} | {middle} | {now} | {then} |"
    leads = [one.lead(chosen) for one in figures if one.sudden]
    yield f"\nOf {len(leads)} that broke suddenly {sum(lead > 0 for lead in leads)} were warned of at all,"
    yield f"the median lead was {median(leads) if leads else 0:.0f} steps.\n"


def _apart(seen: Sequence[Seen]) -> Iterator[str]:
    """What comes once an epoch has no lead in steps."""
    yield "## Once an epoch\n"
    yield "How far the averaged network's BatchNorm statistics are from the live ones, at the end of an epoch"
    yield "(the norm of the difference over the live ones' norm). It has no lead in steps.\n"
    yield "| | trainings | median of the highest mean | of the highest variance |\n| --- | --: | --: | --: |"
    healthy, broken = [one for one in seen if one.one.healthy], [one for one in seen if one.gradual]
    for name, some in (("healthy", healthy), ("broke gradually", broken)):
        gaps = [np.nanmax(one.one.gaps, axis=0) for one in some if len(one.one.gaps)]
        mean, variance = np.median(gaps, axis=0) if gaps else (0, 0)
        yield f"| {name} | {len(gaps)} | {mean:.3g} | {variance:.3g} |"

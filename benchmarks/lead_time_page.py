"""The page about the lead of warnings: what nantui has, the curve, what was tried, and what is missed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
    ended_at,
    half,
    sure,
    thresholds,
    worth,
)
from benchmarks.lead_time_signals import JUDGES, QUANTITIES
from nantui.run.spec import OURS_DEFAULTS
from nantui.worker.guard.anomaly import BEGINNING, GREW, GREW_FP16

ASKED, WANTED = 60, 0.5
"""How many gradual ones there are to be, and the share that is to be warned of early."""


def climbing(times: float) -> Rule:
    """Return the rule that warns where BatchNorm's largest statistic is so many times what it was."""
    return {"BatchNorm's peak, growth": math.log10(times)}


KINDS: Mapping[str, Rule] = {
    "statistics_climbing": climbing(GREW),
    "loss_climbing": {"loss, jump": OURS_DEFAULTS["loss_limit"] / 2},
}
"""What the product warns of, by the kind of the warning, in the words of this benchmark."""
ENDS = 1e7
"""BatchNorm's largest statistic where fp16 ends: its largest value is 65,504, that statistic a variance."""
CHOSEN: Rule = {name: threshold for rule in KINDS.values() for name, threshold in rule.items()}
FORMER: Rule = {"loss, jump": 6.0, "gradient norm, jump": 6.0}
"""What it warned of before this was measured."""
CURVES = 8
"""Signals whose curve is shown, at most two of a quantity."""
POINTS = 7
WHY: Mapping[str, str] = {
    "loss near a pole": "a loss like 1/x: 20 steps before the pole it is three to twelve times the usual",
    "loss grows": "neither what is printed of the losses nor BatchNorm shows it, and clipping keeps the "
    "weights well until the gradient overflows; only its norm tells",
}
"""Why a way to break is not warned of early, where somebody has looked."""
TITLES = (
    f"| warns of | {EARLY} steps before the break | median lead | at all | in healthy steps | per 10,000 |"
    "\n| --- | --: | --: | --: | --: | --: |"
)


def page(every: Sequence[Seen]) -> Iterator[str]:
    """Yield the page's lines."""
    seen, fp16 = [one for one in every if not one.fp16], [one for one in every if one.fp16]
    choose, figures = half(seen, odd=False), half(seen, odd=True)
    singles = single_rules(choose)
    yield from _head(seen)
    yield from _chosen(figures)
    yield from _under_fp16(seen, fp16)
    yield from _curves([*CHOSEN, *(name for rule, _ in singles for name in rule)], figures)
    yield from _tried(singles, figures)
    yield from _ways(figures)
    yield from _apart(seen)
    yield from _made_on(every)


def single_rules(seen: Sequence[Seen]) -> list[tuple[Rule, Worth]]:
    """Return each signal's best rule within the budget on these trainings, the best first."""
    names = dict.fromkeys(name for one in seen for name in one.scores)
    found = (best(seen, [{name: value} for value in thresholds(seen, name)]) for name in names)
    return sorted(filter(None, found), key=lambda one: (-one[1].early, one[1].rate))


def shown(rule: Rule) -> str:
    """Return a rule in words."""
    return " or ".join(f"{name} > {threshold:.3g}" for name, threshold in rule.items())


def reached(figures: Sequence[Seen]) -> bool:
    """Tell whether the product warns of enough, and seldom enough for nothing."""
    found = worth(figures, CHOSEN)
    return found.share >= WANTED and found.rate <= BUDGET


def _head(seen: Sequence[Seen]) -> Iterator[str]:
    gradual, sudden = sum(one.gradual for one in seen), sum(one.sudden for one in seen)
    wrong = sum(not one.one.healthy for one in seen)
    steps = sum(one.healthy_steps for one in seen)
    yield "# How long before the break a warning comes\n"
    yield f"Made by `make lead-time` from {len(seen)} trainings, recorded step by step. {wrong} of them were"
    yield f"broken on purpose: {gradual} broke gradually (at least {GRADUAL} steps from the first that was"
    yield f"wrong to the first value that is not finite), {sudden} suddenly, the others not at all. {steps:,}"
    yield "steps were healthy: those of the healthy trainings, and those before something went wrong."
    yield "Thresholds were chosen on trainings with an even seed; every figure is of those with an odd one."
    yield f"At least {ASKED} that break gradually were asked for{'' if gradual >= ASKED else ': missed'}.\n"


def _chosen(figures: Sequence[Seen]) -> Iterator[str]:
    [peak] = KINDS["statistics_climbing"]
    highest = max(max(one.scores[peak][: one.healthy_steps], default=0.0) for one in figures)
    here = worth(figures, {peak: CHOSEN[peak]})
    tens = [(power, worth(figures, {peak: float(power)})) for power in range(1, 20)]
    alike = [power for power, one in tens if (one.early, one.false) == (here.early, here.false)]
    yield "## What nantui warns of\n"
    former = {"the gradient's norm as well, without BatchNorm, as it was before": FORMER}
    yield from _table(
        {"both": CHOSEN, **{f"`{kind}`": rule for kind, rule in KINDS.items()}, **former}, figures
    )
    goal = f"at least {WANTED:.0%} of them, at no more than {BUDGET:g} warning in 10,000 healthy steps"
    yield f"Asked for: {goal}. {'Reached' if reached(figures) else 'Missed'}.\n"
    yield "- `statistics_climbing`: the largest magnitude among BatchNorm's running statistics, on any rank,"
    yield f"  is {GREW:,.0f} times what it was in the first {BEGINNING} batches (at least 1). It costs"
    yield f"  nothing: the guard has that number anyway. Healthy ones got up to {10**highest:,.0f} times."
    yield f"  Any threshold from 10^{min(alike)} to 10^{max(alike)} does as well; a low one is earlier, a"
    yield "  high one keeps away from what is healthy. Under fp16 it is [another one](#under-fp16)."
    yield f"- `loss_climbing`: a batch's loss is {CHOSEN['loss, jump']:g} spreads above the highest that was"
    yield "  usual, or three of five are two thirds of that"
    yield "  ([guard](guard.md#finite-numbers-that-look-bad))."
    yield "\nA warning changes nothing: it is said, and a [step point](step-points.md) is taken.\n"
    yield "## How sure a warning is\n"
    yield "Of all trainings with the warning; the others went on badly to the end of their 30 epochs, without"
    yield "a value that is not finite. This is what the warning itself says:\n"
    for kind, rule in KINDS.items():
        yield f"- `{kind}`: {sure(figures, rule).said}"
    yield ""


def _under_fp16(seen: Sequence[Seen], fp16: Sequence[Seen]) -> Iterator[str]:
    """fp16 ends at 65,504, long before fp32: what was trained in fp32 is taken as ended there, too."""
    yield "## Under fp16\n"
    broke = [one for one in fp16 if one.gradual]
    last = [float(np.nanmax(one.one.column("statistics"))) for one in broke]
    reach = f"{min(last):.1g} to {max(last):.1g}" if last else "not known"
    yield f"{len(fp16)} more trainings had a loss scale, on a GPU (even seeds and odd ones); {len(broke)} of"
    yield f"them broke gradually, where BatchNorm's largest statistic was {reach}. There a warning"
    yield f"at {GREW:,.0f} times comes with the break, so under fp16 it comes at {GREW_FP16:,.0f} times."
    yield f"Chosen on the even half of those in fp32, taken as ended where the statistic passes {ENDS:,.0f}:"
    yield f"the most that are warned of early, at no more than {BUDGET:g} warning in 10,000 healthy steps."
    yield f"Warned of {EARLY} steps before, median lead, and warnings for nothing in healthy steps:\n"
    as_if = [ended_at(one, ENDS) for one in seen]
    parts = {"fp32, even": half(as_if, odd=False), "fp32, odd": half(as_if, odd=True), "fp16": fp16}
    yield "| times what was usual | " + " | ".join(f"{name} | | " for name in parts)
    yield "| --: |" + " --: | --: | --: |" * len(parts)
    for times in sorted({1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6, GREW_FP16, GREW}):
        cells = []
        for part in parts.values():
            found = worth(part, climbing(times))
            cells += [f"{found.early} of {len(found.leads)}", f"{found.typical:.0f}"]
            cells += [f"{found.false} in {found.steps:,}"]
        yield f"| {times:,.0f} | {' | '.join(cells)} |"
    both = {name: worth(part, {**CHOSEN, **climbing(GREW_FP16)}) for name, part in parts.items()}
    yield "\nWith `loss_climbing` as well: warned of early, and warnings for nothing in 10,000 healthy steps,"
    yield f"of which at most {BUDGET:g} is asked for:\n"
    for name, one in both.items():
        yield f"- {name}: {one.early} of {len(one.leads)} ({one.share:.0%}), {one.rate:.2f}"
    yield ""
    yield "How sure the warning is under fp16, as it says itself:\n"
    yield f"- `statistics_climbing, fp16`: {sure(fp16, climbing(GREW_FP16)).said}\n"


def _table(rules: Mapping[str, Rule], figures: Sequence[Seen]) -> Iterator[str]:
    yield TITLES
    for name, rule in rules.items():
        found = worth(figures, rule)
        yield (
            f"| {name} | {found.early} of {len(found.leads)} ({found.share:.0%}) "
            f"| {found.typical:.0f} | {sum(lead > 0 for lead in found.leads)} "
            f"| {found.false} in {found.steps:,} | {found.rate:.1f} |"
        )
    yield ""


def _curves(names: Sequence[str], figures: Sequence[Seen]) -> Iterator[str]:
    of, chosen = Counter[str](), []
    for name in dict.fromkeys(names):
        quantity = name.rsplit(",", 1)[0].split(" each")[0]
        of[quantity] += 1
        chosen += [name] if of[quantity] <= 2 else []
    yield "## The curve\n"
    yield f"Share warned of {EARLY} steps before, and warnings per 10,000 healthy steps, by threshold: the"
    yield "product's two signals, then the best others, at most two of a quantity. A *jump* counts spreads"
    yield "above the highest that was usual, of one step or three of five; *stays* those of half of the"
    yield "newest values; *CUSUM* sums them up; *times* is the factor over the highest that was usual"
    yield f"(natural logarithm), *growth* that over the first {BEGINNING} batches, *itself* the value"
    yield "(decimal logarithms).\n"
    yield "| signal |" + " |" * POINTS + "\n| --- |" + " --: |" * POINTS
    for name in chosen[:CURVES]:
        places = np.quantile(thresholds(figures, name), np.linspace(0, 0.95, POINTS), method="nearest")
        found = [(place, worth(figures, {name: float(place)})) for place in places]
        cells = (f"> {place:.3g}: {one.share:.0%}, {one.rate:.1f}" for place, one in found)
        yield f"| {name} | " + " | ".join(cells) + " |"
    yield ""


def _tried(singles: Sequence[tuple[Rule, Worth]], figures: Sequence[Seen]) -> Iterator[str]:
    yield "## Tried and dropped\n"
    yield f"{', '.join(QUANTITIES)};"
    yield f"each judged as {', '.join(JUDGES)};"
    yield "activations also at every 10th and 50th step only; the slope of the loss scale. The best of"
    yield "each quantity, with its threshold from the even half, alone and beside what nantui has: warned"
    yield "of early, warnings in healthy steps. The loss against its first batches, in the last row with a"
    yield "threshold three times what healthy losses reach, adds too little for a rule more.\n"
    rules: dict[str, Rule] = {}
    for rule, _ in singles:
        if not rule.keys() & CHOSEN.keys():
            rules.setdefault(next(iter(rule)).rsplit(",", 1)[0], rule)
    rules["last"] = {"loss, growth": math.log10(50)}
    yield "| signal | alone | | beside nantui's two | |\n| --- | --: | --: | --: | --: |"
    for rule in rules.values():
        cells = (
            f"{found.early} of {len(found.leads)} | {found.false} in {found.steps:,}"
            for found in (worth(figures, rule), worth(figures, {**CHOSEN, **rule}))
        )
        yield f"| {shown(rule)} | {' | '.join(cells)} |"
    yield ""


def _ways(figures: Sequence[Seen]) -> Iterator[str]:
    yield "## What broke, and how\n"
    yield "| what was wrong | trained | broke | gradually | from wrong to break | warned early | before |"
    yield "| --- | --: | --: | --: | --: | --: | --: |"
    for way in sorted({one.one.way for one in figures if not one.one.healthy}):
        of = [one for one in figures if one.one.way == way]
        lasted = [one.lasted for one in of if one.gradual]
        broke = sum(bool(one.one.broke) for one in of)
        middle = f"{median(lasted):.0f}" if lasted else ""
        now, then = worth(of, CHOSEN).early, worth(of, FORMER).early
        yield f"| {way} | {len(of)} | {broke} | {len(lasted)} | {middle} | {now} | {then} |"
    leads = [one.lead(CHOSEN) for one in figures if one.sudden]
    yield f"\nOf {len(leads)} that broke suddenly {sum(lead > 0 for lead in leads)} were warned of at all,"
    yield f"the median lead was {median(leads) if leads else 0:.0f} steps.\n"
    yield "Not warned of early though they broke gradually:\n"
    missed = [one for one in figures if one.gradual and one.lead(CHOSEN) < EARLY]
    for way, many in sorted(Counter(one.one.way for one in missed).items()):
        yield f"- {way} ({many}): {WHY.get(way, 'not looked into')}."
    yield ""


def _apart(seen: Sequence[Seen]) -> Iterator[str]:
    """What comes once an epoch has no lead in steps."""
    yield "## Once an epoch\n"
    yield "How far the averaged network's BatchNorm statistics are from the live ones, at the end of an epoch"
    yield "(the norm of the difference over the live ones' norm). It has no lead in steps, and is no"
    yield "warning.\n"
    yield "| | trainings | median of the highest mean | of the highest variance |\n| --- | --: | --: | --: |"
    healthy, broken = [one for one in seen if one.one.healthy], [one for one in seen if one.gradual]
    for name, some in (("healthy", healthy), ("broke gradually", broken)):
        gaps = [np.nanmax(one.one.gaps, axis=0) for one in some if len(one.one.gaps)]
        mean, variance = np.median(gaps, axis=0) if gaps else (0, 0)
        yield f"| {name} | {len(gaps)} | {mean:.3g} | {variance:.3g} |"
    yield ""


def _made_on(seen: Sequence[Seen]) -> Iterator[str]:
    yield "## Made on\n"
    for where, many in Counter(one.one.where for one in seen).most_common():
        yield f"- {many} trainings: {where}"

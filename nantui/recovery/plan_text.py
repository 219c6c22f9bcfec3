"""A plan in words for a terminal without a cockpit: `nantui rollback` and `recover --dry-run` print it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from nantui.recovery.plan import Plan
from nantui.settings.presets import as_words
from nantui.settings.values import Change
from nantui.words import span


def plan_lines(plan: Plan) -> list[str]:
    """Return the plan as lines: what happens, what it costs, what moves, what changes and why."""
    lines = [plan.headline]
    if plan.trouble:
        seen = f"epoch {plan.trouble.epoch}" + (f", step {plan.trouble.step}" if plan.trouble.step else "")
        lines.append(
            f"because: {plan.trouble.text or plan.trouble.kind} ({seen}, seen in {plan.trouble.source})"
        )
    if plan.second is not None:
        lines.append(f"or --to {plan.second.name}: {plan.second_words}; yours to decide")
    elif plan.judgement is not None:
        lines.append(plan.judgement.in_words)
    lines += [f"costs: {cost}" for cost in costs(plan)]
    lines += [f"moves: {move.source} to {move.target} ({move.why})" for move in plan.moves]
    lines += [f"  {line}" for line in settings_table(plan.settings)]
    lines += afterwards(plan)
    lines += [f"note: {finding.name}: {finding.text}" for finding in plan.findings]
    lines += [f"warning: {warning}" for warning in plan.warnings]
    return lines


def afterwards(plan: Plan) -> list[str]:
    """Return what follows at the end of the run: by itself when it is unattended, else as an offer."""
    if plan.afterwards is None:
        return []
    words = " ".join(as_words(plan.afterwards))
    if plan.appended:
        return [f"afterwards: {plan.afterwards.title} ({words}), as a further phase of this run"]
    return [f"once it has finished: nantui resume {plan.run} --phase {words}  ({plan.afterwards.title})"]


def costs(plan: Plan) -> list[str]:
    """Return what the plan costs, where it is known."""
    found = []
    if again := plan.costs.again:
        time = f", {span(plan.costs.hours_lost)}" if math.isfinite(plan.costs.hours_lost) else ""
        found.append(f"{again}{time}")
    if math.isfinite(plan.costs.hours_remaining):
        slower = (
            f", each about {plan.costs.factor:.2g} times as long as before" if plan.costs.factor != 1 else ""
        )
        found.append(f"{span(plan.costs.hours_remaining)} of training left{slower}")
    return found


def settings_table(changes: Sequence[Change]) -> list[str]:
    """Return the guide's table: parameter, now, then, why."""
    head = ("parameter", "now", "then", "why")
    return table([head, *(change.cells() for change in changes)]) if changes else []


def table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return rows as aligned lines; the last column is as long as it likes."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]

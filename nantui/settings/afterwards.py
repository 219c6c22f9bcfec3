"""What a remedy asks for once the run has finished: a further phase that takes back what it gave up.

Smaller images get a training past its trouble; a short training at the old size and a low rate then gives
back what they cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nantui.errors import UserError
from nantui.run.phases import Phase
from nantui.settings.bounds import Bound
from nantui.settings.diff import Change, changed
from nantui.settings.values import is_number, show_value

KEYS = frozenset({"title", "before", "epochs", "settings"})


@dataclass(frozen=True)
class Afterwards:
    """`before` names settings that go back to what they were; `share` is the part of the run's epochs."""

    title: str
    before: tuple[str, ...]
    share: float
    bounds: tuple[Bound, ...]


def read_afterwards(entry: Any, bounds: tuple[Bound, ...]) -> Afterwards | None:
    """Return a preset's `then:`, whose settings are `bounds`. Raises UserError when it is wrong."""
    if entry is None:
        return None
    share = entry.get("epochs") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or set(entry) - KEYS or not is_number(share) or not 0 < share <= 1:
        raise UserError("then: needs `before: [imgsz]` and `epochs: 0.25`, a share of the run's epochs")
    before = tuple(str(name) for name in entry.get("before") or ())
    return Afterwards(str(entry.get("title") or ""), before, float(share), bounds)


def phase_after(
    wanted: Iterable[Afterwards | None], in_effect: Mapping[str, Any], rows: Iterable[Change]
) -> Phase | None:
    """Return the phase that follows a run whose settings `in_effect` are changed by `rows`; None when the
    remedies give up nothing that it would take back.
    """
    changes = changed(rows)
    for one in wanted:
        again = {name: in_effect[name] for name in one.before if name in changes} if one else {}
        if one is None or not again:
            continue
        then = {**in_effect, **changes}
        lower = [row for bound in one.bounds if (row := bound.against(then.get(bound.name)))]
        epochs = max(round(one.share * int(then.get("epochs") or 1)), 1)
        return Phase(one.title, {**again, "epochs": epochs, **changed(lower)})
    return None


def as_words(phase: Phase) -> list[str]:
    """Return a phase's settings as `nantui resume RUN --phase …` takes them."""
    return [f"{name}={show_value(value)}" for name, value in phase.settings.items()]

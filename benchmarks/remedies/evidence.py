"""The same trainings by what is known when they break: what was diagnosed, and the evidence at hand.

What the product proposes can go by nothing else: it does not know which cause was put in.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.healthy.records import Record
from benchmarks.remedies.causes import BASES, CAUSES, Cause
from benchmarks.remedies.measured import STEPS, Cell, seeds_of, summed, trial
from benchmarks.remedies.training import BREAK
from nantui.diagnosis.evidence import of_settings
from nantui.diagnosis.facts import TroubleFacts
from nantui.recovery.ladder import Proof
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord

ENOUGH, NEARLY_ALL = 3, 0.9
"""Trainings with the very same evidence from which on they stand apart from the others of their diagnosis,
and which share of those of the same causes has to have it."""
KEEPS = 0.85
"""What nan-safe, which changes most, keeps of the mAP at worst: a smaller remedy has to keep it, too, to come
before one that keeps more."""
OF_SETTINGS = frozenset(("loss_gain",))
"""Evidence from settings that tells causes apart which one diagnosis has in common."""
NOBODY = RunRecord(RunLayout("/nowhere"))


@dataclass(frozen=True)
class Broken:
    """One training that broke."""

    seed: int
    cause: Cause
    diagnosed: str
    evidence: frozenset[str]


@dataclass(frozen=True)
class Group:
    """Trainings that look alike: their diagnosis ("": any), their common evidence (empty: any), which causes
    were put in, and the remedies, best first.
    """

    diagnosed: str
    evidence: frozenset[str]
    causes: tuple[str, ...]
    remedies: dict[str, Cell]

    @property
    def best(self) -> tuple[str, Cell]:
        """The remedy to begin with."""
        return next(iter(self.remedies.items()))


def broken(found: Mapping[str, Record]) -> list[Broken]:
    """Return every training that broke, with what the product knew of it then."""
    trainings = []
    for seed in seeds_of(found):
        for cause in CAUSES:
            record = found.get(f"{seed}/{cause.name}/{BREAK}")
            if record is not None and record["signs"]:
                said = record["said"][0][0] if record["said"] else ""
                trainings.append(Broken(seed, cause, said, _evidence(cause, record)))
    return trainings


def _evidence(cause: Cause, record: Record) -> frozenset[str]:
    kind, _, _, action = record["signs"][0]
    seen = {*record["autopsies"], *([kind] if action == "warned" else ())}
    settings = {**BASES[cause.base][1], **cause.settings}
    seen |= {one.name for one in of_settings(TroubleFacts(NOBODY, settings=settings))} & OF_SETTINGS
    return Proof(frozenset(seen), tuple(record["images"])).evidence


def groups(found: Mapping[str, Record]) -> list[Group]:
    """Return the trainings by diagnosis, each whole and apart by evidence, and by evidence alone where all
    with it were diagnosed alike. Evidence that not nearly all trainings of a cause have tells nothing of it.
    """
    trainings = broken(found)
    diagnosed = dict.fromkeys(one.diagnosed for one in trainings if one.diagnosed)
    sets = dict.fromkeys(one.evidence for one in trainings if one.evidence)
    made = [_group(found, trainings, name, frozenset()) for name in diagnosed]
    for seen in sets:
        alike = {one.diagnosed for one in trainings if one.evidence >= seen} - {""}
        names = [*diagnosed, *([""] if len(alike) < 2 else ())]
        made += [_group(found, trainings, name, seen) for name in names]
    return [one for one in made if one.remedies]


def _group(found: Mapping[str, Record], trainings: list[Broken], name: str, seen: frozenset[str]) -> Group:
    named = [one for one in trainings if name in ("", one.diagnosed)]
    its = [one for one in named if not seen or one.evidence == seen]
    causes = dict.fromkeys(one.cause.name for one in its)
    of_its_causes = sum(one.cause.name in causes for one in named)
    tells = len(its) >= max(NEARLY_ALL * of_its_causes, ENOUGH)
    cells = dict[str, Cell]()
    for remedy in STEPS if tells or not seen else ():
        tried = [trial(found, one.seed, one.cause, remedy) for one in its]
        if known := [one for one in tried if one is not None]:
            cells[remedy] = summed(known)
    ranked = dict(sorted(cells.items(), key=lambda item: rank(item[1])))
    return Group(name, seen, tuple(causes), ranked)


def rank(cell: Cell) -> tuple[bool, bool, float]:
    """Return what the best remedy has least of; of equals the one that changes less stays first."""
    left = cell.trials - cell.cured
    return left > 0 or cell.kept < KEEPS, left > 0, left / cell.trials


def table(found: Mapping[str, Record]) -> str:
    """Return configs/remedies.csv."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("cause", "evidence", "remedy", "step", "trials", "cured", "kept"))
    for group in groups(found):
        for remedy, cell in group.remedies.items():
            about = (group.diagnosed, " ".join(sorted(group.evidence)), remedy, STEPS[remedy])
            rows.writerow((*about, cell.trials, cell.cured, f"{cell.kept:.3f}"))
    return text.getvalue()

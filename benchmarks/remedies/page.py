"""docs/remedies.md, made from the records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.healthy.records import Record
from benchmarks.remedies.causes import CAUSES, CLEAN, EPOCHS, GPU, SINCE
from benchmarks.remedies.measured import ALIVE, ORDER, Cell, cells, final
from benchmarks.remedies.training import BREAK, CONTROL


def page(found: Mapping[str, Record]) -> str:
    """Return the page."""
    return "\n".join([*_head(found), *_table(found), *_broken(found)]) + "\n"


def _head(found: Mapping[str, Record]) -> Iterator[str]:
    controls = [final(one) for one in found.values() if one["remedy"] == CONTROL]
    where = sorted({" · ".join(map(str, one["where"].values())) for one in found.values()})
    yield "# Which remedy cures which cause\n"
    yield f"Made by `make remedies`: {len(found)} trainings of {EPOCHS} epochs. All of a seed begin alike;"
    yield f"from epoch {CLEAN + 1} or {SINCE} on one is broken, and then recovered in every way that applies."
    if controls:
        yield f"Without a fault they reach mAP50 {min(controls):.2f} to {max(controls):.2f}."
    yield "\n`4/5 98 % ×1.1`: four of five seeds were cured, with 98 % of the mAP50 of the same training"
    yield "without the fault, in 1.1 times its time from the break to the end (medians of the cured ones, or"
    yield "of all where none was). *Cured*: no further incident to the end, and at least"
    yield f"{ALIVE:.0%} of that mAP50.\n"
    yield from (f"Commit, torch, Ultralytics, Python, device: {one}" for one in where)


def _table(found: Mapping[str, Record]) -> Iterator[str]:
    table = cells(found)
    columns = [cause for cause in CAUSES if any(key[0] == cause.name for key in table)]
    yield "\n| remedy | " + " | ".join(cause.name for cause in columns) + " |"
    yield "| --- |" + " --- |" * len(columns)
    for remedy in ORDER:
        yield f"| {remedy} | " + " | ".join(_cell(table.get((one.name, remedy))) for one in columns) + " |"


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    said = f"{cell.cured}/{cell.trials} {cell.kept:.0%} ×{cell.time:.1f}"
    return f"**{said}**" if cell.cured == cell.trials else said


def _broken(found: Mapping[str, Record]) -> Iterator[str]:
    yield "\n| cause | what was wrong | where | broke | first sign | proven by the autopsy | diagnosed |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for cause in CAUSES:
        breaks = [one for one in found.values() if (one["cause"], one["remedy"]) == (cause.name, BREAK)]
        if not breaks:
            continue
        signs = sorted({one["signs"][0][0] for one in breaks if one["signs"]})
        proofs = sorted({proof for one in breaks for proof in one["proof"]})
        said = sorted({one["said"][0][0] for one in breaks if one["said"]})
        broke = f"{sum(bool(one['signs']) for one in breaks)}/{len(breaks)}"
        place = "GPU" if cause.part == GPU else "CPU"
        cells_of = (cause.name, cause.words, place, broke, *(", ".join(one) for one in (signs, proofs, said)))
        yield "| " + " | ".join(cells_of) + " |"

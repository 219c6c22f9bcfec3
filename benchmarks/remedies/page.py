"""docs/remedies.md, made from the records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from textwrap import dedent, fill

from benchmarks.healthy.records import Record
from benchmarks.remedies.causes import CAUSES, CLEAN, EPOCHS, GPU, SINCE
from benchmarks.remedies.data import IMAGES
from benchmarks.remedies.data import STEPS as BATCHES
from benchmarks.remedies.evidence import ENOUGH, KEEPS, Group, groups
from benchmarks.remedies.measured import ALIVE, STEPS, Cell, cells, final
from benchmarks.remedies.training import BREAK, CONTROL, SKIP

WIDTH = 120
SEEN = {
    "zero_loss": "losses of zero", "saved_beyond_half": "weights beyond fp16 in a checkpoint",
    "unsound_save": "a checkpoint that fp16 cannot hold", "loss_gain": "a large loss gain",
    "broken_pixels": "a broken image", "broken_labels": "broken labels", "one_image": "one image named",
    "more_images": "several images named", "spoilt_statistics": "only BatchNorm's statistics",
    "corrupt_weights": "weights not finite", "not_reproduced": "not again when repeated",
    "exploding_gradient": "a gradient that is not finite", "fp16_overflow": "finite in fp32",
}  # fmt: skip
NOT_HERE = ("contaminated_checkpoint",)
"""Diagnoses of which there is no training in the table."""


def page(found: Mapping[str, Record]) -> str:
    """Return the page."""
    parts = (_head(), _short(found), _means(), _matrix(found), _broken(found), _limits(found))
    return "\n".join(line for part in parts for line in part) + "\n"


def _prose(text: str) -> str:
    return fill(dedent(text), WIDTH)


def _head() -> Iterator[str]:
    yield "# Which remedy cures which cause\n"
    yield _prose(f"""\
        Trainings were broken in {len(CAUSES)} ways, recovered in every way that applies, and trained on:
        what to do first after which diagnosis, and what it costs. `R`, `nantui diagnose` and `--auto` go
        by this table (`configs/remedies.csv`). The presets are as they were.""")
    yield ""


def _short(found: Mapping[str, Record]) -> Iterator[str]:
    yield "| diagnosed as | seen with it | first remedy | cured | keeps of the mAP | time |"
    yield "| --- | --- | --- | --- | --- | --- |"
    made = groups(found)
    named = {one.evidence for one in made if one.diagnosed}
    whole = {(one.diagnosed, one.causes) for one in made if not one.evidence}
    made = [one for one in made if not one.evidence or (one.diagnosed, one.causes) not in whole]
    for group in sorted(made, key=lambda one: (not one.diagnosed, one.diagnosed, len(one.evidence))):
        if group.diagnosed or group.evidence not in named:
            yield _first(group)
    yield from (f"| `{name}` | | not measured | | | |" for name in NOT_HERE)


def _first(group: Group) -> str:
    remedy, cell = group.best
    seen = ", ".join(SEEN.get(one, one) for one in sorted(group.evidence))
    about = f"| {f'`{group.diagnosed}`' if group.diagnosed else 'nothing'} | {seen} |"
    if not cell.cured:
        kept = group.remedies[SKIP].kept
        return f"{about} nothing cures it; {SKIP} | 0 of {cell.trials} | {kept:.0%} | |"
    return f"{about} {remedy} | {cell.cured} of {cell.trials} | {cell.kept:.0%} |{_time(cell)} |"


def _means() -> Iterator[str]:
    yield ""
    yield _prose(f"""\
        *Cured*: no further incident to the end, and at least {ALIVE:.0%} of the mAP50 of the same
        training without the fault. *Keeps* is that share, *time* that of its time from the break to the
        end (medians). The first remedy is the one that changes least of those that cured every training
        and kept {KEEPS:.0%}, which *nan-safe* keeps at worst; where none did, the one that cured most.
        `R` proposes it and says these figures; what would change nothing in a run, was tried there, or
        cured less than half is passed over. Evidence sets trainings apart where {ENOUGH} or more had the
        very same, and at least nine in ten of the same causes and diagnosis; `--auto` goes by evidence alone,
        where it speaks for one diagnosis only. What is not in
        the table is answered with *nan-safe* first, and said to be not measured.""")


def _matrix(found: Mapping[str, Record]) -> Iterator[str]:
    table = cells(found)
    columns = [cause for cause in CAUSES if any(key[0] == cause.name for key in table)]
    yield "\n## Every remedy against every cause"
    yield _prose("""\
        `4/5 98% ×1.1`: four of five seeds were cured, with 98 % of the mAP50 in 1.1 times the time; where
        none was, medians of all. Bold: every seed. Skipping never counts as cured while incidents go on.""")
    yield "\n| remedy | " + " | ".join(cause.name for cause in columns) + " |"
    yield "| --- |" + " --- |" * len(columns)
    for remedy in STEPS:
        yield f"| {remedy} | " + " | ".join(_cell(table.get((one.name, remedy))) for one in columns) + " |"


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    said = f"{cell.cured}/{cell.trials} {cell.kept:.0%}{_time(cell)}"
    return f"**{said}**" if cell.cured == cell.trials else said


def _time(cell: Cell) -> str:
    return f" ×{cell.time:.1f}" if isfinite(cell.time) else ""


def _broken(found: Mapping[str, Record]) -> Iterator[str]:
    yield "\n## What was broken"
    yield "| cause | what was wrong | where | broke | first sign | proven by the autopsy | diagnosed |"
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


def _limits(found: Mapping[str, Record]) -> Iterator[str]:
    controls = [final(one) for one in found.values() if one["remedy"] == CONTROL]
    where = sorted({" · ".join(map(str, one["where"].values())) for one in found.values()})
    low, high = min(controls, default=0), max(controls, default=0)
    yield "\n## Limits"
    yield _prose(f"""\
        Tiny networks: six layers, {IMAGES} images of shapes, {EPOCHS} epochs of {BATCHES} steps, one
        thing wrong at a time, a step point every 0.3 s. All of a seed begin alike; from epoch {CLEAN + 1}
        or {SINCE} on one is broken. Without a fault they reach mAP50 {low:.2f} to {high:.2f}. A real run
        can have two faults, and what costs much in {EPOCHS} epochs may cost little in 300: take the
        order, not the last per cent. Explosions were all made with clipping off. Where only finite
        numbers were wrong, a person is taken to have gone back to before the first warning, as `R`
        proposes.""")
    yield f"\nMade by `make remedies` from {len(found)} trainings."
    yield from (f"- Commit, torch, Ultralytics, Python, device: {one}" for one in where)

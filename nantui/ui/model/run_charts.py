"""From a snapshot to the charts of a run: which there are, their curves, and what is marked on them.

They are made where the files are read and not where keys are answered. A part whose data has not changed is
the very same object as before, so that nothing is drawn for it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from nantui.run.events import Event, Incident, RewindDone, RollbackBegun, of_kind
from nantui.run.plan import standings
from nantui.run.results import EpochRow, current
from nantui.ui.charts.series import Column, Curve, Mark, Picture, apart
from nantui.ui.model.snapshot import RunSnapshot
from nantui.ui.model.step_store import place_of

METRICS = (("mAP50-95", "train"), ("mAP50", "val"), ("accuracy_top1", "train"), ("accuracy_top5", "val"))
QUALITY = (("precision", "train"), ("recall", "val"))
SPLITS = ("train", "val")
PER_STEP = (("step_s", "step time", "s"), ("images_s", "speed", "images/s"), ("mem_gb", "memory", "GiB"))
Charts = tuple[Picture, ...]
TIME_UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0))


def bare(loss: str) -> str:
    """Return the short name of a loss: `box_loss` is `box`; a lone `loss` keeps its name."""
    return loss.removesuffix("_loss") or loss


def loss_names(snapshot: RunSnapshot) -> list[str]:
    """Return the losses of the run's task, in Ultralytics' order."""
    newest = [name for row in snapshot.rows[-1:] for split in SPLITS for name in row.losses(split)]
    return list(dict.fromkeys([*newest, *snapshot.steps.losses])) or ["loss"]


def epoch_charts(snapshot: RunSnapshot) -> list[Picture]:
    """Return the charts over epochs: each loss train against val, then metrics and rate."""
    rows, marks = current(snapshot.rows), epoch_marks(snapshot)
    rolled_back: dict[int, list[EpochRow]] = {}
    for row in snapshot.rows:
        if row.superseded:
            rolled_back.setdefault(row.segment, []).append(row)
    columns = list(rows[-1].values) if rows else []
    first_head = {column.partition("(")[0]: column for column in reversed(columns)}  # B, M or P

    def picture(title: str, curves: Iterable[Curve], empty: str = "no epoch finished yet") -> Picture:
        return Picture(title, tuple(curve for curve in curves if curve.xs), marks, floor=0.0, empty=empty)

    def loss(name: str) -> Picture:
        old = (
            _curve(f"rolled back {split}", segment, f"{split}/{name}", "old", split == "val")
            for segment in rolled_back.values()
            for split in SPLITS
        )
        now = (_curve(split, rows, f"{split}/{name}", split, split == "val") for split in SPLITS)
        return picture(bare(name), [*old, *now])

    def metrics(title: str, wanted: Iterable[tuple[str, str]]) -> Picture:
        curves = (
            _curve(name.removeprefix("accuracy_"), rows, first_head[f"metrics/{name}"], ink, ink == "val")
            for name, ink in wanted
            if f"metrics/{name}" in first_head
        )
        return picture(title, curves, "no validation yet")

    rates = [_curve("lr", rows, column, "extra") for column in columns if column.startswith("lr/")]
    quality = metrics("precision, recall", QUALITY)
    shown = [metrics("metrics", METRICS), picture("learning rate", rates[:1])]
    return [*map(loss, loss_names(snapshot)), *shown, *([quality] if quality.curves else [])]


def step_charts(snapshot: RunSnapshot) -> list[Picture]:
    """Return the charts of the losses over single steps."""
    names = snapshot.steps.losses or loss_names(snapshot)
    return [_over_steps(snapshot, bare(name), name, "train", "train", empty="no step yet") for name in names]


def step_extras(snapshot: RunSnapshot) -> list[Picture]:
    """Return gradient norm and, where it is used, loss scale, per step."""
    empty = "no step yet" if snapshot.log_path else "only with nantui's guard"
    extras = [_over_steps(snapshot, "gradient norm", "grad_norm", "norm", empty=empty)]
    for column, title, unit in PER_STEP:
        whose = "GPU " if column == "mem_gb" and "alloc_peak_gb" in snapshot.steps.last else ""
        picture = _over_steps(snapshot, whose + title, column, unit=unit)
        extras += [picture] if any(value > 0 for value in picture.curves[0].ys) else []
    scale = _over_steps(snapshot, "loss scale", "loss_scale", "scale")
    changes = len({value for value in scale.curves[0].ys if value == value}) > 1
    return [*extras, *([scale] if changes else [])]


def _over_steps(
    snapshot: RunSnapshot, title: str, column: str, name: str = "", ink: str = "extra", unit: str = "",
    empty: str = "nothing yet",
) -> Picture:  # fmt: skip
    steps, marks = snapshot.steps, step_marks(snapshot)
    curve = Curve(name, *steps.columns.get(column, ((), ())), ink)
    return Picture(title, (curve,), marks, unit, "step", floor=0.0, empty=empty, note=steps.note)


def newest(snapshot: RunSnapshot, over_steps: bool, last: int) -> list[Picture]:
    """Return the charts of the last `last` epochs or steps; of the newest steps none is left out."""
    if over_steps:
        snapshot = replace(snapshot, steps=replace(snapshot.steps, columns=snapshot.steps.recent, note=""))
        return [from_newest(picture, last) for picture in (*step_charts(snapshot), *step_extras(snapshot))]
    steps = int(snapshot.steps.last.get("steps", 1))
    return [
        from_newest(picture, last * steps if picture.x_name == "step" else last)
        for picture in snapshot.epoch_charts
    ]


def over_time(pictures: Iterable[Picture], runs: Sequence[Sequence[EpochRow]]) -> list[Picture]:
    """Return pictures over epochs as ones over the time of training: the curves of the n-th of `runs` are
    those of `Curve.run` n. What is no curve over epochs in force is left out.
    """
    clocks = [_clock(rows) for rows in runs]
    longest = max((max(clock.values(), default=0.0) for clock in clocks), default=0.0)
    unit, length = next(((unit, s) for unit, s in TIME_UNITS if longest >= 4 * s), TIME_UNITS[-1])

    def by_clock(curve: Curve) -> Curve:
        return replace(curve, xs=tuple(clocks[curve.run].get(x, 0.0) / length for x in curve.xs))

    over_epochs = [picture for picture in pictures if picture.x_name == "epoch"]
    return [
        replace(one, x_name=unit, marks=(), curves=tuple(by_clock(c) for c in one.curves if c.ink != "old"))
        for one in over_epochs
    ]


def _clock(rows: Iterable[EpochRow]) -> dict[float, float]:
    """Return the seconds of training at the end of each epoch; results.csv counts anew after each resume."""
    total = before = 0.0
    clock = {}
    for row in rows:
        total += row.seconds - before if row.seconds >= before else row.seconds
        before = row.seconds
        clock[float(row.epoch)] = total
    return clock


def from_newest(picture: Picture, last: int) -> Picture:
    ends = [curve.xs[-1] for curve in picture.curves if curve.xs]
    first = max(ends, default=0.0) - last
    curves = []
    for curve in picture.curves:
        start = bisect_right(curve.xs, first)
        curves.append(replace(curve, xs=curve.xs[start:], ys=curve.ys[start:]))
    return replace(picture, curves=tuple(curves))


def _curve(name: str, rows: Iterable[EpochRow], column: str, ink: str, dashed: bool = False) -> Curve:
    return Curve(name, *over_epochs(rows, column), ink, dashed)


def over_epochs(rows: Iterable[EpochRow], column: str) -> Column:
    """Return a column of results.csv over the epochs that have it."""
    return apart((float(row.epoch), row.values[column]) for row in rows if column in row.values)


def epoch_marks(snapshot: RunSnapshot) -> tuple[Mark, ...]:
    """Return incidents, rollbacks and where phases begin on the epoch axis."""
    begins, titles = snapshot.phases.begins, snapshot.phases.titles
    marks = {Mark(begins[phase] + 0.5, "phase", titles[phase]) for phase in begins if begins[phase]}
    for event, (phase, _) in zip(snapshot.journal, standings(snapshot.journal), strict=True):
        if isinstance(event, (Incident, RollbackBegun, RewindDone)) and event.epoch is not None:
            marks.add(Mark(float(event.epoch + begins.get(phase, 0)), _kind_of(event)))
    return tuple(sorted(marks, key=lambda mark: (mark.x, mark.kind)))


def _kind_of(event: Event) -> str:
    if not isinstance(event, Incident):
        return "rollback"
    return "skip" if event.harmless else "incident"


def step_marks(snapshot: RunSnapshot) -> tuple[Mark, ...]:
    """Return skipped steps, incidents, rewinds and where attempts and phases begin on the step axis."""
    steps, titles = snapshot.steps, snapshot.phases.titles
    skips = [Mark(x, "skip") for x in steps.skipped]
    phases = {one.phase: one.x for one in steps.stretches if one.epoch == 1 and one.phase in titles and one.x}
    changes = [Mark(x, "phase", titles[phase]) for phase, x in phases.items()]
    begins = [
        Mark(after.x, "attempt")
        for before, after in pairwise(steps.stretches)
        if after.attempt != before.attempt and after.x not in phases.values()
    ]
    incidents = [one for one in of_kind(snapshot.journal, Incident) if not one.harmless]
    told: list[Incident | RewindDone] = [*incidents, *of_kind(snapshot.journal, RewindDone)]
    graver = [
        Mark(x, _kind_of(one))
        for one in told
        if one.epoch is not None and one.step is not None
        if (x := place_of(steps.stretches, one.attempt, one.epoch, one.step)) is not None
    ]
    return tuple([*changes, *begins, *skips, *graver])


def thinned(pictures: list[Picture]) -> Charts:
    """Have long curves thinned here, where it holds up no key."""
    for picture in pictures:
        for curve in picture.curves:
            _ = curve.coarse
    return tuple(pictures)

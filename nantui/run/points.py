"""Step points: where a training can go on in the middle of an epoch, as their headers tell.

A point is a checkpoint as Ultralytics writes it, with what else a training is under `PART`: it is judged,
rebased and copied like any other, and whatever file of the run holds such a part goes on at the batch. Two
files are written in turn, each beside its old self and renamed; the header, a small JSON beside it, comes
last and names the file by size and digest, so that a header without its file, or a file without its header,
is no point.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath

from nantui.errors import NO, UserError
from nantui.run.atomic_files import open_regular, read_json, write_json
from nantui.run.documents import Large, known_fields
from nantui.run.layout import RunLayout

NAMES = ("a", "b")
LABEL = re.compile(r"epoch(\d+)-step(\d+)")
PART = "nantui_point"
"""The key in the checkpoint under which everything is that a training has and Ultralytics does not save."""


@dataclass(frozen=True)
class StepPoint:
    """One point. `epoch` and `batch` count from 1: the batch is the last one that it has learned from.

    `step` counts the optimizer's steps of the run, `batches` those of the epoch. `training` is what must be
    the same for a training to go on from here: `world_size`, `model` (a digest), `data` (the path), `images`
    (their digest), `classes`, `batch` (its size), `batches`.
    """

    name: str
    attempt: int
    epoch: int
    batch: int
    batches: int
    step: Large
    t: float
    size: Large
    digest: str
    training: Mapping[str, object] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The file inside the run, as an attempt names the checkpoint that it goes on from."""
        return f"nantui/points/{self.name}.pt"

    @property
    def label(self) -> str:
        """How a command names it: its files take turns, and their names tell nothing."""
        return f"epoch{self.epoch}-step{self.batch}"

    @property
    def epochs_done(self) -> float:
        """How far it is: 2.25 after a quarter of the third epoch."""
        return self.epoch - 1 + self.batch / max(self.batches, 1)


def in_words(restore_point: str, epoch: int | None) -> str:
    """Return a restore point as plans and journals name it in words: a step point's place says it all."""
    found = LABEL.fullmatch(PurePosixPath(restore_point).name)
    if found is None:
        return restore_point if epoch is None else f"{restore_point} (epoch {epoch})"
    return f"epoch {found[1]} step {int(found[2]):,}"


def step_points(layout: RunLayout) -> tuple[StepPoint, ...]:
    """Return the points on disk whose file is there in the size it had, the newest first."""
    found = (read_point(layout, name) for name in NAMES)
    return tuple(sorted((point for point in found if point is not None), key=lambda p: p.t, reverse=True))


def read_point(layout: RunLayout, name: str) -> StepPoint | None:
    """Return the point `name` (a or b), None where header or file is missing, or they do not belong together.

    The digest is not looked at, which takes reading the file: see `is_whole`.
    """
    header = read_json(layout.point_header(name)) or {}
    point = known_fields(StepPoint, {**header, "name": name})
    if point is None or min(point.epoch, point.batch) < 1 or not isinstance(header.get("training"), dict):
        return None
    try:
        return point if layout.point(name).stat().st_size == point.size else None
    except OSError:
        return None


def refuse_gone(layout: RunLayout, to: str) -> None:
    """Raise UserError where `to` names a step point that is not there any more: two files take turns."""
    if LABEL.fullmatch(to) and to not in {point.label for point in step_points(layout)}:
        raise UserError(f"{to}: a newer step point has taken its place; choose again; nothing was done", NO)


def is_whole(layout: RunLayout, point: StepPoint) -> bool:
    """Tell whether the file still is what its header was written for; reads all of it."""
    file = open_regular(layout.point(point.name))
    if file is None:
        return False
    digest = hashlib.sha256()
    try:
        with file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError:
        return False
    return digest.hexdigest() == point.digest


def write_header(layout: RunLayout, point: StepPoint) -> None:
    """Write the header of a point whose file is on the disk. Raises OSError."""
    write_json(layout.point_header(point.name), {"format": 1, **asdict(point)})


def differences(there: Mapping[str, object], here: Mapping[str, object]) -> list[str]:
    """Return in words what keeps a training like `here` from going on from a point of one like `there`."""
    return [
        f"{_WORDS.get(name, name)}: {there[name]} there, {here[name]} here"
        for name in here
        if name in there and there[name] != here[name]
    ]


_WORDS = {
    "world_size": "processes", "model": "layers of the model (digest)", "data": "data set",
    "images": "images of the data set (digest)", "batch": "batch size", "batches": "batches an epoch",
}  # fmt: skip

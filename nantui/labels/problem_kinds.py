"""Every kind of label problem: how bad it is, what Ultralytics does with it, and what it can lead to.

The kinds themselves are in configs/tables/label_problems.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from nantui.run.documents import table

ERROR, WARNING, NOTE = "error", "warning", "note"


class Found(NamedTuple):
    """One finding: the index of the file, the line (from 1), the kind and the words."""

    file: int
    line: int
    kind: str
    text: str


@dataclass(frozen=True)
class Kind:
    """One kind of finding.

    `drops` is true where Ultralytics leaves the whole image out of the training because of it; `blocks`
    where it refuses to train at all.
    """

    name: str
    severity: str
    title: str
    ultralytics: str = "drops the whole image, with one line in the log, and trains on without it"
    danger: str = "no NaN from it; the image is lost, and with it the rare classes it may hold"
    drops: bool = False
    blocks: bool = False


KINDS: dict[str, Kind] = {name: Kind(name, **told) for name, told in table("label_problems").items()}

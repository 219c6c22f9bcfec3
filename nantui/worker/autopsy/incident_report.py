"""The evidence of an incident: each rank looks into its own batch, then all reports come together.

The first few incidents get an autopsy and the batch is written to disk (bounded); later ones only
name their losses and files. Every rank calls in at the same step, because reports are gathered.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from nantui.run.atomic_files import write_atomic
from nantui.worker import distributed
from nantui.worker.autopsy import autopsy
from nantui.worker.guard.batch_probe import BatchProbe
from nantui.worker.incident import Evidence
from nantui.worker.session import Session
from nantui.worker.ultralytics_types import Batch, Trainer

MOST_AUTOPSIES = 3
LARGEST_BATCH = 64 << 20
MOST_FILES = 64


class IncidentReporter:
    """Gathers evidence on one rank."""

    def __init__(self, trainer: Trainer, session: Session) -> None:
        self.trainer, self.session = trainer, session
        self.batch: Batch = {}
        self.files: list[tuple[str, ...]] = []
        self.cause = ""
        """What the newest autopsy has found; the same on every rank."""
        self._autopsies = 0

    def evidence(self, seen: BatchProbe, final: bool = False) -> Evidence:
        """Return the evidence of a bad batch; `final` asks for an autopsy however many there were.

        The first rank reports the autopsy of a rank whose batch was bad.
        """
        mine: Evidence = {"rank": self.session.rank, "bad": seen.mine}
        mine["files"] = [list(files) for files in self.files[:MOST_FILES]] if seen.mine else []
        if final or self._autopsies < MOST_AUTOPSIES:
            self._autopsies += 1
            if seen.mine or not distributed.together() or final:
                mine["autopsy"] = self._examined(seen)
        reports = distributed.gather(mine)
        bad = [report for report in reports if report["bad"]]
        looked_into = sorted(
            (report for report in reports if "autopsy" in report),
            key=lambda report: (not report["bad"], report["autopsy"]["cause"] == "not_reproduced"),
        )
        parts = {"loss": seen.bad_loss, "gradient": seen.bad_norm, "batchnorm": seen.bad_buffers}
        evidence: Evidence = {
            "losses": dict(zip(seen.names, seen.losses, strict=True)), "grad_norm": seen.norm,
            "loss_scale": seen.scale, "bad": [name for name, is_bad in parts.items() if is_bad],
            "files": bad[0]["files"] if bad else [],
        }  # fmt: skip
        if looked_into:
            found = looked_into[0]["autopsy"]
            evidence["cause"] = self.cause = found["cause"]
            if self.session.first:
                self.session.recorder.event("autopsy", **found, of_rank=looked_into[0]["rank"])
        if len(reports) > 1:
            evidence["ranks"] = [report["rank"] for report in bad]
        return evidence

    def _examined(self, seen: BatchProbe) -> Evidence:
        """Run the autopsy and keep the batch; returns the fields of the event."""
        found = asdict(autopsy.safely(autopsy.examine, self.trainer, self.batch, seen, self.files))
        name = f"{self.session.attempt.attempt:03d}.rank{self.session.rank}.batch.npz"
        place = self.session.layout.attempts / name
        found["evidence"]["batch"] = write_batch(place, self.batch, self.files)
        return found


def write_batch(path: Path, batch: Batch, files: list[tuple[str, ...]]) -> str | None:
    """Write images (as float32), targets and file names as .npz; returns the name, None where it is not kept.

    At most LARGEST_BATCH bytes of images are kept. A full disk costs the file, nothing else.
    """
    try:
        images = batch["img"].detach().float().cpu().numpy()
        most = max(1, LARGEST_BATCH // max(images[0].nbytes, 1))
        arrays = {"img": images[:most], "files": np.array(json.dumps(files))}
        for name in ("bboxes", "cls", "batch_idx", "keypoints"):
            if name in batch:
                arrays[name] = batch[name].detach().float().cpu().numpy()
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_atomic(path, buffer.getvalue())
    except (OSError, KeyError, IndexError, AttributeError):
        return None
    return path.name

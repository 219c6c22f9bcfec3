"""The evidence of an incident: each rank looks into its own batch, then all reports come together.

The first few incidents get an autopsy and the batch is written to disk (bounded); later ones only
name their losses and files. Every rank calls in at the same step, because reports are gathered.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

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
        """Return the evidence of a bad batch; `final` asks for an autopsy however many there were."""
        report: Evidence = {"rank": self.session.rank, "bad": seen.mine, **_numbers(seen)}
        report["files"] = [list(files) for files in self.files[:MOST_FILES]] if seen.mine else []
        if final or self._autopsies < MOST_AUTOPSIES:
            self._autopsies += 1
            if seen.mine or not distributed.together() or final:
                report.update(self._examine(seen))
        return self._together(report, seen)

    def _examine(self, seen: BatchProbe) -> Evidence:
        """Run the autopsy and keep the batch."""
        precision = autopsy.run_precision(self.trainer)
        finding = autopsy.examine(self.trainer, self.batch, seen, self.files, precision)
        evidence = dict(finding.evidence)
        place = self.session.attempt_file(f"rank{self.session.rank}.batch.npz")
        evidence["batch"] = write_batch(place, self.batch, self.files)
        return {"cause": finding.cause, "text": finding.text, "evidence": evidence}

    def _together(self, report: Evidence, seen: BatchProbe) -> Evidence:
        """Gather the ranks' reports; the first rank reports the autopsy of a rank whose batch was bad."""
        reports = distributed.gather(report)
        examined = [found for found in reports if "cause" in found]
        examined.sort(key=lambda found: (not found["bad"], found["cause"] == "not_reproduced"))
        chosen = examined[0] if examined else None
        evidence: Evidence = {**_numbers(seen), "bad": _what(seen)}
        if chosen is not None:
            evidence["cause"] = self.cause = chosen["cause"]
            if self.session.first:
                fields = {"cause": chosen["cause"], "text": chosen["text"], "evidence": chosen["evidence"]}
                self.session.recorder.event("autopsy", **fields, of_rank=chosen["rank"])
        if len(reports) > 1:
            evidence["ranks"] = [found["rank"] for found in reports if found["bad"]]
        evidence["files"] = next((found["files"] for found in reports if found["bad"]), [])
        return evidence


def _numbers(seen: BatchProbe) -> Evidence:
    losses = dict(zip(seen.names, seen.losses, strict=True))
    return {"losses": losses, "grad_norm": seen.norm, "loss_scale": seen.scale}


def _what(seen: BatchProbe) -> list[str]:
    found = {"loss": seen.bad_loss, "gradient": seen.bad_norm, "batchnorm": seen.bad_buffers}
    return [name for name, bad in found.items() if bad]


def write_batch(path: Path, batch: Batch, files: list[tuple[str, ...]]) -> str | None:
    """Write images (as float32), targets and file names as .npz; returns the name, None where it is not kept.

    At most LARGEST_BATCH bytes of images are kept. A full disk costs the file, nothing else.
    """
    import numpy as np

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

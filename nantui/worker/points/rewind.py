"""Rewind in place: where the guard gives up, the training goes back in memory and on, without a restart.

All ranks go back at one agreed step, each tensor in its place. The loop is not touched: the batches since the
point are skipped (docs/step-points.md). Nothing takes that back; it is bounded, and journaled before and
after.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

from nantui.run.documents import JsonObject
from nantui.words import count
from nantui.worker import distributed, ultralytics_api
from nantui.worker.points import training_state
from nantui.worker.points.going_on import drop_rows
from nantui.worker.points.host_copy import leaves, not_finite
from nantui.worker.points.point_file import InMemory
from nantui.worker.points.step_points import StepPoints
from nantui.worker.session import Session
from nantui.worker.torchrun_env import rank

MOST = 3
"""Rewinds in one attempt; what gives up once more ends it, and the ladder takes over."""
ASKED, NOT_REWOUND = "asked", "not_rewound"
"""The reason of a rewind that a person wanted, and the warning that it cannot be."""
EASED_STEPS = 100
"""Steps over which the rates rise again to what they were, where they were too high."""
TOO_HIGH = frozenset({"learning_rate", "exploding_gradient", "loss_exploded", "scale_collapsed"})
"""Causes and kinds of incident that speak against the rate, and not against data or hardware."""


class Rewind:
    """The rewinds of one rank's trainer."""

    def __init__(self, trainer: Any, session: Session, points: StepPoints) -> None:
        self.trainer, self.session, self.points = trainer, session, points
        self._made = 0
        self._kept: InMemory | None = None
        self._target: JsonObject = {}

    def as_asked(self) -> None:
        """Go back because a person says so, whatever the guard thinks; say so where that cannot be.

        To be called by every rank at the same step.
        """
        self.session.recorder.rewind_requested.clear()
        guard = self.trainer.guard
        here, policy = (guard.epoch, guard.batch_index), guard.incident_policy
        sign = policy.first_sign if policy.in_trouble else here
        if self._target_for(ASKED, sign, may=self.session.first):
            self.go()
        elif self.session.first:
            self.session.warn(NOT_REWOUND, "no step point in memory is from before the trouble; it trains on")

    def unattended(self, kind: str) -> str:
        """Return in words where the training goes back to for an incident of `kind`, "" where it does not.

        To be called by every rank at the same step; the first one decides, as the points are there.
        """
        sign, first = self.trainer.guard.incident_policy.first_sign, self.session.first
        if self._made >= MOST or not self._target_for(kind, sign, may=first and self.session.unattended()):
            return ""
        text = "epoch {epoch} step {batch} in memory, and on with the next batch".format(**self._target)
        return f"back to {text} ({self._made + 1} of at most {MOST})"

    def go(self) -> None:
        """Go back to the place that was chosen. To be called by every rank at the same step."""
        guard, target, began = self.trainer.guard, self._target, time.monotonic()
        self._made += 1
        cause = guard.incident_reporter.cause
        again = self._made > 1 and target["kind"] != ASKED
        eased = EASED_STEPS if again or TOO_HIGH & {cause, target["kind"]} else 0
        where = {
            "epoch": guard.epoch, "step": guard.batch_index, "to_epoch": target["epoch"],
            "to_step": target["batch"], "since": target["since"], "number": self._made,
            "incident": target["kind"],
        }  # fmt: skip
        self._say("rewind_begun", **where)
        self._put_back()
        guard.went_back(eased)
        self.points.wanted = True  # what was written since the first sign should not stay the newest
        put_right = self._put_right(target["since"][0]) if self.session.first else []
        seconds = time.monotonic() - began
        text = f"went back in memory to epoch {target['epoch']} step {target['batch']} in {seconds:.2f} s"
        text += f"; rates rise again over {count(eased, 'step')}" if eased else ""
        text = "; ".join([text, *put_right])
        self._say("rewind_done", **where, seconds=seconds, eased=eased, text=text)

    def _say(self, kind: str, **fields: object) -> None:
        if self.session.first:
            self.session.recorder.event(kind, **fields)

    def _target_for(self, kind: str, sign: tuple[int, int], may: bool) -> bool:
        """Choose where to go back to, before `sign`; returns whether there is such a place.

        To be called by every rank alike; only what the first one `may` counts.
        """
        self._kept = self._choose(sign) if may else None
        self._target = distributed.gather(self._told(self._kept, kind, sign) if self._kept else {})[0]
        return bool(self._target)

    def _choose(self, sign: tuple[int, int]) -> InMemory | None:
        if self.trainer.stop:
            return None
        live = [(name, tensor.shape) for name, tensor in leaves(training_state.live_tensors(self.trainer))]
        for kept in self.points.before(sign):
            kept.copy.wait()
            there = [(name, tensor.shape) for name, tensor in leaves(kept.copy.tree)]
            if there == live and not not_finite(kept.document):
                return kept
        return None

    def _told(self, kept: InMemory, kind: str, sign: tuple[int, int]) -> JsonObject:
        """Return what every rank has to know; tensors that are not on the training's device among it."""
        part = kept.document[training_state.PART]
        device = self.trainer.device.type
        live = leaves(training_state.live_tensors(self.trainer))
        pairs = zip(live, leaves(kept.copy.tree), strict=True)
        return {
            "kind": kind, "epoch": part["epoch"], "batch": part["batch"], "since": list(sign),
            "means": part["means"], "updates": kept.document["updates"], "scaler": kept.document["scaler"],
            "statistics": [one["statistics"] for one in part["ranks"]],
            "elsewhere": {name: one for (name, tensor), (_, one) in pairs if tensor.device.type != device},
        }  # fmt: skip

    def _put_back(self) -> None:
        trainer, target = self.trainer, self._target
        self.points.before_step()  # what is still being copied must not change
        kept = dict(leaves(self._kept.copy.tree)) if self._kept else {}
        training_state.put_back(trainer, {**kept, **target["elsewhere"]}, target["elsewhere"].keys())
        model = ultralytics_api.unwrapped(trainer.model)
        training_state.put_statistics_back(model, target["statistics"][rank()])
        if trainer.ema:
            trainer.ema.updates = target["updates"]
        if target["scaler"]:
            trainer.scaler.load_state_dict(target["scaler"])
        trainer.optimizer.zero_grad()
        trainer.set_means(target["means"] if target["epoch"] == trainer.epoch + 1 else None)
        if trainer.device.type == "cuda":
            torch.cuda.synchronize(trainer.device)

    def _put_right(self, since: int) -> list[str]:
        trainer, said = self.trainer, []
        attempt = self.session.attempt.attempt
        try:
            if drop_rows(self.session, since - 1, f"rewind-{self._made}-results.csv"):
                said.append(f"rows of results.csv from epoch {since} on were taken out")
            best = Path(trainer.best)
            if trainer.stopper.best_epoch >= since and best.is_file():
                aside = self.session.layout.backups / f"attempt-{attempt:03d}-rewind-{self._made}-best.pt"
                aside.parent.mkdir(parents=True, exist_ok=True)
                os.replace(best, aside)
                said.append("best.pt was moved aside, the next epoch's is the best until a better one comes")
        except OSError as error:
            said.append(f"results.csv and best.pt could not be put right ({error})")
        if trainer.stopper.best_epoch >= since:
            trainer.best_fitness = None
            trainer.stopper.best_fitness, trainer.stopper.best_epoch = 0.0, trainer.epoch + 1
        if said:
            said.append("as they were: nantui/backups")
        return said

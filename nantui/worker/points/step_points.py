"""When step points are taken, and of what: a trainer's own part of them, batch by batch.

A point is taken right after an optimizer step that the guard has found good, at a batch that all ranks agree
on; the first rank's clock says when. By itself that is as often as the measured cost allows.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from nantui.worker import distributed
from nantui.worker.options import OFF
from nantui.worker.points import loader_order, training_state
from nantui.worker.points.going_on import GoingOn
from nantui.worker.points.host_copy import HostCopy, bytes_of, memory_left, module_of
from nantui.worker.points.loader_order import RecordedOrder
from nantui.worker.points.point_file import EMPTY, InMemory, PointWriter, write_checkpoint
from nantui.worker.session import Session

SHARE = 0.005  # of the time may go into points, if nobody has said how often
SHORTEST, LONGEST = 10.0, 300.0  # seconds between points, whatever they cost
COPIES = 3  # one is written while the next is taken, and one may be gone back to


class StepPoints:
    """The step points of one rank."""

    def __init__(self, trainer: Any, session: Session, going_on: GoingOn | None) -> None:
        self.trainer, self.session, self.going_on = trainer, session, going_on
        setting = session.options.step_points
        self._asked_for = self.on = setting != OFF
        self._every = setting if isinstance(setting, float) else None
        self._order: RecordedOrder | None = None
        self._copies: list[InMemory] = []
        self._writer: PointWriter | None = None
        self._cost = 0.0
        self._due_at = time.monotonic() + self._interval()
        self.wanted = False
        self._since_step = going_on.part["since_step"] if going_on and not going_on.other_batches else 0
        self._training: training_state.State = {}

    def due(self) -> bool:
        """Tell whether it is time for a point; only the first rank's word counts."""
        if not (self.on and self.session.first) or self.wanted or time.monotonic() < self._due_at:
            return False
        return self._order is not None and (not self._copies or self._free() is not None)

    def keep_now(self) -> None:
        """Have it be time for a point."""
        self._due_at = time.monotonic()

    def epoch_begins(self) -> int:
        """Have the loader's order recorded; returns after how many batches the epoch begins."""
        begin = self.going_on.begin if self.going_on else None
        before, first = self._order, self.going_on.epoch_begins() if self.going_on else 0
        self._order = loader_order.record(self.trainer, self.session.options.exact, begin if first else None)
        if self._order is None and self.on:
            self._give_up("the train loader is not one of Ultralytics' own: a resume repeats the epoch")
        if self._order is not before:
            self._training = {}
        return first

    def before_step(self) -> None:
        """The optimizer is about to change what may still be being copied."""
        for kept in self._copies:
            kept.copy.before_step()

    def before(self, sign: tuple[int, int]) -> list[InMemory]:
        """Return the points in memory from before an epoch and batch, the newest first."""
        found = [kept for kept in self._copies if EMPTY < kept.place < sign]
        return sorted(found, key=lambda kept: kept.place, reverse=True)

    def batch_ended(self, due: bool) -> None:
        """Take a point where one is due and the batch had a good step. To be called by every rank alike."""
        if self.going_on:
            self.going_on.batch_ended()
        guard = self.trainer.guard
        self._since_step = 0 if guard.stepped else self._since_step + 1
        self.wanted = self.wanted or due
        if self.wanted and guard.stepped and not guard.skipped:
            self.wanted = False
            self._take()

    def write_now(self, path: Path, part: training_state.State) -> bool:
        """Write a last point to `path`, wherever between two steps; returns whether there was room for it.

        To be called by the first rank.
        """
        self.close()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            kept = self._room()
            assert kept is not None, "nothing is being written any more"
            copy = kept.copy
            document = self._document(copy, part, with_gradients=self._since_step > 0)
            copy.wait()
            write_checkpoint(path, document, lambda: False)
        except (RuntimeError, OSError):
            return False
        return True

    def close(self) -> None:
        """Take no more points: the training ends."""
        if self._writer is not None:
            self._writer.close()
        self._writer, self.on = None, False

    def _interval(self) -> float:
        if self._every is not None:
            return self._every
        return min(max(self._cost / SHARE, SHORTEST), LONGEST)

    def _take(self) -> None:
        began = time.monotonic()
        part = self.part()
        if part is not None and self.session.first:
            try:
                self._hand_over(part)
            except (RuntimeError, OSError) as error:
                self._give_up(f"{error}: a resume repeats the epoch")
        writing = self._writer.cpu_seconds if self._writer else 0.0
        self._cost = time.monotonic() - began + writing
        self._due_at = time.monotonic() + self._interval()

    def _hand_over(self, part: training_state.State) -> None:
        if (kept := self._room()) is None:
            return
        kept.place = EMPTY
        kept.document = self._document(kept.copy, part, with_gradients=False)
        kept.place = part["epoch"], part["batch"]
        kept.header = {name: part[name] for name in ("epoch", "batch", "step", "training")}
        more = {"attempt": self.session.attempt.attempt, "t": time.time()}
        kept.header.update(more, batches=part["training"]["batches"])
        self._writer = self._writer or PointWriter(
            self.session.layout, self._say, self.session.recorder.settle
        )
        self._writer.hand_over(kept)

    def part(self) -> training_state.State | None:
        """Return what a point has and a checkpoint has not, None where none are taken; on every rank."""
        if self._order is None or not self._asked_for:
            return None
        trainer = self.trainer
        self._training = self._training or training_state.same_training(trainer)
        every = distributed.gather(training_state.part_of_rank(trainer, self._order.state()))
        return {
            "training": self._training, "epoch": trainer.epoch + 1, "batch": trainer.guard.batch_index,
            "step": int(trainer.ema.updates) if trainer.ema else 0, "since_step": self._since_step,
            "void": trainer.guard.void, "means": trainer.means(), "loss": float(trainer.loss.detach()),
            "loss_names": list(trainer.loss_names), "metrics": dict(trainer.metrics or {}), "ranks": every,
        }  # fmt: skip

    def _document(
        self, copy: HostCopy, part: training_state.State, with_gradients: bool
    ) -> training_state.State:
        trainer = self.trainer
        live = training_state.tensors_of(trainer, with_gradients and not part["void"])
        copied = copy.take(live)
        ema = module_of(trainer.ema.ema, copied["ema"])
        return training_state.checkpoint_of(trainer, ema, copied, part)

    def _room(self) -> InMemory | None:
        """Return a place for a point, None while all are in use. Raises RuntimeError for lack of memory."""
        if not self._copies:
            live = training_state.tensors_of(self.trainer, with_gradients=False)
            need, left = bytes_of(live), memory_left()
            fitting = min(COPIES, int(left / 2 / need))
            if not fitting:
                sizes = f"{need / 2**30:.1f} GiB of memory and {left / 2**30:.1f} GiB are left"
                raise RuntimeError(f"a step point takes {sizes}")
            self._copies = [InMemory(HostCopy(self.trainer.device)) for _ in range(fitting)]
        if self._writer is not None:
            self._writer.withdraw()
        return self._free()

    def _free(self) -> InMemory | None:
        writer, policy = self._writer, self.trainer.guard.incident_policy
        kept_for_it = self.before(policy.first_sign)[:1] if self.on and policy.in_trouble else []
        every = (kept for kept in self._copies if kept not in kept_for_it)
        free = (kept for kept in every if not (writer and writer.holds(kept)))
        return min(free, key=lambda kept: kept.place, default=None)

    def _give_up(self, why: str) -> None:
        self.on = False
        self._say(why)

    def _say(self, why: str) -> None:
        self.session.warn("step_points", f"no step point: {why}")

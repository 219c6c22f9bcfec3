"""A training step as a transaction: what a bad batch touched is put back, as if it had not been there.

Forward and backward have run when the guard reads the batch. When losses, gradient norm and BatchNorm
statistics are finite on every rank, the step is taken exactly as Ultralytics takes it (bit for bit) and the
statistics are remembered. When not, they are put back, the gradients dropped, and optimizer, EMA and
learning-rate schedule are as before. With gradient accumulation one bad batch voids its whole step.
Where GradScaler alone refuses a step, because its scale is too high, all stays as Ultralytics does it:
the statistics are kept and the EMA is updated, or a healthy fp16 run would end elsewhere.

A host that waits for the verdict before it queues the step leaves the GPU idle; measured, that cost up to a
tenth of a batch. So on a GPU what the step changes (weights, optimizer state, EMA) is copied there, the step
is queued at once, and taken back if the verdict is bad, before anybody else looks at it (`settle`). The
copies live from the backward pass to the batch's end, where the activations' memory is free again, so that
they hardly raise the peak. Where the GPU is the one that waits (a small model: its verdict is there within
the moment that a copy takes to queue), and elsewhere, the verdict comes first.
"""

from __future__ import annotations

import contextlib
import math
import traceback
from collections.abc import Callable, Iterator

import torch

from nantui.words import count
from nantui.worker import distributed, ultralytics_api
from nantui.worker.autopsy.incident_report import IncidentReporter
from nantui.worker.guard.batch_probe import BatchProbe, PendingProbe, probe_batch
from nantui.worker.guard.incident_policy import IncidentPolicy, incident_kind
from nantui.worker.guard.tensor_copies import BatchNormStatistics, Snapshot, StepBackup
from nantui.worker.incident import TrainingDiverged
from nantui.worker.session import Session
from nantui.worker.ultralytics_types import Trainer

PROMPT_S = 0.0003  # queueing the copies takes about as long
MOST_VAIN, AGAIN = 4, 50  # waits in vain, then only each so many-th step waits: the GPU is behind
SUSPICION = 2.0  # in the first epochs after a recovery, limits for the loss are this much lower


class StepGuard:
    """Watches one trainer on one rank; made once its model, optimizer and loader are."""

    def __init__(self, trainer: Trainer, session: Session) -> None:
        self.trainer, self.session, self.options = trainer, session, session.options
        self.incident_policy = IncidentPolicy(session.options, session.report, session.warn)
        self.incident_reporter = IncidentReporter(trainer, session)
        self.statistics = BatchNormStatistics(ultralytics_api.unwrapped(trainer.model), every_step=True)
        self.backup = StepBackup(trainer)
        self.seen: BatchProbe | None = None
        self.point_due: Callable[[], bool] = lambda: False
        self.go_back: Callable[[], None] = lambda: None
        self.skipped = False
        self.ahead = self.void = self.in_batch = self.stepped = self._unsettled = self._cramped = False
        self.batch_index = 0
        self._void_reason = ""
        self._last_loss = 0.0
        self._steps_taken = self._in_vain = 0
        self._ramp = (self.options.rewarmup if trainer.start_epoch > 0 else 0, 0)  # steps, and after how many
        self._unread: PendingProbe
        self._snapshot: Snapshot
        self._parameters = list(trainer.model.parameters())

    @property
    def epoch(self) -> int:
        """The epoch people see, from 1."""
        return int(self.trainer.epoch) + 1

    def begin_epoch(self, after: int = 0) -> None:
        """Start counting batches, those before it where the epoch was begun before this attempt.

        A batch left open was an out-of-memory retry and leaves no trace.
        """
        self.batch_index = after
        self._parameters = list(self.trainer.model.parameters())
        self.statistics.refresh()
        self.backup.look_again()
        self.ahead = self.options.protects and ultralytics_api.step_can_be_taken_back(self.trainer)
        on_probation = self.trainer.epoch - self.trainer.start_epoch < self.session.attempt.probation_epochs
        self.incident_policy.suspicion = SUSPICION if on_probation else 1.0
        if self.in_batch:
            self.statistics.restore()
            self.in_batch = self.void = self._cramped = False

    def begin_batch(self) -> None:
        """Note that a batch begins."""
        self.batch_index += 1
        self.in_batch = True
        self.session.recorder.batch_begins()
        self.seen, self.skipped, self.stepped = None, False, False
        self.session.progress.epoch, self.session.progress.step = self.epoch, self.batch_index

    def step(self, own_step: Callable[[], object] | None) -> None:
        """Take or skip the optimizer's step. `own_step` is a trainer's own one, None for Ultralytics'.

        Raises TrainingDiverged; a step that is taken ahead of its verdict leaves that to `settle`.
        """
        norm = self._norm_of_own_step() if own_step else self._clipped()
        self._see(norm)
        self.stepped = True
        if own_step is None and self._take_ahead():
            return
        if self.options.watches:
            if self._refuses(self.probe()):
                self._skip(self.probe(), unscaled=own_step is None)
                return
            self._leave_to_the_scaler(norm, clipped=own_step is None)
        with self._rewarmup():
            (own_step or self._take)()
        self._keep()

    def settle(self) -> None:
        """Read the verdict on a step that was taken ahead of it, and keep it or not.

        Raises TrainingDiverged.
        """
        if not self._unsettled:
            return
        self._unsettled = False
        seen = self.probe()
        if seen.bad:
            self.backup.restore()
        if self._refuses(seen):
            self._skip(seen, unscaled=True)
            return
        self.backup.discard()
        self._keep()

    def end_batch(self) -> BatchProbe:
        """Look at a batch that had no step of its own, and keep `trainer.loss` finite.

        Raises TrainingDiverged.
        """
        self.settle()
        seen = self.probe()
        if not self.stepped and self.options.watches and self._refuses(seen):
            self.void, self._void_reason = True, self.reason(seen) or self._void_reason
            self.statistics.restore()
        if not seen.bad_loss:
            self._last_loss = seen.loss
        elif self.options.protects:  # a fitness may be made of it
            self.trainer.loss = torch.full_like(self.trainer.loss.detach(), self._last_loss)
        self.in_batch = False
        self.session.recorder.batch_ends()
        return seen

    def probe(self) -> BatchProbe:
        """Return what this batch shows; the first time it waits for the values."""
        if self.seen is None:
            if not self.stepped:
                self._see(None)
            self.seen = self._unread.read()
        return self.seen

    def reason(self, seen: BatchProbe) -> str:
        """Return the kind of incident that a batch shows, for its row of telemetry; empty for none."""
        kind = incident_kind(seen) if self.options.watches else None
        return kind or (self._void_reason if self.skipped else "")

    def _clipped(self) -> torch.Tensor:
        """Unscale, clip and return the norm before that, as `BaseTrainer.optimizer_step` begins.

        A norm that is not finite would make every gradient NaN; under `protect` it clips nothing, so that
        the autopsy finds the gradients as they were.
        """
        self.trainer.scaler.unscale_(self.trainer.optimizer)
        norm = ultralytics_api.gradient_norm(self._parameters)
        harmless = torch.nan_to_num(norm, 0.0, 0.0, 0.0) if self.options.protects else norm
        ultralytics_api.clip_by(self._parameters, self.options.grad_clip or float("inf"), harmless)
        return norm

    def _norm_of_own_step(self) -> torch.Tensor:
        """Return the norm for a trainer that brings its own step, and unscales and clips there."""
        norm = ultralytics_api.gradient_norm(self._parameters)
        scale = ultralytics_api.loss_scale(self.trainer)
        return norm if scale is None else norm / scale

    def _leave_to_the_scaler(self, norm: torch.Tensor, clipped: bool) -> None:
        """Where GradScaler will refuse this step, note it, and clip by the norm as it is.

        It looks at each gradient: finite ones whose norm overflows it lets pass, and then Ultralytics'
        clipping has made them zero. It looks at its own rank alone: where another's refuses, this one has to
        as well, or weights and loss scales differ from then on.
        """
        seen = self.probe()
        if not seen.scaler_at_work:
            return
        self.skipped = True
        if not clipped or not self.options.protects:
            return
        if seen.norm is not None and math.isfinite(seen.norm):
            ultralytics_api.refuse_step(self.trainer)
        elif self.options.grad_clip:
            ultralytics_api.clip_by(self._parameters, self.options.grad_clip, norm)

    def _take(self) -> None:
        """Do the part of `BaseTrainer.optimizer_step` after clipping; all of it can be taken back."""
        self.trainer.scaler.step(self.trainer.optimizer)
        self.trainer.scaler.update()
        self.trainer.optimizer.zero_grad()
        if self.trainer.ema:
            self.trainer.ema.update(self.trainer.model)

    def _take_ahead(self) -> bool:
        """Queue the step before its verdict is known; returns whether that could be done.

        The ranks need not agree on it: what they exchange is queued in the same order either way.
        """
        if not self.ahead or self.void or self._cramped:
            return False
        # Ranks that differ in it would differ in what they exchange about a bad batch, and when.
        if not distributed.together() and self._arrives():
            return False
        try:
            self.backup.copy()
        except RuntimeError:  # no room: to ask again empties the allocator's cache in every step
            self._cramped = True
            return False
        try:
            with self._rewarmup():
                self._take()
        except RuntimeError as error:
            full = any(words in str(error) for words in ("out of memory", "STATUS_ALLOC_FAILED"))
            if distributed.together() or not full:  # other ranks take this step
                raise
            traceback.clear_frames(error.__traceback__)  # what is there of the step takes room, too
            self._leave_out()
            return True
        self._unsettled = True
        return True

    def _arrives(self) -> bool:
        """Wait a moment for the verdict, if that was not in vain of late; returns whether it is there."""
        if self._in_vain >= MOST_VAIN and self._steps_taken % AGAIN:
            return False
        arrives = self._unread.arrives_within(PROMPT_S)
        self._in_vain = 0 if arrives else self._in_vain + 1
        return arrives

    def _leave_out(self) -> None:
        """There was no room for the step beside its copies: it is left out, and none are made any more.

        It cannot be taken again, as a part of it may have added momentum to the gradients.
        """
        self.backup.restore()
        self._cramped = True
        if not self._refuses(self.probe()):
            text = "no room on the GPU for a step beside its copies: it is left out, the next ones make none"
            self.session.warn("no_room", text)
        self._skip(self.probe(), unscaled=True)

    def _keep(self) -> None:
        """The step was good: what it leaves is what a later skip goes back to."""
        self._steps_taken += 1
        self.void = False
        self.statistics.remember(self._snapshot)

    def _skip(self, seen: BatchProbe, unscaled: bool) -> None:
        """Leave no trace of the step; only a loss scale that was too high is lowered."""
        self.statistics.restore()
        scaler = self.trainer.scaler
        if scaler.is_enabled():
            if not unscaled:
                scaler.unscale_(self.trainer.optimizer)  # update() wants to know what was found
            scaler.update(None if seen.scaler_at_work and not self.void else scaler.get_scale())
        self.trainer.optimizer.zero_grad()
        self.void = False
        self.skipped = True

    def _see(self, norm: torch.Tensor | None) -> None:
        """Send for what there is to know of this batch, once."""
        trainer = self.trainer
        names, losses = ultralytics_api.loss_items(trainer)
        self._snapshot = self.statistics.snapshot()
        targets = filter(torch.is_tensor, map(self.incident_reporter.batch.get, ("bboxes", "keypoints")))
        scale = ultralytics_api.loss_scale(trainer)
        recorder = self.session.recorder
        wishes = recorder.stop_requested.is_set(), self.point_due(), recorder.rewind_requested.is_set()
        peak = self._snapshot.peak
        self._unread = probe_batch(names, losses, trainer.loss, peak, targets, norm, scale, wishes)

    def _refuses(self, seen: BatchProbe) -> bool:
        """Report what the batch shows; returns whether its step must not be taken.

        Raises TrainingDiverged.
        """
        place = self.epoch, self.batch_index
        try:
            self._report(seen, place)
            skip = self.options.protects and (seen.to_be_undone or self.void)
            if seen.norm is not None and self.options.protects and not seen.scaler_at_work:
                self.incident_policy.optimizer_step(skip, *place)
        except TrainingDiverged as diverged:
            self.backup.restore()
            if not diverged.goes_back:
                self.incident_reporter.evidence(seen, final=True)
                raise
            self.go_back()
            return True
        return skip

    def _report(self, seen: BatchProbe, place: tuple[int, int]) -> None:
        """Raises TrainingDiverged."""
        kind = incident_kind(seen)
        if seen.bad_targets and kind is None:  # Ultralytics' assigner passes over them
            text = "labels of this batch are not finite; the loss passed over them"
            self.session.warn("nan_label", text, **self.incident_reporter.evidence(seen))
        if kind is None:
            if not seen.bad and not self.void:
                self.incident_policy.healthy_batch(seen, *place)
            elif seen.scaler_at_work:
                self.incident_policy.watch_scale(seen, *place)
        elif self.incident_policy.is_news(kind) and not (self.void and kind == "nan_gradient"):
            self.incident_policy.bad_batch(kind, *place, self.incident_reporter.evidence(seen))
            self._check_weights(place)

    def went_back(self, eased: int) -> None:
        """Take the weights to be good as they are now; the rates rise again over `eased` steps."""
        self.statistics.remember(self.statistics.snapshot())
        self.incident_policy.begin_anew()
        self._ramp = (eased, self._steps_taken) if eased else self._ramp

    def _check_weights(self, place: tuple[int, int]) -> None:
        """After a bad batch: when the weights themselves are bad, skipping will not help.

        Raises TrainingDiverged.
        """
        model = ultralytics_api.unwrapped(self.trainer.model)
        bad = ultralytics_api.non_finite(model.named_parameters())
        if distributed.any_of_us(bool(bad), self.trainer.device):
            evidence = {"tensors": len(bad), "first": bad[:10]}
            self.incident_policy.end("nan_weight", *place, count(len(bad), "tensor"), evidence)

    @contextlib.contextmanager
    def _rewarmup(self) -> Iterator[None]:
        """Lower the learning rates for this step while the re-warm-up after a resume or a rewind lasts."""
        steps, begun = self._ramp
        factor = (self._steps_taken - begun + 1) / (steps + 1)
        if factor >= 1.0:
            yield
            return
        groups = self.trainer.optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] *= factor
        try:
            yield
        finally:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate

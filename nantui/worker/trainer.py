"""The guarded trainer: a subclass of whatever trainer the task or the user brings.

Made by `guarded`, as a class, so that the user's own trainer, dataset, callbacks and augmentations stay
what they are. It only routes: each override says what happens around Ultralytics' own method.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import resource
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import psutil
import torch

from nantui.run.documents import JsonObject
from nantui.run.quarantine import quarantined
from nantui.worker import distributed, ultralytics_api
from nantui.worker.autopsy.sample_files import files_of, instrument
from nantui.worker.checkpoints.epoch_end import EpochEndChecks
from nantui.worker.distributed import hosts_in_turn, ranks_on_the_cpu
from nantui.worker.effective_settings import values_in_effect
from nantui.worker.guard.batch_probe import BatchProbe
from nantui.worker.guard.step_guard import StepGuard
from nantui.worker.incident import TrainingDiverged
from nantui.worker.points.going_on import GoingOn, drop_rows, go_on, point_in
from nantui.worker.points.loader_order import seed_samples
from nantui.worker.points.rewind import Rewind
from nantui.worker.points.step_points import StepPoints
from nantui.worker.points.training_state import on_device, plain_losses
from nantui.worker.same_training import RESUME, refuse_another_training, refuse_other_classes
from nantui.worker.session import Session
from nantui.worker.signals import was_told
from nantui.worker.torchrun_env import several_hosts, world_size
from nantui.worker.ultralytics_types import Batch, Losses, Trainer
from nantui.worker.validation_precision import Validation

if TYPE_CHECKING:
    from nantui.worker.faults import Faults

    _Stock = Trainer
else:
    _Stock = object  # `guarded` puts the trainer's own class behind the mixin

GIBIBYTE = 2**30
MOST_NAMED = 100
SETTLED = ("on_train_batch_end", "on_train_epoch_end")  # a run out of time leaves its batch by `break`
Answer = TypeVar("Answer")


def memory_gb(device: torch.device) -> tuple[float, float, float | None]:
    """Return GiB of GPU memory reserved, its peak, and the peak that tensors filled (the allocator keeps more
    than that, e.g. blocks that fitted a validation); on the CPU the process' resident memory, its peak, None.
    """
    if device.type == "cuda":
        cuda = torch.cuda
        peaks = cuda.max_memory_reserved(device) / GIBIBYTE, cuda.max_memory_allocated(device) / GIBIBYTE
        return cuda.memory_reserved(device) / GIBIBYTE, *peaks
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return psutil.Process().memory_info().rss / GIBIBYTE, peak, None


class RunningMean:
    """The epoch's mean of vectors of losses, over the batches whose loss was finite.

    Ultralytics keeps a running mean in `trainer.tloss`; one NaN batch makes the whole epoch's train loss NaN,
    in the progress line and in results.csv. This one leaves such a batch out. It works in float32 on the host
    and is bit-equal to Ultralytics' own, as a device of the type `device` rounds it, while every batch is
    finite. PyTorch on CUDA divides by a number by multiplying with its reciprocal
    (aten/src/ATen/native/cuda/BinaryDivTrueKernel.cu), which may differ in the last bit.
    """

    def __init__(self, device: str = "cpu", mean: torch.Tensor | None = None, batches: int = 0) -> None:
        """Count on from a `mean` of so many `batches`, where there were some."""
        self.mean, self.batches = torch.zeros(()) if mean is None else mean, batches
        self._by_reciprocal = device == "cuda"

    def add(self, losses: Sequence[float]) -> None:
        """Take in one batch; a batch with any non-finite loss changes nothing."""
        if all(map(math.isfinite, losses)):
            total = self.mean * self.batches + torch.tensor(losses)
            self.batches += 1
            share = torch.ones(()) / self.batches
            self.mean = total * share if self._by_reciprocal else total / self.batches
        elif not self.batches:
            self.mean = torch.zeros(len(losses))


def guarded(base: type, session: Session, faults: Faults | None = None) -> type:
    """Return a trainer class that trains as `base` does, under the guard and reporting to `session`."""
    own_step = ultralytics_api.has_own_step(base)
    about = f"{base.__name__} under nantui's guard."
    members = {"session": session, "faults": faults, "has_own_step": own_step, "__doc__": about}
    return type(f"Guarded{base.__name__}", (GuardedTrainer, base), members)


class GuardedTrainer(_Stock):
    """Mixed in before the trainer; `self` is also an Ultralytics `BaseTrainer`."""

    session: Session
    faults: Faults | None
    has_own_step: bool
    guard: StepGuard | None = None
    epoch_end: EpochEndChecks
    validation: Validation
    points: StepPoints
    rewind: Rewind
    accumulate_nominal: int
    _batch: Batch
    _batch_ended: float
    _batch_began: float
    _reported_in_effect: bool = False
    _epochs_over: bool = False
    _tloss: Losses | None = None
    _mean: RunningMean | None = None
    _loss_waits: bool = False
    _going_on: GoingOn | None = None
    _while_training: contextlib.ExitStack

    def check_resume(self, overrides: dict[str, object]) -> None:
        """Resume as Ultralytics does, then pin the run directory: it must never move or be numbered."""
        super().check_resume(overrides)  # type: ignore[misc]
        if self.session.attempt.mode == RESUME:
            refuse_another_training(self, self.session)
        self.args.save_dir = str(self.session.layout.run)

    def setup_model(self) -> object:
        """Load the model as Ultralytics does; a resume whose data set has other classes is refused here."""
        checkpoint = super().setup_model()  # type: ignore[misc]
        if self.session.attempt.mode == RESUME and isinstance(checkpoint, dict):
            refuse_other_classes(self, self.session, checkpoint)
        return checkpoint

    def _do_train(self, *stock: int) -> None:
        """Train; in 8.2 Ultralytics hands over its own number of ranks (`stock`)."""
        self.world_size = ultralytics_api.world_size(self, *stock)
        arguments = [self.world_size] if stock else []
        self.session.phase("setup")
        with contextlib.ExitStack() as stack:
            self._while_training = stack
            if world_size() > 1 and self.device.type == "cpu":
                stack.enter_context(ranks_on_the_cpu())
            if several_hosts():
                stack.enter_context(hosts_in_turn())
            try:
                super()._do_train(*arguments)  # type: ignore[misc]
            except BaseException as error:
                if self.guard:  # nobody reads the verdict on this step any more
                    with contextlib.suppress(RuntimeError):  # of a GPU that has failed
                        self.guard.backup.restore()
                if self.guard and isinstance(error, Exception) and was_told(self.session, error):
                    raise self.epoch_end.stopped_alone(error, not self.guard.in_batch) from error
                raise

    def _setup_ddp(self, *stock: int) -> None:
        if self.device.type == "cpu":
            distributed.set_up_cpu()
        else:
            super()._setup_ddp(*stock)  # type: ignore[misc]

    def run_callbacks(self, event: str) -> None:
        """Run everybody's callbacks, then nantui's own part of the event."""
        if event == "on_train_batch_start" and self.guard:
            if self._going_on:
                self._going_on.batch_begins()
            self.guard.begin_batch()
        elif event in SETTLED and self.guard:
            _reporting(self, self.guard, self.guard.settle)
            if event == "on_train_batch_end":  # by all ranks before a callback, which may ask them, too
                self.guard.probe()
        super().run_callbacks(event)  # type: ignore[misc]
        if event == "on_pretrain_routine_end":
            _set_up(self)
        elif self.guard:
            _follow(self, self.guard, event)

    def preprocess_batch(self, batch: Batch) -> Batch:
        files = files_of(batch)
        self._batch = super().preprocess_batch(batch)  # type: ignore[misc]
        if self.guard:
            self.guard.incident_reporter.batch, self.guard.incident_reporter.files = self._batch, files
        if self.faults and self.guard:
            self.faults.on_batch(self, self._batch)
        if self._going_on:
            self._going_on.batch_loaded()
        return self._batch

    def plot_training_samples(self, batch: Batch, ni: int) -> None:
        """Plot a copy: a thread of `plot_images` (utils/plotting.py) puts arrays into the dict, and on a CPU
        multiplies its images by 255 where they lie, while an autopsy looks at the batch.
        """
        images = batch["img"]
        own = {**batch, "img": images.clone() if images.device.type == "cpu" else images}
        super().plot_training_samples(own, ni)  # type: ignore[misc]

    def build_dataset(
        self, img_path: object, mode: str = "train", *args: object, **options: object
    ) -> object:
        """Build what the trainer builds; the train set leaves quarantined images out and names its files."""
        build = functools.partial(super().build_dataset, img_path, mode, *args, **options)  # type: ignore[misc]
        if mode != "train":
            return build()
        listed = frozenset(quarantined(self.session.layout))
        dataset, broken, found = ultralytics_api.built_without(listed, build)
        if broken and not self.guard:  # Ultralytics builds it once more where the memory was not enough
            text = f"{len(broken)} of {found} images are not taken in, broken labels or pixels as a rule "
            text += f"(nantui labels --images says why): {', '.join(map(os.path.basename, broken[:3]))}"
            self.session.warn("images_left_out", text, images=broken[:MOST_NAMED])
        instrument(dataset)
        if self.session.options.exact:
            seed_samples(dataset, int(self.args.seed))
        return dataset

    def resume_training(self, checkpoint: JsonObject | None) -> None:
        """Resume as Ultralytics does; from a step point in the middle of its epoch."""
        stock = super().resume_training  # type: ignore[misc]
        if checkpoint and point_in(checkpoint) and not ultralytics_api.missing_hooks(type(self)):
            self._going_on = go_on(self, checkpoint, stock)
            self._while_training.enter_context(self._going_on.counted())
        else:
            stock(checkpoint)
        ultralytics_api.lay_out_optimizer_state(self.optimizer)
        if self.resume and self.session.first:
            # A kill between an epoch's row and its checkpoint leaves a row that comes again.
            drop_rows(self.session, self.start_epoch, "results.csv")

    def optimizer_step(self) -> None:
        guard = self.guard
        if guard is None:
            super().optimizer_step()  # type: ignore[misc]
            return
        if self.faults:
            self.faults.on_gradients(self)
        self.points.before_step()
        own = super().optimizer_step if self.has_own_step else None  # type: ignore[misc]
        _reporting(self, guard, lambda: guard.step(own))

    @property
    def tloss(self) -> Losses | None:
        """The epoch's mean loss so far; None before its first batch.

        Made from what the host has read anyway, so that the progress line does not wait for the GPU again.
        """
        if self._loss_waits and self.guard is not None:
            self._loss_waits = False
            self._mean = self._mean or RunningMean(self.device.type)
            self._mean.add(self.guard.probe().losses)
            self._tloss = ultralytics_api.like_loss_items(self, self._mean.mean)
        return self._tloss

    @tloss.setter
    def tloss(self, value: Losses | None) -> None:
        protects = self.guard is not None and self.guard.options.protects
        self._loss_waits = value is not None and protects
        if not self._loss_waits:
            self._tloss, self._mean = value, None

    def means(self) -> JsonObject:
        """Return the means of the epoch so far, for a step point."""
        kept = (self._mean.mean, self._mean.batches) if self._mean else None
        return {"mean": kept, "tloss": plain_losses(self.tloss)}

    def set_means(self, kept: JsonObject | None) -> None:
        """Count on from the means of a step point, anew from the present batch on without any."""
        if kept is None:
            self._tloss = self._mean = None
            self._loss_waits = True
            return
        self._tloss = on_device(kept["tloss"], self.device)
        if kept["mean"] is not None:
            self._mean = RunningMean(self.device.type, *kept["mean"])

    def validate(self) -> object:
        self.session.phase("validating")
        if self.guard:
            self.validation.stand_in()
        metrics, fitness = super().validate()  # type: ignore[misc]
        if self.guard:
            self.epoch_end.validated(metrics)
        return metrics, fitness

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Ultralytics' own recovery stays off, on every rank alike: it holds a broadcast."""
        if self.guard and self.guard.options.protects:
            return False
        return bool(super()._handle_nan_recovery(epoch))  # type: ignore[misc]

    def save_metrics(self, metrics: dict[str, object]) -> None:
        """Write the epoch's line of results.csv; on a full disk it waits, and a guarded training goes on."""
        if self.guard is None:
            super().save_metrics(metrics)  # type: ignore[misc]
            return
        self.epoch_end.write_line(metrics, super().save_metrics)  # type: ignore[misc]

    def save_model(self) -> bool:
        if self.guard is None:
            return bool(super().save_model())  # type: ignore[misc]
        self.session.phase("saving")
        saved = self.epoch_end.save()
        self.session.phase("training")
        return saved

    def final_eval(self) -> None:
        """Evaluate best.pt; it calls `on_fit_epoch_end` once more, for an epoch that is none."""
        self._epochs_over = True
        if self.guard:
            self.validation.stand_in()
        if several_hosts():
            # Each rank asks whether best.pt is there; a file server's client may remember that it was not.
            os.listdir(self.wdir)
        with self.epoch_end.stripping() if self.guard else contextlib.nullcontext():
            super().final_eval()  # type: ignore[misc]

    def stock_save(self) -> bool | None:
        """Save as Ultralytics does, which before 8.4 does not tell whether it has."""
        saved: bool | None = super().save_model()  # type: ignore[misc]
        if self.faults:
            self.faults.on_save(self)
        return saved


def _set_up(trainer: GuardedTrainer) -> None:
    """Install the guard; where a place for it is missing, install nothing and say so."""
    missing = ultralytics_api.missing_hooks(type(trainer))
    if missing:
        notes = [f"unguarded: this trainer has no {name}" for name in missing]
        trainer.session.recorder.event("in_effect", values={}, guarded=False, notes=notes)
        trainer.session.warn("unguarded", "; ".join(notes))
        return
    trainer.guard = StepGuard(trainer, trainer.session)
    trainer.validation = Validation(trainer, trainer.session)
    trainer.epoch_end = EpochEndChecks(trainer, trainer.session, trainer.guard.incident_policy)
    trainer.points = StepPoints(trainer, trainer.session, trainer._going_on)
    trainer._while_training.callback(trainer.points.close)
    trainer.guard.point_due = trainer.points.due
    trainer.guard.incident_policy.keep_now = trainer.points.keep_now
    trainer.rewind = rewind = Rewind(trainer, trainer.session, trainer.points)
    trainer.guard.incident_policy.way_back, trainer.guard.go_back = rewind.unattended, rewind.go
    trainer.session.recorder.memory = lambda: memory_gb(trainer.device)
    trainer._batch_ended = trainer._batch_began = time.perf_counter()
    trainer.accumulate_nominal = trainer.accumulate  # warm-up ramps `accumulate` itself up from 1


def _follow(trainer: GuardedTrainer, guard: StepGuard, event: str) -> None:
    match event:
        case "on_train_epoch_start":
            guard.begin_epoch(trainer.points.epoch_begins())
            trainer.session.phase("training")
            trainer._batch_ended = time.perf_counter()
        case "on_train_batch_start":
            trainer._batch_began = time.perf_counter()
        case "on_train_batch_end":
            _batch_end(trainer, guard)
        case "on_train_epoch_end" if trainer._going_on:
            trainer._going_on.epoch_ends()
        case "on_fit_epoch_end" if not trainer._epochs_over:
            try:
                trainer.epoch_end.agree()
            except TrainingDiverged as diverged:
                if not diverged.goes_back:
                    raise
                guard.go_back()
        case "on_train_end":
            trainer.session.phase("ending")


def _batch_end(trainer: GuardedTrainer, guard: StepGuard) -> None:
    seen = _reporting(trainer, guard, guard.end_batch)
    _ = trainer.tloss  # ranks without a progress line take the batch into the mean here
    if not trainer._reported_in_effect and trainer.session.first:
        trainer._reported_in_effect = True
        trainer.session.recorder.event("in_effect", **values_in_effect(trainer))
    _report_step(trainer, guard, seen)
    trainer.points.batch_ended(seen.point_due)
    if seen.asked_to_stop:
        raise trainer.epoch_end.stop()
    if seen.asked_to_go_back:
        trainer.rewind.as_asked()


def _reporting(trainer: GuardedTrainer, guard: StepGuard, part: Callable[[], Answer]) -> Answer:
    """Do a part of a batch; the batch that ends the training gets its row of telemetry too."""
    try:
        return part()
    except TrainingDiverged:
        _report_step(trainer, guard, guard.probe())
        raise


def _report_step(trainer: GuardedTrainer, guard: StepGuard, seen: BatchProbe) -> None:
    batch, now = trainer._batch, time.perf_counter()
    waited = trainer._batch_began - trainer._batch_ended
    seconds, trainer._batch_ended = now - trainer._batch_ended, now
    images = batch["img"].shape[0] * max(world_size(), 1)
    place = time.time(), guard.epoch, trainer.session.progress.step, len(trainer.train_loader)
    rate = ultralytics_api.rate_of_weights(trainer.optimizer)
    size, instances = int(batch["img"].shape[-1]), ultralytics_api.instances(batch)
    trainer.session.recorder.step(
        seen.names, (*place, int(guard.skipped), guard.reason(seen)), seen.losses,
        (seen.norm, rate, seen.scale, seconds, images / seconds, instances, size, waited),
    )  # fmt: skip

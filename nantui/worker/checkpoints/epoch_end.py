"""The end of an epoch: check the validation, save or refuse to, and agree with the other ranks.

Only the first rank validates and saves. What it finds is passed on at one fixed point that every rank
reaches (`on_fit_epoch_end`), so that all of them end together or none.
"""

from __future__ import annotations

import contextlib
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nantui.run.attempts import PREEMPTED_CODE
from nantui.run.documents import JsonObject
from nantui.run.incidents import INCIDENTS, OBSERVED, WARNED
from nantui.words import count
from nantui.worker import distributed, ultralytics_api
from nantui.worker.autopsy.autopsy import OVERFLOW, examine_validation, safely
from nantui.worker.checkpoints import save
from nantui.worker.guard.incident_policy import IncidentPolicy
from nantui.worker.incident import Incident, TrainingStopped
from nantui.worker.points.step_points import StepPoints
from nantui.worker.session import Session
from nantui.worker.ultralytics_types import RunningTrainer
from nantui.worker.validation_precision import Validation, non_finite

if TYPE_CHECKING:
    from nantui.worker.faults import Faults

Metrics = dict[str, object]
NAN_VALIDATION, SAVE_FAILED = "nan_validation", "save_failed"
CODES = ("", NAN_VALIDATION, "nan_ema", SAVE_FAILED)
"""What the ranks tell each other, by its place; the last that any of them has counts."""


class SavingTrainer(RunningTrainer, Protocol):
    """A guarded trainer, with what the end of its epochs depends on."""

    faults: Faults | None
    validation: Validation
    points: StepPoints

    def stock_save(self) -> bool | None: ...


class EpochEndChecks:
    """Follows one trainer's epochs."""

    def __init__(self, trainer: SavingTrainer, session: Session, incident_policy: IncidentPolicy) -> None:
        self.trainer, self.session, self.incident_policy = trainer, session, incident_policy
        self._trouble = self._why = self._ill = ""
        self._finite, self._news, self._unsound, self._clamped = True, False, False, False
        self._began = time.time()
        self._lines: list[tuple[int, Metrics]] = []
        options = session.options
        self._points = save.RestorePoints(
            session.layout, options.restore_every_minutes, options.keep_restore_points
        )

    def validated(self, metrics: Metrics | None) -> None:
        """Look at what validation gave (None on all ranks but the first)."""
        if not self.session.options.watches or metrics is None:
            return
        bad = non_finite(metrics)
        self._finite = not bad
        if not bad:
            self._ill = ""
        elif not self._weights_are_bad():
            self._trouble, self._why = NAN_VALIDATION, ", ".join(bad[:4])
            self._look_into_it()

    def _look_into_it(self) -> None:
        """Find out once, while it lasts, what makes a validation of finite weights not finite."""
        news = not self._ill
        if news:
            finding = safely(examine_validation, self.trainer)
            self.session.recorder.event("autopsy", **asdict(finding), of_rank=self.session.rank)
            self._ill, self._news = finding.cause, True
            self._why += f" ({finding.text})"
        if self._ill == OVERFLOW and not self.session.options.protects:
            self._trouble = ""  # half precision is to blame; who only observes does not validate again
            if news:
                self.session.warn("validation_overflow", f"the validation overflowed fp16: {self._why}")

    def save(self) -> bool:
        """Save, unless the state is bad and the guard protects; a failed save costs the file, not the run."""
        if self._refuses():
            return False
        trainer, due = self.trainer, self._is_due()
        period = 1 if due else trainer.save_period  # `save_model` writes epochN.pt when it divides the epoch
        try:
            with ultralytics_api.replaced(trainer, "save_period", period):
                saved = save.save_staged(trainer, trainer.stock_save, self._judge)
        except save.Unsound:
            return False
        except (OSError, zipfile.BadZipFile) as error:
            self._say_not_saved(trainer.last, error)
            if trainer.epoch + 1 >= trainer.epochs:
                self._trouble, self._why = SAVE_FAILED, str(error)
            return False
        names, clean = [path.name for path in saved], self.session.options.watches and not self._trouble
        deleted = self._points.saved(names, due, clean)
        paths = [f"weights/{name}" for name in names]
        extra: dict[str, object] = {"by_the_clock": True, "deleted": deleted} if due else {}
        self.session.recorder.event("saved", paths=paths, epoch=trainer.epoch + 1, **extra)
        return bool(saved)

    def _say_not_saved(self, path: Path, error: Exception, why: str = "") -> None:
        text = f"{why}{type(error).__name__}: {error}"
        self.session.recorder.event("save_failed", path=str(path), text=text)

    def write_line(self, metrics: Metrics, stock_write: Callable[[Metrics], None]) -> None:
        """Write the epoch's line of results.csv, after those that the disk has refused so far.

        A part of a line that came onto the disk is taken off it again: the next would be written behind it.
        """
        path = self.session.layout.results_csv
        self._lines.append((self.trainer.epoch, metrics))
        while self._lines:
            epoch, line = self._lines[0]
            size = path.stat().st_size if path.exists() else 0
            try:
                with ultralytics_api.replaced(self.trainer, "epoch", epoch):
                    stock_write(line)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.truncate(path, size)
                self._say_not_saved(path, error)
                return
            del self._lines[0]

    def _judge(self, file: Path, older: Path) -> None:
        """Look at what is about to be saved, and say so where it is not sound, once while that lasts.

        Raises Unsound when protecting: the files before it stay, and the training goes on.
        """
        if not self.session.options.watches:
            return
        try:
            clamped = save.refuse_unsound(file, older)
        except save.Unsound as unsound:
            protects = self.session.options.protects
            if not self._unsound:
                kept = "the files saved before it are kept" if protects else "it is saved all the same"
                self._say_of("unsound_save", f"{unsound}; {kept}", WARNED if protects else OBSERVED)
            self._unsound = True
            if protects:
                raise
            return
        self._unsound = False
        if clamped and not self._clamped:
            what = f"{count(len(clamped), 'tensor')}, first {clamped[0]}, beyond fp16, in which it is saved"
            text = f"{file.name} is not quite the network that was validated: {what}"
            self.session.warn("saved_beyond_half", text, tensors=clamped[:10])
        self._clamped = bool(clamped)

    @contextlib.contextmanager
    def stripping(self) -> Iterator[None]:
        """While this lasts, the final `strip_optimizer` cannot tear; where it fails the file stays whole."""

        def strip(stock: save.Strip, file: str | Path, s: str = "", updates: object = None) -> JsonObject:
            def stripped(*words: object, **options: object) -> JsonObject:
                written = stock(*words, **options)
                if self.trainer.faults:
                    self.trainer.faults.on_save(self.trainer, "strip_failure")
                return written

            try:
                return save.strip_staged(stripped, file, s, updates, self.session.options.protects)
            except (OSError, zipfile.BadZipFile, save.Unsound) as error:
                self._say_not_saved(Path(file), error, "not stripped, it keeps its training state: ")
                return {}

        with ultralytics_api.replaced_strip(strip):
            yield

    def _is_due(self) -> bool:
        """Tell whether this epoch leaves a restore point of ours: by the clock, or on probation after a
        recovery; what Ultralytics keeps anyway (`epoch % save_period == 0`) is not ours to delete later.
        """
        trainer, attempt = self.trainer, self.session.attempt
        if trainer.save_period > 0 and trainer.epoch % trainer.save_period == 0:
            return False
        return self._points.due() or trainer.epoch - trainer.start_epoch < attempt.probation_epochs

    def _refuses(self) -> bool:
        """Tell whether saving now would keep a bad state."""
        options = self.session.options
        if not options.watches:
            return False
        bad = self._weights_are_bad() or (self._trouble == NAN_VALIDATION and options.ends_on_suspicion)
        return bad and options.protects

    def _weights_are_bad(self) -> bool:
        """Tell whether the averaged weights are not finite, which ends a training that is protected."""
        bad = ultralytics_api.non_finite_state(self.trainer.ema.ema)
        if bad:
            self._trouble, self._why = "nan_ema", f"{count(len(bad), 'tensor')}, first {bad[0]}"
        return bool(bad)

    def agree(self) -> None:
        """The fixed point of all ranks at an epoch's end.

        Raises TrainingDiverged, OSError for a lost last save.
        """
        trainer, now = self.trainer, time.time()
        seconds, self._began = now - self._began, now
        fields = {"validated_in": "fp32"} if trainer.validation.repeated else {}
        self.session.recorder.event(
            "epoch", epoch=trainer.epoch + 1, seconds=seconds, finite=self._finite, **fields
        )
        trouble = CODES[int(distributed.agree(trainer.device, float(CODES.index(self._trouble)))[0])]
        why, self._trouble, self._why, self._finite = self._why, "", "", True
        options = self.session.options
        if trouble == SAVE_FAILED:
            raise OSError(f"the last checkpoint could not be saved ({why}); the one before it is whole")
        if trouble == NAN_VALIDATION and options.protects and not options.ends_on_suspicion:
            if self._news:
                self._say_of(NAN_VALIDATION, f"{why}; the weights are finite")
            self._news = False
        elif trouble:
            step = self.session.progress.step or 0
            self.incident_policy.end(trouble, trainer.epoch + 1, step, why, {"epoch": trainer.epoch + 1})

    def _say_of(self, kind: str, what: str, action: str = WARNED) -> None:
        epoch, step = self.trainer.epoch + 1, self.session.progress.step or 0
        text = f"{INCIDENTS[kind].said}: {what}, the training goes on"
        self.session.report(Incident(kind, epoch, step, action, text, {"epoch": epoch}))

    def stop(self) -> TrainingStopped:
        """All ranks agreed to stop after this batch: the first leaves a stop point. Returns what to raise."""
        ended = self._stopped(at_the_batch=True)
        try:
            distributed.wait_for_all(self.trainer.device)
        except RuntimeError:  # another rank was killed meanwhile: what is kept is kept
            ended.alone = True
        return ended

    def stopped_alone(self, error: Exception, between: bool) -> TrainingStopped:
        """Return how a rank ends that was told to, and whose next batch cannot be had any more: its loader's
        workers, or the other ranks, were told before. The first leaves a stop point, without a collective;
        at the batch, where this is `between` two batches.
        """
        ended = self._stopped(at_the_batch=between and not distributed.together())
        ended.text += f" ({type(error).__name__}: {error})"
        ended.alone = True
        return ended

    def _stopped(self, at_the_batch: bool) -> TrainingStopped:
        progress = self.session.progress
        self.session.recorder.event("stopping", epoch=progress.epoch, step=progress.step)
        point = self.trainer.points.part() if at_the_batch else None
        ended = self._leave_stop_point(point) if self.session.first else TrainingStopped("stopped as asked")
        if self.session.told:
            ended.code = PREEMPTED_CODE
        return ended

    def _leave_stop_point(self, point: JsonObject | None) -> TrainingStopped:
        trainer, path = self.trainer, self.session.layout.stop_point
        if self.session.options.watches and ultralytics_api.non_finite_state(trainer.ema.ema):
            return TrainingStopped(
                "stopped as asked; the averaged weights are not finite, so nothing was saved"
            )
        try:
            at_the_batch = point and trainer.points.write_now(path, point)
            if not at_the_batch:
                save.write_stop_point(trainer, trainer.stock_save, path, self._judge)
        except save.Unsound as unsound:
            return TrainingStopped(f"stopped as asked; nothing was saved, it would not be sound: {unsound}")
        except (OSError, zipfile.BadZipFile) as error:
            self._say_not_saved(path, error)
            return TrainingStopped(f"stopped as asked; the stop point could not be saved ({error})")
        name, epoch = f"weights/{path.name}", trainer.epoch + 1
        self.session.recorder.event("saved", paths=[name], epoch=trainer.epoch)
        if point and at_the_batch:
            text = f"stopped in epoch {epoch} after batch {point['batch']}; a resume goes on there"
        elif epoch == 1:
            text = "stopped inside the first epoch: nothing to resume, a restart can use these weights"
        else:
            text = f"stopped in epoch {epoch}, which a resume repeats from the advanced weights"
        return TrainingStopped(text, name, resumable=bool(at_the_batch) or epoch > 1)

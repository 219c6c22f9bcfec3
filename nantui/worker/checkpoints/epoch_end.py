"""The end of an epoch: check the validation, save or refuse to, and agree with the other ranks.

Only the first rank validates and saves. What it finds is passed on at one fixed point that every rank
reaches (`on_fit_epoch_end`), so that all of them end together or none.
"""

from __future__ import annotations

import contextlib
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nantui.run.attempts import PREEMPTED_CODE
from nantui.run.incidents import INCIDENTS, OBSERVED, WARNED
from nantui.words import count
from nantui.worker import distributed, ultralytics_api
from nantui.worker.autopsy.autopsy import OVERFLOW, examine_validation
from nantui.worker.checkpoints.save import (
    RestorePoints,
    Strip,
    Unsound,
    refuse_unsound,
    save_staged,
    strip_staged,
    write_stop_point,
)
from nantui.worker.guard.incident_policy import IncidentPolicy
from nantui.worker.incident import Incident, TrainingStopped
from nantui.worker.points.step_points import StepPoints
from nantui.worker.session import Session
from nantui.worker.ultralytics_types import Trainer
from nantui.worker.ultralytics_validation import beyond_half
from nantui.worker.validation_precision import Validation, non_finite

if TYPE_CHECKING:
    from nantui.worker.faults import Faults

Metrics = dict[str, object]
CODES = {0: "", 1: "nan_validation", 2: "nan_ema", 3: "save_failed"}


class SavingTrainer(Trainer, Protocol):
    """A guarded trainer, with what the end of its epochs depends on."""

    session: Session
    faults: Faults | None
    validation: Validation
    points: StepPoints | None


class EpochEndChecks:
    """Follows one trainer's epochs."""

    def __init__(self, trainer: SavingTrainer, session: Session, incident_policy: IncidentPolicy) -> None:
        self.trainer, self.session, self.incident_policy = trainer, session, incident_policy
        self._trouble, self._why = 0, ""
        self._finite, self._ill, self._news = True, "", False
        self._unsound = False
        self._beyond_half: list[str] = []
        self._began = time.time()
        options = session.options
        self._points = RestorePoints(
            session.layout, options.restore_every_minutes, options.keep_restore_points
        )

    def validated(self, metrics: dict[str, object] | None, fitness: float | None) -> None:
        """Look at what validation gave (None on all ranks but the first)."""
        if not self.session.options.watches or metrics is None:
            return
        bad = non_finite(metrics)
        self._finite = not bad
        if not bad:
            self._ill = ""
        elif not self._weights_are_bad():
            self._trouble, self._why = 1, ", ".join(bad[:4])
            self._look_into_it()

    def _look_into_it(self) -> None:
        """Find out once, while it lasts, what makes a validation of finite weights not finite."""
        news = not self._ill
        if news:
            finding = examine_validation(self.trainer)
            self.session.recorder.event("autopsy", **asdict(finding), of_rank=self.session.rank)
            self._ill, self._news = finding.cause, True
            self._why += f" ({finding.text})"
        if self._ill == OVERFLOW and not self.session.options.protects:
            self._trouble = 0  # half precision is to blame; who only observes does not validate again
            if news:
                self.session.warn("validation_overflow", f"the validation overflowed fp16: {self._why}")

    def save(self, stock_save: Callable[[], bool]) -> bool:
        """Save, unless the state is bad and the guard protects; a failed save costs the file, not the run."""
        if self._refuses():
            return False
        faults, due = self.trainer.faults, self._is_due()

        def before_rename() -> None:
            if faults:
                faults.on_save(self.trainer)

        try:
            with self._points.kept(self.trainer, due):
                saved = save_staged(self.trainer, stock_save, before_rename, self._judge)
        except Unsound:
            return False
        except (OSError, zipfile.BadZipFile) as error:
            path = str(self.trainer.last)
            self.session.recorder.event("save_failed", path=path, text=f"{type(error).__name__}: {error}")
            if self.trainer.epoch + 1 >= self.trainer.epochs:
                self._trouble, self._why = 3, str(error)
            return False
        self._report_saved([path.name for path in saved], due)
        return bool(saved)

    def write_lines(
        self, lines: Sequence[tuple[int, Metrics]], stock_write: Callable[[Metrics], None]
    ) -> tuple[tuple[int, Metrics], ...]:
        """Write lines of results.csv, (epoch from 0, metrics) each; returns those that the disk refused.

        A part of a line that came onto the disk is taken off it again: the next would be written behind it.
        """
        path, now = self.session.layout.results_csv, self.trainer.epoch
        for index, (epoch, metrics) in enumerate(lines):
            size = path.stat().st_size if path.exists() else 0
            self.trainer.epoch = epoch
            try:
                stock_write(metrics)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.truncate(path, size)
                self.session.recorder.event(
                    "save_failed", path=str(path), text=f"{type(error).__name__}: {error}"
                )
                return tuple(lines[index:])
            finally:
                self.trainer.epoch = now
        return ()

    def _judge(self, file: Path, older: Path) -> None:
        """Look at what is about to be saved, and say so where it is not sound, once while that lasts.

        Raises Unsound when protecting: the files before it stay, and the training goes on.
        """
        if not self.session.options.watches:
            return
        try:
            refuse_unsound(file, older)
        except Unsound as unsound:
            protects, epoch = self.session.options.protects, self.trainer.epoch + 1
            if not self._unsound:
                kept = "the files saved before it are kept" if protects else "it is saved all the same"
                text = f"{INCIDENTS['unsound_save'].said}: {unsound}; {kept}, the training goes on"
                step = self.session.progress.step or 0
                action = WARNED if protects else OBSERVED
                self.session.report(Incident("unsound_save", epoch, step, action, text, {"epoch": epoch}))
            self._unsound = True
            if protects:
                raise
        else:
            self._unsound = False

    @contextlib.contextmanager
    def stripping(self) -> Iterator[None]:
        """While this lasts, the final `strip_optimizer` cannot tear; where it fails the file stays whole."""
        faults = self.trainer.faults

        def before_rename() -> None:
            if faults:
                faults.on_save(self.trainer, "strip_failure")

        def strip(stock: Strip, file: str | Path, s: str = "", updates: object = None) -> dict[str, object]:
            try:
                return strip_staged(stock, file, s, updates, before_rename)
            except (OSError, zipfile.BadZipFile) as error:
                text = f"not stripped, it keeps its training state: {type(error).__name__}: {error}"
                self.session.recorder.event("save_failed", path=str(file), text=text)
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

    def _report_saved(self, names: list[str], due: bool) -> None:
        epoch, clean = self.trainer.epoch + 1, self.session.options.watches and self._trouble == 0
        deleted = self._points.saved(names, due, clean)
        paths = [f"weights/{name}" for name in names]
        extra: dict[str, object] = {"by_the_clock": True, "deleted": deleted} if due else {}
        if self.session.options.watches and paths:
            extra.update(self._told_apart(paths))
        self.session.recorder.event("saved", paths=paths, epoch=epoch, **extra)

    def _told_apart(self, paths: list[str]) -> dict[str, object]:
        """Say where a file, which is in fp16, cannot hold all of the network that was validated."""
        before, self._beyond_half = self._beyond_half, beyond_half(self.trainer.ema.ema)
        names = self._beyond_half
        if names and not before:
            what = f"values of {len(names)} tensors (first {names[0]}) are beyond fp16"
            text = f"{paths[0]} is not quite the network that was validated: {what}, in which it is saved"
            self.session.warn("saved_beyond_half", text, tensors=names[:10], paths=paths)
        return {"beyond_half": names[:10]} if names else {}

    def _refuses(self) -> bool:
        """Tell whether saving now would keep a bad state."""
        options = self.session.options
        if not options.watches:
            return False
        bad = self._weights_are_bad() or (self._trouble == 1 and options.ends_on_suspicion)
        return bad and options.protects

    def _weights_are_bad(self) -> bool:
        """Tell whether the averaged weights are not finite, which ends a training that is protected."""
        bad = ultralytics_api.non_finite_state(self.trainer.ema.ema)
        if bad:
            self._trouble, self._why = 2, f"{count(len(bad), 'tensor')}, first {bad[0]}"
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
        code = int(distributed.agree(trainer.device, float(self._trouble))[0])
        why, self._trouble, self._why, self._finite = self._why, 0, "", True
        if CODES[code] == "save_failed":
            raise OSError(f"the last checkpoint could not be saved ({why}); the one before it is whole")
        options = self.session.options
        if CODES[code] == "nan_validation" and options.protects and not options.ends_on_suspicion:
            self._say_of_validation(why)
        elif code:
            step = self.session.progress.step or 0
            self.incident_policy.end(CODES[code], trainer.epoch + 1, step, why, {"epoch": trainer.epoch + 1})

    def _say_of_validation(self, why: str) -> None:
        """The weights are finite, so training goes on; the first rank says it, once while it lasts."""
        news, self._news = self._news, False
        if news:
            text = (
                f"{INCIDENTS['nan_validation'].said}: {why}; the weights are finite, so the training goes on"
            )
            epoch, step = self.trainer.epoch + 1, self.session.progress.step or 0
            self.session.report(Incident("nan_validation", epoch, step, WARNED, text, {"epoch": epoch}))

    def stop(self, stock_save: Callable[[], bool]) -> None:
        """All ranks agreed to stop after this batch: the first leaves a stop point.

        Raises TrainingStopped.
        """
        trainer, progress = self.trainer, self.session.progress
        self.session.recorder.event("stopping", epoch=progress.epoch, step=progress.step)
        checkpoint, text, resumable = None, "stopped as asked", False
        point = trainer.points.part() if trainer.points else None
        if self.session.first:
            checkpoint, text, resumable = self._leave_stop_point(stock_save, point)
        distributed.wait_for_all(trainer.device)
        raise self._stopped(text, checkpoint, resumable)

    def stopped_alone(
        self, stock_save: Callable[[], bool], error: Exception, between: bool
    ) -> TrainingStopped:
        """Return how a rank ends that was told to, and whose next batch cannot be had any more: its loader's
        workers, or the other ranks, were told before. The first leaves a stop point, without a collective;
        at the batch, where this is `between` two batches.
        """
        progress = self.session.progress
        self.session.recorder.event("stopping", epoch=progress.epoch, step=progress.step)
        points = self.trainer.points
        point = points.part() if points and between and not distributed.together() else None
        checkpoint, text, resumable = None, "stopped", False
        if self.session.first:
            checkpoint, text, resumable = self._leave_stop_point(stock_save, point)
        ended = self._stopped(f"{text} ({type(error).__name__}: {error})", checkpoint, resumable)
        ended.alone = True
        return ended

    def _stopped(self, text: str, checkpoint: str | None, resumable: bool) -> TrainingStopped:
        ended = TrainingStopped(text, checkpoint, resumable)
        if self.session.told:
            ended.code = PREEMPTED_CODE
        return ended

    def _leave_stop_point(
        self, stock_save: Callable[[], bool], point: dict[str, Any] | None
    ) -> tuple[str | None, str, bool]:
        """Write the stop point; returns its name in the run or None, what to tell, and if a resume can."""
        trainer, path = self.trainer, self.session.layout.stop_point
        if self.session.options.watches and ultralytics_api.non_finite_state(trainer.ema.ema):
            return None, "stopped as asked; the averaged weights are not finite, so nothing was saved", False
        try:
            at_the_batch = point and trainer.points and trainer.points.write_now(path, point)
            if not at_the_batch:
                write_stop_point(trainer, stock_save, path, self._judge)
        except Unsound as unsound:
            return None, f"stopped as asked; nothing was saved, it would not be sound: {unsound}", False
        except (OSError, zipfile.BadZipFile) as error:
            self.session.recorder.event("save_failed", path=str(path), text=str(error))
            return None, f"stopped as asked; the stop point could not be saved ({error})", False
        name, epoch = f"weights/{path.name}", trainer.epoch + 1
        self.session.recorder.event("saved", paths=[name], epoch=trainer.epoch)
        if point and at_the_batch:
            text = f"stopped in epoch {epoch} after batch {point['batch']}; a resume goes on there"
            return name, text, True
        if epoch == 1:
            text = "stopped inside the first epoch: nothing to resume, a restart can use these weights"
            return name, text, False
        return name, f"stopped in epoch {epoch}, which a resume repeats from the advanced weights", True

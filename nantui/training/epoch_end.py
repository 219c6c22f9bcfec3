"""The end of an epoch: judge the validation, save or refuse to, and agree with the other ranks.

Only the first rank validates and saves. What it finds is passed on at one fixed point that every rank
reaches (`on_fit_epoch_end`), so that all of them end together or none.
"""

from __future__ import annotations

import contextlib
import math
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from nantui.training import ranks, touchpoints
from nantui.training.ends import Stopped
from nantui.training.judge import Judge
from nantui.training.restore_points import RestorePoints
from nantui.training.saves import save_staged, strip_staged
from nantui.training.session import Session
from nantui.training.stop_point import write_stop_point
from nantui.training.validation_autopsy import examine_validation

CODES = {0: "", 1: "nan_validation", 2: "nan_ema", 3: "save_failed"}


class EpochEnd:
    """Follows one trainer's epochs."""

    def __init__(self, trainer: Any, session: Session, judge: Judge) -> None:
        self.trainer, self.session, self.judge = trainer, session, judge
        self._trouble, self._why = 0, ""
        self._finite = True
        self._began = time.time()
        options = session.options
        self._points = RestorePoints(
            session.layout, options.restore_every_minutes, options.keep_restore_points
        )

    def validated(self, metrics: dict[str, Any] | None, fitness: float | None) -> None:
        """Look at what validation gave (None on all ranks but the first)."""
        if not self.session.options.watches or metrics is None:
            return
        bad = sorted(name for name, value in metrics.items() if not math.isfinite(value))
        self._finite = not bad
        if bad:
            self._trouble, self._why = 1, f"{', '.join(bad[:4])} in epoch {self.trainer.epoch + 1}"
            if self.judge.is_news(CODES[1]):
                finding = examine_validation(self.trainer)
                self.session.recorder.event("autopsy", **asdict(finding), of_rank=self.session.rank)

    def save(self, stock_save: Callable[[], bool]) -> bool:
        """Save, unless the state is bad and the guard protects; a failed save costs the file, not the run."""
        if self._refuses():
            return False
        faults, due = self.trainer.faults, self._is_due()
        try:
            with self._points.kept(self.trainer, due):
                saved = save_staged(self.trainer, stock_save, lambda: faults and faults.on_save(self.trainer))
        except (OSError, zipfile.BadZipFile) as error:
            path = str(self.trainer.last)
            self.session.recorder.event("save_failed", path=path, text=f"{type(error).__name__}: {error}")
            if self.trainer.epoch + 1 >= self.trainer.epochs:
                self._trouble, self._why = 3, str(error)
            return False
        self._report_saved([path.name for path in saved], due)
        return bool(saved)

    @contextlib.contextmanager
    def stripping(self) -> Iterator[None]:
        """While this lasts, the final `strip_optimizer` cannot tear; where it fails the file stays whole."""
        faults = self.trainer.faults

        def strip(stock: Callable[..., Any], file: Any, *args: Any, **options: Any) -> Any:
            options["before_rename"] = lambda: faults and faults.on_save(self.trainer, "strip_failure")
            try:
                return strip_staged(stock, file, *args, **options)
            except (OSError, zipfile.BadZipFile) as error:
                text = f"not stripped, it keeps its training state: {type(error).__name__}: {error}"
                self.session.recorder.event("save_failed", path=str(file), text=text)
                return {}

        with touchpoints.replaced_strip(strip):
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
        extra = {"by_the_clock": True, "deleted": deleted} if due else {}
        self.session.recorder.event("saved", paths=paths, epoch=epoch, **extra)

    def _refuses(self) -> bool:
        """Tell whether saving now would keep a bad state."""
        if not self.session.options.watches:
            return False
        bad = touchpoints.non_finite_state(self.trainer.ema.ema)
        if bad:
            self._trouble, self._why = 2, f"{len(bad)} tensors, first {bad[0]}"
        return self._trouble in (1, 2) and self.session.options.protects

    def agree(self) -> None:
        """The fixed point of all ranks at an epoch's end. Raises Diverged, OSError for a lost last save."""
        trainer, now = self.trainer, time.time()
        seconds, self._began = now - self._began, now
        self.session.recorder.event("epoch", epoch=trainer.epoch + 1, seconds=seconds, finite=self._finite)
        code = int(ranks.agree(trainer.device, float(self._trouble))[0])
        why, self._trouble, self._why, self._finite = self._why, 0, "", True
        if CODES[code] == "save_failed":
            raise OSError(f"the last checkpoint could not be saved ({why}); the one before it is whole")
        if code:
            step = self.session.progress.step or 0
            self.judge.end(CODES[code], trainer.epoch + 1, step, why, {"epoch": trainer.epoch + 1})

    def stop(self, stock_save: Callable[[], bool]) -> None:
        """All ranks agreed to stop after this batch: the first leaves a stop point. Raises Stopped."""
        trainer, progress = self.trainer, self.session.progress
        self.session.recorder.event("stopping", epoch=progress.epoch, step=progress.step)
        checkpoint, resumable, text = None, False, "stopped as asked"
        if self.session.first:
            checkpoint, text = self._leave_stop_point(stock_save)
            resumable = checkpoint is not None and trainer.epoch > 0
        ranks.wait_for_all(trainer.device)
        raise Stopped(text, checkpoint, resumable)

    def _leave_stop_point(self, stock_save: Callable[[], bool]) -> tuple[str | None, str]:
        """Write the stop point; returns its name in the run, or None, and what to tell."""
        trainer, path = self.trainer, self.session.layout.stop_point
        if self.session.options.watches and touchpoints.non_finite_state(trainer.ema.ema):
            return None, "stopped as asked; the averaged weights are not finite, so nothing was saved"
        try:
            write_stop_point(trainer, stock_save, path)
        except (OSError, zipfile.BadZipFile) as error:
            self.session.recorder.event("save_failed", path=str(path), text=str(error))
            return None, f"stopped as asked; the stop point could not be saved ({error})"
        name = f"weights/{path.name}"
        self.session.recorder.event("saved", paths=[name], epoch=trainer.epoch)
        if trainer.epoch == 0:
            return name, "stopped inside the first epoch: nothing to resume, a restart can use these weights"
        return name, f"stopped in epoch {trainer.epoch + 1}, which a resume repeats from the advanced weights"

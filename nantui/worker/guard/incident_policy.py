"""What a batch means: an incident, a warning, or the end. Reports it and says what to do.

Everything here is taken from a `BatchProbe`, whose verdicts are the same on every rank, so all ranks come to
the same conclusion; only the first rank writes it down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from nantui.run.incidents import EARLY_WARNINGS, ENDED, INCIDENTS, OBSERVED, REWOUND, SKIPPED
from nantui.run.results import can_be_learnt_to_zero, practically_zero
from nantui.words import count
from nantui.worker.guard.anomaly import CALM, GREW, GREW_FP16, Distribution, Explosion, Growth, Skips, Trend
from nantui.worker.guard.batch_probe import BatchProbe
from nantui.worker.incident import Incident, TrainingDiverged
from nantui.worker.options import Options

FOREWARNED = 500  # batches for which an early warning counts as one, and brings one step point at most
CONSEQUENCES = {
    SKIPPED: "the step was skipped and nothing of it kept",
    OBSERVED: "only observed: the guard does not protect in this mode",
    ENDED: "the training was ended, nothing was saved from this state",
    REWOUND: "nothing was saved from this state",
}


def incident_kind(probe: BatchProbe) -> str | None:
    """Return the kind of incident that a batch shows, None for a healthy one."""
    if probe.scaler_at_work:
        return None
    if probe.bad_loss:
        return "nan_loss"
    if probe.bad_norm:
        return "nan_gradient"
    return "nan_buffer" if probe.bad_buffers else None


class IncidentPolicy:
    """Follows a run batch by batch and reports what is wrong with it."""

    def __init__(
        self, options: Options, report: Callable[[Incident], None], warn: Callable[..., None]
    ) -> None:
        """`warn(kind, text, **evidence)` is told of what is not an incident yet."""
        self.options = options
        self.suspicion = 1.0
        self.first_sign = (0, 0)
        self.way_back: Callable[[str], str] = lambda kind: ""
        self.keep_now: Callable[[], None] = lambda: None
        self._since_sign = math.inf
        self._report, self._warn = report, warn
        self._explosion = Explosion(options.loss_limit, options.loss_patience)
        self._usual = Distribution()
        self._trend, self._growth = Trend(options.loss_limit / 2), Growth()
        self._batches, self._kept_at = 0, -FOREWARNED
        self._first_warning: int | None = None
        self._out_since = self._here = (0, 0)
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget the trouble, once the training is back to before it; what was usual stays so."""
        options = self.options
        self._skips = Skips(options.max_consecutive_skips, options.skip_window, options.max_skip_share)
        self._explosion.in_a_row = self._zero_steps = self._steps_since_zero = 0
        self._ongoing: set[str] = set()
        self._since_sign = math.inf

    @property
    def in_trouble(self) -> bool:
        """Whether something has been wrong lately; `first_sign` is the epoch and step where it began."""
        return self._since_sign <= self.options.skip_window

    def _sign(self, epoch: int, step: int) -> None:
        """Note that something is wrong, or was, in this place."""
        self.first_sign = min(self.first_sign, (epoch, step)) if self.in_trouble else (epoch, step)
        self._since_sign = 0

    def bad_batch(self, kind: str, epoch: int, step: int, evidence: Mapping[str, object]) -> None:
        """Report a batch that must not reach the weights (protect), or has reached them (observe).

        To be called only where it `is_news`: while the same trouble goes on unprotected, it is reported once.
        """
        self._sign(epoch, step)
        action = SKIPPED if self.options.protects else OBSERVED
        self._ongoing.add(kind)
        evidence = {**evidence, **self._forewarned()}
        self._report(
            Incident(kind, epoch, step, action, f"{INCIDENTS[kind].said}; {CONSEQUENCES[action]}", evidence)
        )

    def is_news(self, kind: str) -> bool:
        """Tell whether this kind is to be reported now."""
        return self.options.protects or kind not in self._ongoing

    def end(self, kind: str, epoch: int, step: int, why: str, evidence: Mapping[str, object]) -> None:
        """Report divergence and, when protecting, end the training, or have it go back where it can.

        Raises TrainingDiverged.
        """
        protects = self.options.protects
        if not protects and kind in self._ongoing:
            return
        self._ongoing.add(kind)
        self._sign(epoch, step)
        back = self.way_back(kind) if protects else ""
        action = REWOUND if back else ENDED if protects else OBSERVED
        text = "; ".join(filter(None, [f"{INCIDENTS[kind].said}: {why}", CONSEQUENCES[action], back]))
        incident = Incident(kind, epoch, step, action, text, {**evidence, **self._forewarned()})
        self._report(incident)
        if protects:
            raise TrainingDiverged(incident)

    def optimizer_step(self, skipped: bool, epoch: int, step: int) -> None:
        """Count a step; too many skipped ones are divergence. Raises TrainingDiverged."""
        why = self._skips.add(skipped)
        if why is not None:
            counts = {"in_a_row": self._skips.in_a_row, "total": self._skips.total}
            self.end("too_many_skips", epoch, step, why, counts)

    def healthy_batch(self, probe: BatchProbe, epoch: int, step: int) -> None:
        """Follow losses, statistics and loss scale of a batch that is finite.

        Raises TrainingDiverged where asked to.
        """
        self._ongoing -= {"nan_loss", "nan_gradient", "nan_buffer"}
        self._batches += 1
        self._since_sign += 1
        self._here = epoch, step
        self._watch_statistics(probe.statistics, probe.scale is not None)
        if not self._watch_zero(probe, epoch, step):
            self._usual.add(probe.loss)
            self._watch_trend(max(probe.loss, self._explosion.trifle))
            self._watch_loss(probe, epoch, step)
        self.watch_scale(probe, epoch, step)

    def watch_scale(self, probe: BatchProbe, epoch: int, step: int) -> None:
        """Follow the loss scale of fp16, also of a step that overflowed.

        Raises TrainingDiverged where asked to.
        """
        if probe.scale is None or probe.scale >= self.options.min_loss_scale:
            self._ongoing.discard("scale_collapsed")
            return
        why = f"{probe.scale:g} is below {self.options.min_loss_scale:g}"
        self._suspect("scale_collapsed", epoch, step, why, {"loss_scale": probe.scale})

    def _suspect(self, kind: str, epoch: int, step: int, why: str, evidence: Mapping[str, object]) -> None:
        """Say what finite numbers look like, once an episode; end (TrainingDiverged) only where asked to.

        It may be wrong: a young network that begins to assign boxes looks like one whose loss explodes.
        """
        if self.options.ends_on_suspicion:
            self.end(kind, epoch, step, why, evidence)
        elif kind not in self._ongoing:
            self._ongoing.add(kind)
            text = f"{INCIDENTS[kind].said}: {why}; the training goes on; {INCIDENTS[kind].advice}"
            self._say(kind, text, **evidence, **self._forewarned())

    def _watch_loss(self, probe: BatchProbe, epoch: int, step: int) -> None:
        suspicion = 1.0 if self.options.ends_on_suspicion else self.suspicion
        usual = self._explosion.seen.highest
        score, at_an_end = self._explosion.add(probe.loss, suspicion)
        if self._explosion.in_a_row == 1:
            self._out_since = epoch, step
        if at_an_end:
            since = "since epoch {} step {}".format(*self._out_since)
            self._sign(*self._out_since)
            why = f"{probe.loss:.4g} where at most {usual:.4g} was usual, {since}"
            evidence = {"loss": probe.loss, "usual": usual, "score": score, "since": list(self._out_since)}
            self._suspect("loss_exploded", epoch, step, why, evidence)
        elif self._explosion.calm >= CALM:
            self._ongoing.discard("loss_exploded")

    def _watch_zero(self, probe: BatchProbe, epoch: int, step: int) -> bool:
        """Say that a batch teaches some rank nothing, and where many teach no rank anything.

        Returns whether this one teaches nothing on any rank. Raises TrainingDiverged where asked to.
        """
        if can_be_learnt_to_zero(probe.names):
            return False
        everywhere = practically_zero(probe.loss, self._usual.typical)
        self._zero_steps = self._zero_steps + 1 if everywhere else 0
        still = probe.norm == 0 and not everywhere  # what is printed may be other than what is trained on
        if not (everywhere or probe.zero_loss or still):
            self._steps_since_zero += 1
            if self._steps_since_zero >= CALM:
                self._ongoing -= {"zero_batch", "zero_loss"}
            return False
        self._steps_since_zero = 0
        if self._zero_steps > self.options.max_consecutive_skips:
            evidence = {"steps": self._zero_steps}
            self._suspect("zero_loss", epoch, step, f"for {count(self._zero_steps, 'step')}", evidence)
        elif "zero_batch" not in self._ongoing:
            self._ongoing.add("zero_batch")
            whose = "" if everywhere else " on one of the ranks"
            said = "the gradient is exactly zero" if still else f"{INCIDENTS['zero_loss'].said}{whose}"
            self._say("zero_batch", f"{said}: nothing is learned from this batch")
        return everywhere

    def _watch_trend(self, loss: float) -> None:
        """Warn of a loss far outside its running distribution."""
        usual = self._trend.seen.highest
        if (score := self._trend.add(loss, self._explosion.floor)) is not None:
            self._forewarn("loss_climbing", "loss", loss, usual, score=score)

    def _watch_statistics(self, largest: float, fp16: bool) -> None:
        """Warn of BatchNorm statistics far beyond what they were when the training began."""
        times, under = (GREW_FP16, ", fp16") if fp16 else (GREW, "")
        if self._growth.add(largest, times):
            usual = self._growth.usual
            self._forewarn("statistics_climbing", "a BatchNorm statistic", largest, usual, under)

    def _forewarn(
        self, kind: str, name: str, value: float, usual: float, under: str = "", **evidence: object
    ) -> None:
        """Warn, say how sure that is, and have a step point taken, seldom."""
        text = f"{name} {value:.4g} where at most {usual:.4g} was usual; of such trainings, as measured, "
        self._say(kind, text + EARLY_WARNINGS[kind + under], value=value, usual=usual, **evidence)
        if self._batches - self._kept_at >= FOREWARNED:
            self._kept_at = self._batches
            self.keep_now()

    def _say(self, kind: str, text: str, **evidence: object) -> None:
        """Warn, and remember since when."""
        self._sign(*self._here)
        self._first_warning = self._batches
        self._warn(kind, text, **evidence)

    def _forewarned(self) -> dict[str, object]:
        """Tell how many batches ago the last early warning was, where there was one not long ago."""
        if self._first_warning is None or self._batches - self._first_warning > FOREWARNED:
            return {}
        return {"warned_steps_before": self._batches - self._first_warning + 1}

"""What helps against each cause, and what it costs this run in time and memory.

Costs come from a rollback that is planned and not carried out: epochs lost, hours left and how much longer
an epoch takes, from the run's own epoch times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from nantui.diagnosis.probabilities import CHECKPOINT, DATA, EXPLOSION, FP16, HARDWARE, RATE, SINGULAR, Ranked
from nantui.diagnosis.trouble import TroubleFacts
from nantui.errors import UserError
from nantui.settings.effective import number
from nantui.settings.gpu_memory import Measured, predict
from nantui.words import count, span, which_epochs

WORTH_ADVICE = 0.1
MOST = 3
"""Causes that are given advice, when they are at least this probable."""
CLIP_ROOM = 2.0
"""A clip value of twice what healthy steps reached leaves them alone and stops the others."""
FALLBACK_CLIP = 10.0


@dataclass(frozen=True)
class Advice:
    """One remedy: a preset (empty where none applies), settings beside it, images to leave out, and why.

    `cost` is in words; `numbers` holds what it was made of (hours, factor, GB), absent where not measured.
    """

    cause: str
    why: str
    preset: str = ""
    settings: dict[str, object] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    cost: str = ""
    numbers: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the advice as it stands in `nantui diagnose --json`."""
        return asdict(self)


def advise(facts: TroubleFacts, ranked: Sequence[Ranked]) -> list[Advice]:
    """Return remedies for the most probable causes, the first for the likeliest, with their costs."""
    likely = [cause.cause for cause in ranked[:MOST] if cause.probability >= WORTH_ADVICE]
    known = list(remedies(facts))
    return [with_cost(facts, advice) for cause in likely for advice in known if advice.cause == cause]


def remedies(facts: TroubleFacts) -> Iterator[Advice]:
    """Yield what helps against each cause in this run."""
    clip, images = clip_value(facts), blamed_images(facts)
    why = f"a lower rate and smaller gains; gradients clipped at {clip:g}, where healthy steps are left alone"
    yield Advice(EXPLOSION, why, "recover", {"grad_clip": clip})
    yield Advice(RATE, "a learning rate at which no step moves the weights by their own size", "gentle-lr")
    if images:
        why = f"leave {count(len(images), 'named image')} out: nantui labels RUN --leave-out IMAGE"
        yield Advice(DATA, why, images=images)
    else:
        yield Advice(DATA, "look for the images: nantui labels RUN --images, then again with --quarantine")
    if any(number(facts.settings.get(name)) > 0 for name in ("mixup", "copy_paste")):
        yield Advice(DATA, "weaker augmentation, as the guide keeps it after a NaN", "nan-safe")
    yield Advice(FP16, "bfloat16 has fp32's range: nothing overflows, and it costs little time", "bf16")
    why = "where the GPU has no bfloat16: fp32, which is slower and takes about twice the memory"
    yield Advice(FP16, why, settings={"amp": False})
    yield Advice(CHECKPOINT, "go back to an older, clean checkpoint: nantui recover RUN; settings can stay")
    why = "no setting mends it: look for a division, logarithm or root of zero in the loss; add an epsilon"
    yield Advice(SINGULAR, why)
    why = "the step was skipped; if it comes back, test the GPU's memory (nvidia-smi -q -d ECC)"
    yield Advice(HARDWARE, why)


def clip_value(facts: TroubleFacts) -> float:
    """Return a clip value from the healthy steps' gradient norms, never above what is in effect."""
    norms = sorted(norm for step in facts.before if math.isfinite(norm := step.value("grad_norm")))
    usual = CLIP_ROOM * norms[int(0.9 * (len(norms) - 1))] if norms else FALLBACK_CLIP
    now = number(facts.settings.get("grad_clip"))
    most = now if now > 0 else FALLBACK_CLIP
    return float(f"{min(usual, most):.2g}")


def blamed_images(facts: TroubleFacts) -> tuple[str, ...]:
    """Return the images that the autopsies of the trouble name alone (a mosaic has several candidates)."""
    from nantui.recovery.ladder import guilty_images

    return tuple(dict.fromkeys(guilty_images(facts.autopsy.evidence))) if facts.autopsy else ()


def with_cost(facts: TroubleFacts, advice: Advice) -> Advice:
    """Return the advice with what it would cost this run."""
    from nantui.recovery.plan import make_plan

    presets = (advice.preset,) if advice.preset else ()
    try:
        plan = make_plan(facts.record, settings=advice.settings, presets=presets)
    except UserError as error:
        return replace(advice, cost=f"cost not known: {error}")
    costs = plan.costs
    numbers = {
        "epochs_lost": float(costs.epochs_lost), "hours_lost": costs.hours_lost,
        "hours_remaining": costs.hours_remaining, "time_factor": costs.factor,
        "memory_gb": _memory(facts, plan.in_effect, plan.settings),
    }  # fmt: skip
    known = {name: value for name, value in numbers.items() if math.isfinite(value)}
    again = f"{which_epochs(costs.lost_text)} to train again" if costs.again else "no epoch"
    return replace(advice, cost=_in_words(again, numbers), numbers=known)


def _in_words(again: str, numbers: Mapping[str, float]) -> str:
    parts = [f"costs: {again}"]
    if math.isfinite(numbers["hours_remaining"]):
        parts.append(f"{span(numbers['hours_remaining'])} left to train")
    if abs(numbers["time_factor"] - 1) > 0.01:
        parts.append(f"an epoch takes {numbers['time_factor']:.2f} times as long")
    if math.isfinite(numbers["memory_gb"]):
        parts.append(f"{numbers['memory_gb']:.3g} GB of memory")
    return ", ".join(parts)


def _memory(facts: TroubleFacts, now: Mapping[str, object], changes: Any) -> float:
    """Return the GB that the changed settings would need, from this run's own peak, or NaN."""
    from nantui.settings.values import changed

    peaks = [step.memory_peak() for step in (*facts.before, *facts.after)]
    peak, filled = max((one for one in peaks if math.isfinite(one[0])), default=(math.nan, False))
    return predict(Measured(peak, math.nan, filled=filled), now, {**now, **changed(changes)})

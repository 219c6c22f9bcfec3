"""From facts to evidence: each function looks at one thing and says what it would mean, with a written ratio.

The ratios are judgements, not measurements, and written so that they can be argued with: what is physically
impossible counts a thousandth, a direct finding a hundred or more, a hint two or three. They were set on
trainings broken on purpose and are validated on others (docs/diagnosis.md). Pieces that say the same thing
twice are one function, so that nothing counts double.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from nantui.diagnosis.evidence_autopsy import SOON, from_autopsy
from nantui.diagnosis.evidence_history import from_history
from nantui.diagnosis.facts import Facts
from nantui.diagnosis.odds import CHECKPOINT, DATA, EXPLOSION, FP16, HARDWARE, RATE, SINGULAR, Evidence

USUAL_RATE = {"SGD": 0.01, "MuSGD": 0.01}
USUAL_RATE_OF_ADAM = 0.001
"""Rates that Ultralytics (SGD: default.yaml's lr0) and PyTorch (Adam and its kin) start from."""
USUAL_GAIN = {"box": 7.5, "cls": 0.5, "dfl": 1.5}
STRONG = {
    "mixup": 0.1, "copy_paste": 0.1, "cutmix": 0.1, "hsv_h": 0.02, "hsv_s": 0.8, "hsv_v": 0.5,
    "degrees": 15.0, "shear": 5.0, "perspective": 0.001,
}  # fmt: skip
"""Augmentation beyond what the recovery guide keeps after a NaN."""
LONG_AFTER = 100


def all_evidence(facts: Facts) -> Iterator[Evidence]:
    """Yield everything that the run's own files say; the label check and checkpoints are asked elsewhere."""
    for look in LOOKS:
        yield from look(facts)


def precision(facts: Facts) -> Iterator[Evidence]:
    """fp16 can only overflow where it is used: on a GPU with amp on and not bf16."""
    amp, device = facts.settings.get("amp"), str(facts.settings.get("device") or "")
    if amp is None:
        return
    impossible = {FP16: 0.001}
    if amp == "bf16":
        yield Evidence("precision", "amp is bf16, which has fp32's range", "settings", impossible)
    elif amp in (False, "fp32"):
        yield Evidence("precision", "amp is off: nothing is computed in fp16", "settings", impossible)
    elif device == "cpu":
        yield Evidence("precision", "the run is on the CPU, where fp16 is not used", "settings", impossible)


def learning_rate(facts: Facts) -> Iterator[Evidence]:
    """The rate at the trouble, against the rate that this optimizer usually starts from."""
    rates = [step.value("lr") for step in (*facts.before[-20:], *facts.after[:1]) if step.value("lr") > 0]
    rate = max(rates, default=_number(facts.settings.get("lr0")))
    optimizer = str(facts.settings.get("optimizer") or "auto")
    if not rate > 0 or (optimizer == "auto" and not rates):
        return
    usual = USUAL_RATE.get(optimizer, USUAL_RATE_OF_ADAM)
    times = rate / usual
    ratio = _step(times, ((20, 30.0), (5, 8.0), (2, 2.5), (0.5, 0.5), (0.0, 0.2)))
    text = f"the learning rate was {rate:.3g}; {optimizer} usually starts from {usual:g} ({times:.2g} times)"
    yield Evidence("learning_rate", text, "steps.csv" if rates else "settings", {RATE: ratio})


def limits(facts: Facts) -> Iterator[Evidence]:
    """Loss gains beyond their defaults make gradients larger; without clipping nothing holds them."""
    gains = {name: _number(facts.settings.get(name)) / usual for name, usual in USUAL_GAIN.items()}
    name, times = max(gains.items(), key=lambda item: item[1] if math.isfinite(item[1]) else 0.0)
    if times >= 3:
        text = f"the loss gain {name} is {times:.3g} times its default"
        yield Evidence("loss_gain", text, "settings", {EXPLOSION: 10.0 if times >= 10 else 2.0})
    if facts.settings.get("grad_clip") == 0:
        text = "gradient clipping is off: nothing holds a large gradient"
        yield Evidence("clipping", text, "settings", {EXPLOSION: 2.0})


def resolution(facts: Facts) -> Iterator[Evidence]:
    """A larger image size than in the attempts before: the guide's first suspect."""
    now, then = _number(facts.settings.get("imgsz")), _number(facts.earlier_settings.get("imgsz"))
    if now > then:
        text = f"imgsz went from {then:g} to {now:g}: gradients grow with the area ({(now / then) ** 2:.2g})"
        yield Evidence("resolution", text, "settings in effect, earlier attempt", {EXPLOSION: 3.0})


def augmentation(facts: Facts) -> Iterator[Evidence]:
    """Augmentation stronger than the guide keeps after a NaN."""
    strong = [name for name, limit in STRONG.items() if _number(facts.settings.get(name)) > limit]
    if len(strong) >= 2:
        named = ", ".join(f"{name} {facts.settings[name]}" for name in strong)
        yield Evidence("augmentation", f"strong augmentation: {named}", "settings", {DATA: 1.5})


def start(facts: Facts) -> Iterator[Evidence]:
    """How soon after a resume it happened, or that nothing was resumed at all."""
    if facts.attempt is None or not facts.trouble:
        return
    where = f"attempt {facts.attempt.attempt}"
    if not facts.resumed:
        if not str(facts.attempt.train.get("model", "")).endswith(".pt"):
            yield Evidence(
                "start", "the attempt began from scratch, not from a checkpoint", where, {CHECKPOINT: 0.02}
            )
        return
    if facts.steps_in is None:
        return
    if facts.steps_in < SOON:
        text = f"it happened in step {facts.steps_in + 1} after the resume from {facts.attempt.checkpoint}"
        yield Evidence("start", text, where, {CHECKPOINT: 20.0, HARDWARE: 0.5})
    elif facts.steps_in > LONG_AFTER:
        text = f"{facts.steps_in} steps after the resume were taken before it happened"
        yield Evidence("start", text, where, {CHECKPOINT: 0.1})


def recurrence(facts: Facts) -> Iterator[Evidence]:
    """Once and gone, step after step, or the same image again and again."""
    bad = [incident for incident in facts.incidents if str(incident.get("incident", "")).startswith("nan_")]
    if not bad or facts.kind not in {incident["incident"] for incident in bad}:
        return
    yield from _same_image(facts, bad)
    in_a_row = _in_a_row(facts)
    healthy = sum(1 for step in facts.after if not step.reason)
    places = {(incident.get("epoch"), incident.get("step")) for incident in bad}
    if len(places) == 1 and healthy >= 8 and in_a_row == 1:
        text = f"it happened once; the {healthy} steps recorded after it were healthy"
        ratios = {HARDWARE: 3.0, DATA: 1.5, EXPLOSION: 0.5, RATE: 0.3, SINGULAR: 0.3, CHECKPOINT: 0.05}
        yield Evidence("recurrence", text, "steps.csv", ratios)
    elif in_a_row >= 3:
        text = f"{in_a_row} steps in a row were bad"
        yield Evidence(
            "recurrence", text, "steps.csv", {HARDWARE: 0.05, DATA: 0.5, SINGULAR: 2.0, CHECKPOINT: 2.0}
        )
    elif len(places) >= 2:
        text = f"it happened {len(places)} times, with healthy steps between"
        yield Evidence("recurrence", text, "events", {HARDWARE: 0.1, DATA: 1.5, SINGULAR: 2.0})


def _same_image(facts: Facts, bad: list[Any]) -> Iterator[Evidence]:
    """An image that is in every bad batch, against the chance of that."""
    batches = [_files(incident) for incident in bad]
    batches = [files for files in batches if files]
    if len(batches) < 2:
        return
    image, count = Counter(file for files in batches for file in files).most_common(1)[0]
    images = _number(facts.settings.get("images"))
    share = sum(map(len, batches)) / len(batches) / images if images > 0 else 0.1
    if count == len(batches) and share < 1:
        chance = share ** (count - 1) * images if images > 0 else share ** (count - 1)
        text = f"{image} was in each of the {count} bad batches (by chance: {min(chance, 1):.2g})"
        yield Evidence("same_image", text, "events", {DATA: min(max(1 / max(chance, 1e-9), 1.0), 50.0)})


def _files(incident: Any) -> set[str]:
    """Return the files of the batch, those of a mosaic one by one."""
    groups = (incident.get("evidence") or {}).get("files") or []
    return {str(file) for group in groups for file in (group if isinstance(group, list) else [group])}


def _in_a_row(facts: Facts) -> int:
    count = 0
    for step in facts.after:
        if not step.reason:
            break
        count += 1
    return count


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _step(value: float, table: tuple[tuple[float, float], ...]) -> float:
    """Return the second number of the first row whose first `value` reaches."""
    return next(ratio for limit, ratio in table if value >= limit)


LOOKS: tuple[Callable[[Facts], Iterator[Evidence]], ...] = (
    from_autopsy,
    from_history,
    learning_rate,
    limits,
    precision,
    resolution,
    augmentation,
    start,
    recurrence,
)

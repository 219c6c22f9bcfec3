"""From facts to evidence: each function looks at one thing and says what it would mean, with a written ratio.

The ratios are judgements, not measurements, and written so that they can be argued with: what is physically
impossible counts a thousandth, a direct finding a hundred or more, a hint two or three. They were set on
trainings broken on purpose and are validated on others (docs/diagnosis.md). Pieces that say the same thing
twice are one function, so that nothing counts double. What takes longer to look at is in `file_evidence`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from statistics import median
from typing import Any

from nantui.diagnosis.probabilities import (
    CHECKPOINT,
    DATA,
    EXPLOSION,
    FP16,
    HARDWARE,
    RATE,
    SINGULAR,
    Evidence,
)
from nantui.diagnosis.trouble import TroubleFacts
from nantui.recovery.trouble import overflowed
from nantui.run.events import Incident
from nantui.run.results import EpochRow
from nantui.settings.effective import number
from nantui.words import count

USUAL_ACTIVATION = 1e3
"""Outputs of a healthy YOLO stay in the tens; below this, nothing in the forward pass is extreme."""
FEW_TENSORS = 2
"""A NaN out of the loss goes back through every layer; one in a tensor or two did not come from there."""
SOON = 5
"""Steps after a resume in which trouble points at what was resumed."""
ENOUGH = 8
"""Steps with a norm that a comparison needs."""
LATELY = 10
CLIMBED, CALM = 10.0, 3.0
"""New peak against the one before: healthy runs stay below the second, explosions pass the first.

Against the highest and not the median, for losses of small batches are heavy-tailed: in healthy runs of
the validation table single steps stood a hundred times above the median.
"""
SLOW = ("zero_loss", "loss_exploded", "too_many_skips")
"""Incidents that end a development instead of beginning one: their history is the whole window."""
SCALE_FELL = 64.0
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
Measured = Mapping[str, Any]
"""What the autopsy measured, by name."""
Meaning = tuple[str, dict[str, float]]
"""More words on a finding, and its ratios by cause."""


def all_evidence(facts: TroubleFacts) -> Iterator[Evidence]:
    """Yield everything that the run's own files say; `file_evidence` is asked on its own."""
    for source in SOURCES:
        yield from source(facts)


def from_autopsy(facts: TroubleFacts) -> Iterator[Evidence]:
    """Yield what the autopsy of the first incident of the trouble says."""
    found = _FINDINGS.get(facts.autopsy.cause) if facts.autopsy else None
    if facts.autopsy is None or found is None:
        return
    more, ratios = found(facts, facts.autopsy.evidence) if callable(found) else ("", found)
    text = f"autopsy: {facts.autopsy.text}" + (f"; {more}" if more else "")
    yield Evidence("autopsy", text, "autopsy", ratios)


def _explosion(facts: TroubleFacts, measured: Measured) -> Meaning:
    if measured.get("fp32_first_bad_module"):
        return "", {EXPLOSION: 8.0, RATE: 4.0, FP16: 0.1, SINGULAR: 0.3, HARDWARE: 0.3}
    if measured.get("fp32_loss_finite") is False:
        more = "every module's output is finite and the loss is not, also when repeated"
        return more, {SINGULAR: 200.0, HARDWARE: 0.1, EXPLOSION: 0.5, RATE: 0.5}
    bad = measured.get("bad_gradients") or []
    if not bad:
        return "", {EXPLOSION: 3.0, RATE: 2.0}
    if _is_nan(measured.get("grad_norm")):
        # Clipping by a NaN norm makes every gradient NaN before the autopsy can look.
        more = "the gradient is NaN though the loss and all activations are finite"
        return more, {SINGULAR: 60.0, HARDWARE: 40.0, EXPLOSION: 1.5}
    if len(bad) <= FEW_TENSORS:
        more = f"only {count(len(bad), 'tensor')} had a bad gradient, which no backward pass leaves behind"
        return more, {HARDWARE: 150.0, SINGULAR: 0.1}
    if _usual(measured.get("fp32_largest_activation")):
        more = "the loss and all activations are of usual size, only the gradients are not finite"
        return more, {SINGULAR: 60.0, EXPLOSION: 1.5}
    return "", {EXPLOSION: 5.0, RATE: 3.0}


def _corrupt_weights(facts: TroubleFacts, measured: Measured) -> Meaning:
    if facts.settings.get("guard", "protect") != "protect":
        return "nothing kept a bad step out of them", {EXPLOSION: 1.5, RATE: 1.5}
    if facts.resumed and (facts.steps_in or 0) < SOON:
        return "", {CHECKPOINT: 15.0, HARDWARE: 2.0, EXPLOSION: 0.5, RATE: 0.3, DATA: 0.3}
    more = "the guard lets no step make them so: something else wrote there"
    return more, {HARDWARE: 100.0, CHECKPOINT: 2.0, EXPLOSION: 0.5, RATE: 0.3, DATA: 0.3}


def _is_nan(value: object) -> bool:
    return value == "nan" or (isinstance(value, float) and math.isnan(value))


def _usual(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value < USUAL_ACTIVATION


_FINDINGS: dict[str, dict[str, float] | Callable[[TroubleFacts, Measured], Meaning]] = {
    # A number in the batch that is not a pixel or a label explains everything that follows from it.
    "broken_pixels": {DATA: 2000.0},
    "broken_labels": {DATA: 2000.0},
    "fp16_overflow": {FP16: 200.0},
    # Steps of the weights' own size: a rate too high, or a gradient too large at a usual rate.
    "learning_rate": {RATE: 6.0, EXPLOSION: 4.0, DATA: 0.3, SINGULAR: 0.3, HARDWARE: 0.3},
    "exploding_gradient": _explosion,
    "corrupt_weights": _corrupt_weights,
    "spoilt_statistics": {CHECKPOINT: 8.0, DATA: 2.0, FP16: 2.0, EXPLOSION: 0.5, RATE: 0.3},
    "not_reproduced": {HARDWARE: 150.0},
}
"""What the causes that an autopsy names mean; the functions look at what else it measured."""


def from_history(facts: TroubleFacts) -> Iterator[Evidence]:
    """Yield what steps.csv says of the time before; without it, what results.csv says of whole epochs."""
    if facts.before:
        yield from _of_steps(facts)
        yield from _loss_scale(facts)
    elif facts.results and not facts.watched:
        yield from _of_epochs(facts.results)
    if facts.kind in ("zero_loss", "loss_exploded"):
        text = "the loss left its range with finite numbers: the weights went wrong first"
        ratios = {EXPLOSION: 2.0, RATE: 2.0, DATA: 0.3, SINGULAR: 0.2, HARDWARE: 0.2, CHECKPOINT: 0.3}
        yield Evidence("kind", text, f"incident {facts.kind}", ratios)


def _of_steps(facts: TroubleFacts) -> Iterator[Evidence]:
    whole = facts.kind in SLOW
    norms = _growth([step.value("grad_norm") for step in facts.before], whole)
    losses = _growth([sum(step.losses.values()) for step in facts.before], whole)
    known = [growth for growth in (norms, losses) if growth is not None]
    if not known:
        return
    most, what = max(known), "gradient norm" if norms == max(known) else "loss"
    if most >= CLIMBED:
        text = f"the {what} climbed to {most:.3g} times its highest before"
        ratios = {EXPLOSION: 5.0, RATE: 2.5, DATA: 0.5, SINGULAR: 0.3, HARDWARE: 0.3, CHECKPOINT: 0.3}
        yield Evidence("history", text, "steps.csv", ratios)
    elif most < CALM:
        text = f"gradient norm and loss were calm up to it (at most {most:.2g} times their highest before)"
        ratios = {EXPLOSION: 0.15, RATE: 0.15, DATA: 2.0, SINGULAR: 2.0, HARDWARE: 2.0}
        yield Evidence("history", text, "steps.csv", ratios)


def _growth(values: Sequence[float], whole: bool) -> float | None:
    """Return the peak of the last values against the highest of those before, None where there are too few.

    `whole`: look for the peak in all values, for troubles that take long to show.
    """
    finite = [value for value in values if math.isfinite(value) and value > 0]
    recent = min(LATELY, len(finite) // 2)
    if len(finite) < ENOUGH:
        return None
    end = finite.index(max(finite)) + 1 if whole else len(finite)
    begin = max(end - recent, ENOUGH // 2)
    return max(finite[begin:], default=0.0) / max(finite[:begin])


def _loss_scale(facts: TroubleFacts) -> Iterator[Evidence]:
    scales = [step.value("loss_scale") for step in (*facts.before, *facts.after)]
    scales = [scale for scale in scales if scale > 0]
    if not scales:
        return
    if max(scales) / scales[-1] >= SCALE_FELL or facts.kind == "scale_collapsed":
        text = (
            f"the loss scale fell from {max(scales):g} to {scales[-1]:g}: gradients kept overflowing in fp16"
        )
        yield Evidence("loss_scale", text, "steps.csv", {FP16: 6.0})


def _of_epochs(rows: Sequence[EpochRow]) -> Iterator[Evidence]:
    """With only results.csv there are epochs: which numbers went bad first, and what the ones before did."""
    sound = overflowed(rows)
    bad = next((row for row in rows if not row.finite and row.epoch not in sound), None)
    if bad is None:
        return
    train = [value for value in bad.losses("train").values()]
    if train and all(math.isfinite(value) for value in train):
        text = (
            f"in epoch {bad.epoch} the training losses were finite and the validation's were not: "
            "BatchNorm's statistics were spoilt, or the validation overflowed"
        )
        ratios = {FP16: 3.0, CHECKPOINT: 2.0, DATA: 1.5, EXPLOSION: 0.5}
        yield Evidence("results", text, "results.csv", ratios)
        return
    before = [sum(row.losses("train").values()) for row in rows if row.epoch < bad.epoch and row.finite]
    if len(before) >= 3:
        jump = before[-1] / median(before[-6:-1])
        ratios = {EXPLOSION: 2.0, RATE: 1.5} if jump > 1.5 else {EXPLOSION: 0.8, DATA: 1.2}
        text = f"training loss NaN from epoch {bad.epoch} on; the epoch before was {jump:.2f} times the usual"
        yield Evidence("results", text, "results.csv", ratios)


def learning_rate(facts: TroubleFacts) -> Iterator[Evidence]:
    """The rate at the trouble, against the rate that this optimizer usually starts from."""
    rates = [step.value("lr") for step in (*facts.before[-20:], *facts.after[:1]) if step.value("lr") > 0]
    rate = max(rates, default=number(facts.settings.get("lr0")))
    optimizer = str(facts.settings.get("optimizer") or "auto")
    if not rate > 0 or (optimizer == "auto" and not rates):
        return
    usual = USUAL_RATE.get(optimizer, USUAL_RATE_OF_ADAM)
    times = rate / usual
    ratios = ((20, 30.0), (5, 8.0), (2, 2.5), (0.5, 0.5), (0.0, 0.2))
    ratio = next(ratio for least, ratio in ratios if times >= least)
    text = f"the learning rate was {rate:.3g}; {optimizer} usually starts from {usual:g} ({times:.2g} times)"
    yield Evidence("learning_rate", text, "steps.csv" if rates else "settings", {RATE: ratio})


def limits(facts: TroubleFacts) -> Iterator[Evidence]:
    """Loss gains beyond their defaults make gradients larger; without clipping nothing holds them."""
    gains = {name: number(facts.settings.get(name)) / usual for name, usual in USUAL_GAIN.items()}
    name, times = max(gains.items(), key=lambda item: item[1] if math.isfinite(item[1]) else 0.0)
    if times >= 3:
        text = f"the loss gain {name} is {times:.3g} times its default"
        yield Evidence("loss_gain", text, "settings", {EXPLOSION: 10.0 if times >= 10 else 2.0})
    if facts.settings.get("grad_clip") == 0:
        text = "gradient clipping is off: nothing holds a large gradient"
        yield Evidence("clipping", text, "settings", {EXPLOSION: 2.0})


def resolution(facts: TroubleFacts) -> Iterator[Evidence]:
    """A larger image size than in the attempts before: the guide's first suspect."""
    now, then = number(facts.settings.get("imgsz")), number(facts.earlier_settings.get("imgsz"))
    if now > then:
        text = f"imgsz went from {then:g} to {now:g}: gradients grow with the area ({(now / then) ** 2:.2g})"
        yield Evidence("resolution", text, "settings in effect, earlier attempt", {EXPLOSION: 3.0})


def augmentation(facts: TroubleFacts) -> Iterator[Evidence]:
    """Augmentation stronger than the guide keeps after a NaN."""
    strong = [name for name, limit in STRONG.items() if number(facts.settings.get(name)) > limit]
    if len(strong) >= 2:
        named = ", ".join(f"{name} {facts.settings[name]}" for name in strong)
        yield Evidence("augmentation", f"strong augmentation: {named}", "settings", {DATA: 1.5})


def precision(facts: TroubleFacts) -> Iterator[Evidence]:
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


def start(facts: TroubleFacts) -> Iterator[Evidence]:
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
        text = f"it happened {count(facts.steps_in, 'step')} after the resume"
        yield Evidence("start", text, where, {CHECKPOINT: 0.1})


def recurrence(facts: TroubleFacts) -> Iterator[Evidence]:
    """Once and gone, step after step, or the same image again and again."""
    bad = [incident for incident in facts.incidents if incident.incident.startswith("nan_")]
    if not bad or facts.kind not in {incident.incident for incident in bad}:
        return
    yield from _same_image(facts, bad)
    in_a_row = sum(1 for _ in takewhile(lambda step: step.reason, facts.after))
    healthy = sum(1 for step in facts.after if not step.reason)
    places = {(incident.epoch, incident.step) for incident in bad}
    if len(places) == 1 and healthy >= 8 and in_a_row == 1:
        text = f"it happened once; {count(healthy, 'step')} recorded after it, all healthy"
        ratios = {HARDWARE: 3.0, DATA: 1.5, EXPLOSION: 0.5, RATE: 0.3, SINGULAR: 0.3, CHECKPOINT: 0.05}
        yield Evidence("recurrence", text, "steps.csv", ratios)
    elif in_a_row >= 3:
        text = f"{count(in_a_row, 'bad step')} in a row"
        yield Evidence(
            "recurrence", text, "steps.csv", {HARDWARE: 0.05, DATA: 0.5, SINGULAR: 2.0, CHECKPOINT: 2.0}
        )
    elif len(places) >= 2:
        text = f"it happened {len(places)} times, with healthy steps between"
        yield Evidence("recurrence", text, "events", {HARDWARE: 0.1, DATA: 1.5, SINGULAR: 2.0})


def _same_image(facts: TroubleFacts, bad: list[Incident]) -> Iterator[Evidence]:
    """An image that is in every bad batch, against the chance of that."""
    batches = [_files(incident) for incident in bad]
    batches = [files for files in batches if files]
    if len(batches) < 2:
        return
    image, count = Counter(file for files in batches for file in files).most_common(1)[0]
    images = number(facts.settings.get("images"))
    share = sum(map(len, batches)) / len(batches) / images if images > 0 else 0.1
    if count == len(batches) and share < 1:
        chance = share ** (count - 1) * images if images > 0 else share ** (count - 1)
        text = f"{image} was in each of the {count} bad batches (by chance: {min(chance, 1):.2g})"
        yield Evidence("same_image", text, "events", {DATA: min(max(1 / max(chance, 1e-9), 1.0), 50.0)})


def _files(incident: Incident) -> set[str]:
    """Return the files of the batch, those of a mosaic one by one."""
    groups = incident.evidence.get("files") or []
    return {str(file) for group in groups for file in (group if isinstance(group, list) else [group])}


SOURCES: tuple[Callable[[TroubleFacts], Iterator[Evidence]], ...] = (
    from_autopsy, from_history, learning_rate, limits, precision, resolution, augmentation, start, recurrence,
)  # fmt: skip

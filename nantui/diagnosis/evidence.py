"""From facts to evidence: each function looks at one thing and says what it would mean, with a written ratio.

The recovery guide's 70 / 15 / 10 / 5 % are the prior of its four causes; three more that evidence can show
share five hundredths, taken from all four alike. Each piece of evidence multiplies the odds of causes by a
written ratio; the result is a probability that a person can follow and disagree with.
The ratios are judgements, not measurements, and written so that they can be argued with: what is physically
impossible counts a thousandth, a direct finding a hundred or more, a hint two or three. They were set on
trainings broken on purpose and are validated on others (docs/diagnosis.md). Pieces that say the same thing
twice are one function, so that nothing counts double.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from statistics import median
from typing import Any

from nantui.checkpoint.catalog import Catalog
from nantui.diagnosis.facts import TroubleFacts
from nantui.errors import UserError
from nantui.labels.problem_kinds import ERROR, KINDS
from nantui.run.documents import JsonObject, table
from nantui.run.events import Incident
from nantui.settings.lint import USUAL_GAIN, usual_rate
from nantui.settings.values import number
from nantui.words import count

EXPLOSION, RATE, DATA, FP16 = "gradient_explosion", "learning_rate", "data", "fp16_overflow"
CHECKPOINT, SINGULAR, HARDWARE = "contaminated_checkpoint", "singular_loss", "hardware"

CAUSES = table("causes")
TITLES: Mapping[str, str] = {name: row["title"] for name, row in CAUSES.items()}
GUIDE: Mapping[str, float] = {name: row["guide"] for name, row in CAUSES.items() if "guide" in row}
BESIDE: Mapping[str, float] = {name: row["beside"] for name, row in CAUSES.items() if "beside" in row}
PRIOR = {**{name: share * (1 - sum(BESIDE.values())) for name, share in GUIDE.items()}, **BESIDE}
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
STRONG = {
    "mixup": 0.1, "copy_paste": 0.1, "cutmix": 0.1, "hsv_h": 0.02, "hsv_s": 0.8, "hsv_v": 0.5,
    "degrees": 15.0, "shear": 5.0, "perspective": 0.001,
}  # fmt: skip
"""Augmentation beyond what the recovery guide keeps after a NaN."""
LONG_AFTER = 100
LABELS_S = 5.0
"""How long the labels are looked at."""
Measured = Mapping[str, Any]
"""What the autopsy measured, by name."""
Meaning = tuple[str, dict[str, float]]
"""More words on a finding, and its ratios by cause."""


@dataclass(frozen=True)
class Evidence:
    """One observation.

    `ratios`: how many times likelier it is if that cause is the right one than it is on the whole; a cause
    that is not named is not moved. `source` says where it was read, `text` what was seen, with numbers.
    """

    name: str
    text: str
    source: str
    ratios: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Ranked:
    """One cause with its probability before and after the evidence, and the evidence that moved it."""

    cause: str
    prior: float
    probability: float
    evidence: tuple[Evidence, ...]

    @property
    def title(self) -> str:
        """Return its name for people."""
        return TITLES[self.cause]

    def to_json(self) -> JsonObject:
        """Return the cause as it stands in `nantui diagnose --json`."""
        moved = [(item, item.ratios[self.cause]) for item in self.evidence]
        return {
            "cause": self.cause, "title": self.title, "prior": round(self.prior, 4),
            "probability": round(self.probability, 4),
            "evidence": [f"{item.text} ({ratio_text(ratio)}, {item.source})" for item, ratio in moved],
            "details": [{"name": item.name, "text": item.text, "source": item.source, "ratio": ratio}
                        for item, ratio in moved],
        }  # fmt: skip


def rank_causes(evidence: Iterable[Evidence]) -> list[Ranked]:
    """Return all causes, the most probable first, after `evidence`, whose pieces count as independent."""
    pieces = list(evidence)
    weights = dict(PRIOR)
    for piece in pieces:
        for cause, ratio in piece.ratios.items():
            weights[cause] *= ratio
    whole = sum(weights.values())
    ranked = [
        Ranked(cause, PRIOR[cause], weight / whole, tuple(p for p in pieces if p.ratios.get(cause, 1) != 1))
        for cause, weight in weights.items()
    ]
    return sorted(ranked, key=lambda item: -item.probability)


def ratio_text(ratio: float) -> str:
    """Return a ratio as people say it: "x 300" for, "/ 50" against."""
    return f"odds x {ratio:g}" if ratio >= 1 else f"odds / {1 / ratio:.3g}"


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
    if math.isnan(number(measured.get("grad_norm", 0.0))):
        # Under `observe` clipping by a NaN norm makes every gradient NaN before the autopsy can look.
        more = "the gradient is NaN though the loss and all activations are finite"
        return more, {SINGULAR: 60.0, HARDWARE: 40.0, EXPLOSION: 1.5}
    if len(bad) <= FEW_TENSORS:
        more = f"only {count(len(bad), 'tensor')} had a bad gradient, which no backward pass leaves behind"
        return more, {HARDWARE: 150.0, SINGULAR: 0.1}
    if number(measured.get("fp32_largest_activation")) < USUAL_ACTIVATION:
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
        yield from _of_epochs(facts)
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
        fell = f"the loss scale fell from {max(scales):g} to {scales[-1]:g}"
        text = f"{fell}: gradients kept overflowing in fp16"
        yield Evidence("loss_scale", text, "steps.csv", {FP16: 6.0})


def _of_epochs(facts: TroubleFacts) -> Iterator[Evidence]:
    """With only results.csv there are epochs: which numbers went bad first, and what the ones before did."""
    bad, rows = facts.bad_row, facts.results
    if bad is None:
        return
    train = bad.losses("train").values()
    if train and all(math.isfinite(value) for value in train):
        why = "BatchNorm's statistics were spoilt, or the validation overflowed"
        seen = f"in epoch {bad.epoch} the training losses were finite and the validation's were not"
        ratios = {FP16: 3.0, CHECKPOINT: 2.0, DATA: 1.5, EXPLOSION: 0.5}
        yield Evidence("results", f"{seen}: {why}", "results.csv", ratios)
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
    usual = usual_rate(optimizer)
    times = rate / usual
    ratios = ((20, 30.0), (5, 8.0), (2, 2.5), (0.5, 0.5), (0.0, 0.2))
    ratio = next(ratio for least, ratio in ratios if times >= least)
    text = f"the learning rate was {rate:.3g}; {optimizer} usually starts from {usual:g} ({times:.2g} times)"
    yield Evidence("learning_rate", text, "steps.csv" if rates else "settings", {RATE: ratio})


def of_settings(facts: TroubleFacts) -> Iterator[Evidence]:
    """What makes gradients larger (loss gains, no clipping, larger images than before: the guide's first
    suspect), augmentation stronger than the guide keeps after a NaN, and whether fp16 is used at all.
    """
    settings = facts.settings
    gains = {name: number(settings.get(name)) / usual for name, usual in USUAL_GAIN.items()}
    name, times = max(gains.items(), key=lambda item: item[1] if math.isfinite(item[1]) else 0.0)
    if times >= 3:
        text = f"the loss gain {name} is {times:.3g} times its default"
        yield Evidence("loss_gain", text, "settings", {EXPLOSION: 10.0 if times >= 10 else 2.0})
    if settings.get("grad_clip") == 0:
        text = "gradient clipping is off: nothing holds a large gradient"
        yield Evidence("clipping", text, "settings", {EXPLOSION: 2.0})
    now, then = number(settings.get("imgsz")), number(facts.earlier_settings.get("imgsz"))
    if now > then:
        text = f"imgsz went from {then:g} to {now:g}: gradients grow with the area ({(now / then) ** 2:.2g})"
        yield Evidence("resolution", text, "settings in effect, earlier attempt", {EXPLOSION: 3.0})
    strong = [name for name, limit in STRONG.items() if number(settings.get(name)) > limit]
    if len(strong) >= 2:
        named = ", ".join(f"{name} {settings[name]}" for name in strong)
        yield Evidence("augmentation", f"strong augmentation: {named}", "settings", {DATA: 1.5})
    amp, text = settings.get("amp"), ""
    if amp == "bf16":
        text = "amp is bf16, which has fp32's range"
    elif amp in (False, "fp32"):
        text = "amp is off: nothing is computed in fp16"
    elif amp is not None and str(settings.get("device")) == "cpu":
        text = "the run is on the CPU, where fp16 is not used"
    if text:
        yield Evidence("precision", text, "settings", {FP16: 0.001})


def start(facts: TroubleFacts) -> Iterator[Evidence]:
    """How soon after a resume it happened, or that nothing was resumed at all."""
    attempt, steps = facts.attempt, facts.steps_in
    if attempt is None or not facts.trouble:
        return
    where, text, ratios = f"attempt {attempt.attempt}", "", dict[str, float]()
    if not facts.resumed and not str(attempt.train.get("model", "")).endswith(".pt"):
        text, ratios = "the attempt began from scratch, not from a checkpoint", {CHECKPOINT: 0.02}
    elif facts.resumed and steps is not None and steps < SOON:
        text = f"it happened in step {steps + 1} after the resume from {attempt.checkpoint}"
        ratios = {CHECKPOINT: 20.0, HARDWARE: 0.5}
    elif facts.resumed and steps is not None and steps > LONG_AFTER:
        text, ratios = f"it happened {count(steps, 'step')} after the resume", {CHECKPOINT: 0.1}
    if text:
        yield Evidence("start", text, where, ratios)


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
        ratios = {HARDWARE: 0.05, DATA: 0.5, SINGULAR: 2.0, CHECKPOINT: 2.0}
        yield Evidence("recurrence", text, "steps.csv", ratios)
    elif len(places) >= 2:
        text = f"it happened {len(places)} times, with healthy steps between"
        yield Evidence("recurrence", text, "events", {HARDWARE: 0.1, DATA: 1.5, SINGULAR: 2.0})


def _same_image(facts: TroubleFacts, bad: list[Incident]) -> Iterator[Evidence]:
    """An image that is in every bad batch, against the chance of that; of a mosaic each of its images."""
    batches = []
    for incident in bad:
        groups = incident.evidence.get("files") or []
        files = {str(one) for group in groups for one in (group if isinstance(group, list) else [group])}
        batches += [files] if files else []
    if len(batches) < 2:
        return
    image, count = Counter(file for files in batches for file in files).most_common(1)[0]
    images = number(facts.settings.get("images"))
    share = sum(map(len, batches)) / len(batches) / images if images > 0 else 0.1
    if count == len(batches) and share < 1:
        chance = share ** (count - 1) * images if images > 0 else share ** (count - 1)
        text = f"{image} was in each of the {count} bad batches (by chance: {min(chance, 1):.2g})"
        yield Evidence("same_image", text, "events", {DATA: min(max(1 / max(chance, 1e-9), 1.0), 50.0)})


def checkpoint(facts: TroubleFacts) -> Iterator[Evidence | str]:
    """Yield what the checkpoint that the attempt began with says, or in words what cannot be known of it."""
    if not facts.resumed or facts.attempt is None:
        return
    name = facts.attempt.checkpoint or "weights/last.pt"
    path = facts.record.run / name
    try:
        written_again = path.stat().st_mtime > facts.attempt.created
    except OSError:
        yield f"{name}, which the attempt resumed, is gone"
        return
    verdict = Catalog(facts.record.layout.weights).verdict(path)
    found = ", ".join(dict.fromkeys(finding.kind for finding in verdict.findings))
    if written_again:
        yield f"{name} was written again since the attempt began: what was resumed is not there any more"
    elif verdict.badge not in ("clean", "corrupt"):
        yield f"{name} is {verdict.badge}: nothing can be said of what was resumed"
    else:
        text, ratio = f"{name}, which was resumed, is clean", 0.1
        if verdict.badge == "corrupt":
            text, ratio = f"{name}, which the attempt resumed, is corrupt ({found})", 100.0
        elif verdict.repairable and not verdict.resumable:
            text = f"{name} was resumed with optimizer or scaler state that is not finite ({found})"
            ratio = 30.0
        yield Evidence("checkpoint", text, "nantui check", {CHECKPOINT: ratio})


def labels(facts: TroubleFacts) -> Iterator[Evidence | str]:
    """Yield what the label check says of the training set, given up after some seconds, and what not.

    Only labels that reach the training can cause anything; what Ultralytics drops cannot.
    """
    from nantui.labels.check import check_data_set
    from nantui.labels.data_set import load_data_set

    data, began = str(facts.settings.get("data") or ""), time.monotonic()
    if not data:
        yield "the labels: the run does not say which data set it trained on"
        return
    try:
        report = check_data_set(
            load_data_set(Path(data)), facts.settings, splits=["train"],
            progress=lambda done, total: time.monotonic() - began > LABELS_S,
        )  # fmt: skip
    except (UserError, OSError) as error:
        yield f"the labels: {error}"
        return
    found = [(KINDS[name], count) for name, count in report.counts.items()]
    wrong = [(kind, count) for kind, count in found if kind.severity == ERROR]
    reach = [f"{kind.name} {count:,}" for kind, count in wrong if not (kind.drops or kind.blocks)]
    if reach:
        text = f"wrong labels that Ultralytics trains on: {', '.join(reach)}"
        yield Evidence("labels", text, "nantui labels", {DATA: 2.0})
    elif not report.stopped and not report.errors:
        text = f"no errors in {report.labels:,} label files (pixels were not looked at)"
        yield Evidence("labels", text, "nantui labels", {DATA: 0.8})
    if report.stopped:
        yield "the rest of the labels: the check was given up; run `nantui labels`"


SOURCES: tuple[Callable[[TroubleFacts], Iterator[Evidence]], ...] = (
    from_autopsy, from_history, learning_rate, of_settings, start, recurrence,
)  # fmt: skip
"""Everything that events, steps, results and settings say."""

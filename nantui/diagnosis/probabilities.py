"""The causes that a run can fail from, how likely each is beforehand, and how evidence moves them.

The recovery guide's 70 / 15 / 10 / 5 % are the prior of its four causes; three more that evidence can show
share five hundredths, taken from all four alike. Each piece of evidence multiplies the odds of causes by a
written ratio; the result is a probability that a person can follow and disagree with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nantui.run.documents import JsonObject

EXPLOSION, RATE, DATA, FP16 = "gradient_explosion", "learning_rate", "data", "fp16_overflow"
CHECKPOINT, SINGULAR, HARDWARE = "contaminated_checkpoint", "singular_loss", "hardware"

TITLES = {
    EXPLOSION: "gradient explosion",
    RATE: "learning rate too high",
    DATA: "data or augmentation anomaly",
    FP16: "fp16 overflow under AMP",
    CHECKPOINT: "a contaminated checkpoint was resumed",
    SINGULAR: "a numerically singular loss",
    HARDWARE: "hardware or a transient fault",
}
GUIDE = {EXPLOSION: 0.70, RATE: 0.15, DATA: 0.10, FP16: 0.05}
BESIDE = {CHECKPOINT: 0.02, SINGULAR: 0.02, HARDWARE: 0.01}
PRIOR = {**{name: share * (1 - sum(BESIDE.values())) for name, share in GUIDE.items()}, **BESIDE}


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
            "cause": self.cause,
            "title": self.title,
            "prior": round(self.prior, 4),
            "probability": round(self.probability, 4),
            "evidence": [f"{item.text} ({ratio_text(ratio)}, {item.source})" for item, ratio in moved],
            "details": [
                {"name": item.name, "text": item.text, "source": item.source, "ratio": ratio}
                for item, ratio in moved
            ],
        }


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

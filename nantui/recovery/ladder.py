"""The escalation ladder: which remedy comes next, given what was tried and what is proven
(docs/recovery.md)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nantui.errors import UserError
from nantui.machine.gpus import uses_no_gpu
from nantui.paths import configs_dir, user_config_dir
from nantui.recovery.history import QUARANTINE, Earlier
from nantui.recovery.remedies import Measured, measured
from nantui.recovery.trouble import Judgement, Trouble
from nantui.run.events import Autopsy, of_kind
from nantui.run.record import RunRecord
from nantui.settings.presets import Preset, apply
from nantui.settings.values import changed

AGAIN, UNCHANGED = "restart", "unchanged"
NAME, BROKEN = "ladder.yaml", "broken_"


@dataclass(frozen=True)
class Ladder:
    """The configured steps; `evidence` maps a proven cause to what comes first then, but for what was
    `measured` to cure such trainings, where that is wanted (docs/remedies.md).
    """

    first: tuple[str, ...]
    steps: tuple[str, ...]
    evidence: Mapping[str, tuple[str, ...]]
    max_recoveries: int
    probation_epochs: int
    measured: bool = False


@dataclass(frozen=True)
class Proof:
    """What the newest attempt's autopsies and incidents proved: causes, and the images found guilty.

    `diagnosed` is what the diagnosis says beside it, where somebody asked: the likeliest cause, then the
    names of its evidence.
    """

    causes: frozenset[str]
    images: tuple[str, ...] = ()
    diagnosed: tuple[str, ...] = ()

    @property
    def evidence(self) -> frozenset[str]:
        """What tells apart trainings that broke in different ways, as configs/remedies.csv has it."""
        images = [("one_image" if len(self.guilty) == 1 else "more_images")] if self.guilty else []
        return frozenset((*self.causes, *self.diagnosed[1:], *images))

    @property
    def guilty(self) -> tuple[str, ...]:
        """The images whose own pixels or labels are broken: that proves them guilty, nothing else does."""
        return self.images if any(cause.startswith(BROKEN) for cause in self.causes) else ()

    @property
    def remedies(self) -> list[Measured]:
        """What was measured of such trainings, best first."""
        return measured("".join(self.diagnosed[:1]), self.evidence)


def load_ladder(path: Path | None = None) -> Ladder:
    """Return the user's ladder, else the shipped one. Raises UserError naming the file when it is wrong."""
    own = user_config_dir() / NAME
    path = path or (own if own.is_file() else configs_dir() / NAME)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        evidence = {str(cause): tuple(steps) for cause, steps in (document.get("evidence") or {}).items()}
        numbers = (int(document.get("max_recoveries", 4)), int(document.get("probation_epochs", 3)))
        first, steps = tuple(document["first"]), tuple(document["steps"])
        return Ladder(first, steps, evidence, *numbers, measured=bool(document.get("measured")))
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a ladder ({str(error).splitlines()[0]}); see configs/{NAME}") from None


def next_step(
    ladder: Ladder, earlier: Sequence[Earlier], proof: Proof, presets: Mapping[str, Preset],
    in_effect: Mapping[str, object], known: Collection[str] | None = None, *, bf16: bool | None = None,
) -> str | None:  # fmt: skip
    """Return the next step by name, None when the ladder is at its end; `bf16` tells whether the GPUs support
    it, None where that is not known: then it is tried.

    Raises UserError for a step that is no preset.
    """
    tried = {name for one in earlier for name in one.presets}
    table = proof.remedies if ladder.measured else []
    cures = [one.step for one in table if one.step not in ("", AGAIN) and 2 * one.cured > one.trials]
    cures = cures or [UNCHANGED] * bool(table)
    proven = [step for cause in sorted(proof.causes) for step in ladder.evidence.get(cause, ())]
    order = [*cures, *proven, *(() if earlier or proven or cures else ladder.first), *ladder.steps]
    for step in dict.fromkeys(order):
        no_bf16 = step == "bf16" and (bf16 is False or uses_no_gpu(in_effect.get("device")))
        if no_bf16 or step in tried or (step == QUARANTINE and not proof.images):
            continue
        if step != QUARANTINE and step not in presets:
            raise UserError(f"the ladder names {step!r}, which is no preset; there are {', '.join(presets)}")
        if step in (QUARANTINE, UNCHANGED) or changed(apply(presets[step], in_effect, known)):
            return step
    return None


def proven(record: RunRecord, trouble: Trouble | Judgement | None, diagnosed: tuple[str, ...] = ()) -> Proof:
    """Return what was proven in the standing attempt; `trouble` is what the recovery is for."""
    standing = record.standing.number or None
    found = [one for one in of_kind(record.journal, Autopsy) if one.attempt == standing]
    found = [one for one in found if not (of_validation(one.evidence) and one.cause.startswith(BROKEN))]
    causes = {one.cause for one in found} | ({trouble.kind} if trouble else set())
    telling = [one for one in found if one.cause.startswith(BROKEN)] or found
    images = [image for one in telling for image in guilty_images(one.evidence)]
    return Proof(frozenset(causes), tuple(dict.fromkeys(images)), diagnosed)


def of_validation(evidence: Mapping[str, Any]) -> bool:
    """Tell whether an autopsy looked at validation images: nothing is wrong with the training then."""
    return "images_looked_at" in evidence


def guilty_images(evidence: Mapping[str, Any]) -> list[str]:
    """Return the train set's files that an autopsy names; one of several in a mosaic is not proven guilty."""
    images = [] if of_validation(evidence) else evidence.get("images") or []
    named = (image.get("files") or [] for image in images if isinstance(image, dict))
    return [str(files[0]) for files in named if len(files) == 1]

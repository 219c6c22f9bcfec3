"""Which settings exist, what they accept, and a clear line for what they do not.

Ultralytics' arguments come from the installed release's own files (settings/ultralytics_args.py), ours stand
beside them and are marked. Ultralytics' own checks have the last word later, in a helper with torch
(worker/check_arguments.py); these here answer at once.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from nantui.errors import UserError
from nantui.run.documents import JsonObject, Settings
from nantui.settings import own_settings as our_settings
from nantui.settings.ultralytics_args import find_ultralytics, read_arguments, read_ranges, read_version
from nantui.settings.values import is_number, parse_value, show_value

OTHER_MODES = frozenset({"Predict", "Visualize", "Export", "Tracker", "Custom config.yaml"})
HABITS = {
    "lr": "lr0", "learning_rate": "lr0", "initial_lr": "lr0", "wd": "weight_decay", "decay": "weight_decay",
    "epoch": "epochs", "batch_size": "batch", "bs": "batch", "img": "imgsz", "img_size": "imgsz",
    "image_size": "imgsz", "size": "imgsz", "opt": "optimizer", "clip": "grad_clip", "max_norm": "grad_clip",
    "clip_grad": "grad_clip", "warmup": "warmup_epochs", "gpus": "device", "weights": "model",
    "dataset": "data",
}  # fmt: skip
SIDES = (1.0, None)
"""Ultralytics takes an image side of -3 for the smallest that it can (`check_imgsz`); nobody means that."""
CHOICES = {"amp": (True, False, "fp16", "bf16", "fp32")}
ACCEPTED_BY_ULTRALYTICS = {
    "save_dir": "directory of the run, instead of project and name",
    "augmentations": "custom Albumentations transforms (set from Python only)",
}
WANTED = {
    "int": "a whole number", "float": "a number", "bool": "True or False", "str": "a word", "list": "a list",
    "tuple": "a list",
}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """One setting. `types` are names such as "int"; `range` is (lowest, highest), either may be None."""

    name: str
    group: str
    types: tuple[str, ...]
    default: object
    help: str
    range: tuple[float | None, float | None] | None = None
    choices: tuple[object, ...] = ()
    optional: bool = False
    ours: bool = False

    @property
    def type(self) -> str:
        """The types as one phrase, e.g. "int | float"."""
        return " | ".join(self.types)

    @property
    def for_training(self) -> bool:
        """False for arguments that only matter to predict, export and the like."""
        return self.group not in OTHER_MODES

    def check(self, value: Any) -> Any:
        """Return `value`, with 3.0 turned into 3 where only whole numbers are meant.

        Raises UserError with one line when the type, the range or the choice is wrong.
        """
        if value is None:
            if not (self.optional or self.default is None or self.name == "auto_augment"):
                raise UserError(f"{self.name}=None: expects {self.expects()} ({self.help})")
            return None
        value = self._typed(value)
        if self.choices and value not in self.choices and not (self._or_a_number and is_number(value)):
            raise UserError(f"{self.name}={show_value(value)}: expects {self.expects()}")
        if is_number(value) and not (math.isfinite(value) and self._in_range(value)):
            raise UserError(f"{self.name}={show_value(value)}: expects {self.expects()} ({self.help})")
        return value

    @property
    def _or_a_number(self) -> bool:
        return "float" in self.types

    def expects(self) -> str:
        if self.choices:
            choices = ", ".join(map(show_value, self.choices))
            return f"one of {choices}" + (" or a number" if self._or_a_number else "")
        what = " or ".join(dict.fromkeys(WANTED.get(kind, kind) for kind in self.types)) or "a value"
        lowest, highest = self.range or (None, None)
        if lowest is not None and highest is not None:
            return f"{what} from {lowest:g} to {highest:g}"
        return f"{what}, at least {lowest:g}" if lowest is not None else what

    def _typed(self, value: object) -> object:
        if not self.types or self._fits(value):
            return self._canonical(value)
        if isinstance(value, float) and value.is_integer() and "int" in self.types:
            return int(value)
        if isinstance(value, bool) and "float" in self.types and "int" not in self.types:
            return float(value)  # multi_scale was a yes or no before 8.4, which still takes both
        if not isinstance(value, (bool, list, tuple, dict)) and self.types == ("str",):
            return str(value)
        raise UserError(f"{self.name}={show_value(value)}: expects {self.expects()} ({self.help})")

    def _fits(self, value: object) -> bool:
        kind = type(value).__name__
        if kind == "int":
            return "int" in self.types or "float" in self.types
        return kind in self.types or (kind in ("tuple", "list") and bool({"list", "tuple"} & set(self.types)))

    def _canonical(self, value: object) -> object:
        """Return the spelling Ultralytics uses: any case of sgd is SGD, of BF16 is bf16."""
        if isinstance(value, str):
            for choice in self.choices:
                if isinstance(choice, str) and choice.lower() == value.lower():
                    return choice
        return value

    def _in_range(self, value: float) -> bool:
        lowest, highest = self.range or (None, None)
        return (lowest is None or value >= lowest) and (highest is None or value <= highest)


class Schema:
    """All settings by name, in the order a form shows them: Ultralytics' own, then ours."""

    def __init__(self, fields: Iterable[Field], version: str = "unknown") -> None:
        self.fields = {field.name: field for field in fields}
        self.version = version

    @classmethod
    def load(cls, python: str | None = None) -> Schema:
        """Return the schema of the Ultralytics that `python` (default: this interpreter) would train with.

        Raises UserError when there is none.
        """
        return _load(find_ultralytics(python))

    def field(self, name: str) -> Field:
        """Return the setting `name`. Raises UserError with the nearest name when there is none."""
        try:
            return self.fields[name]
        except KeyError:
            near = self.nearest(name)
            hint = f"did you mean {near}?" if near else "see the Ultralytics docs"
            raise UserError(f"unknown setting {name!r}: {hint}") from None

    def check(self, settings: Settings) -> dict[str, object]:
        """Return `settings` with every value checked. Raises UserError for the first that is wrong."""
        return {name: self.field(name).check(value) for name, value in settings.items()}

    def parse_assignments(self, words: Iterable[str]) -> dict[str, object]:
        """Return {name: value} from `key=value` words as the `yolo` command reads them; a later one wins.

        A bare name of a yes/no setting means True, as there. Raises UserError for an unknown name, a
        missing value or a wrong type.
        """
        return dict(self._assignment(word) for word in words)

    def split(self, settings: Settings) -> tuple[dict[str, object], dict[str, object]]:
        """Return (Ultralytics' arguments, nantui's own settings)."""
        own = {name for name, field in self.fields.items() if field.ours}
        train = {name: value for name, value in settings.items() if name not in own}
        return train, {name: value for name, value in settings.items() if name in own}

    def defaults(self) -> dict[str, object]:
        return {name: field.default for name, field in self.fields.items()}

    def _assignment(self, word: str) -> tuple[str, object]:
        name, equals, text = word.partition("=")
        name = name.strip().removeprefix("--")
        field = self.field(name)
        if not equals:
            if isinstance(field.default, bool):
                return name, True
            raise UserError(
                f"{name}: a value is missing; write, for example, {name}={show_value(field.default)}"
            )
        text = text.strip().removesuffix(",")
        if not text:
            raise UserError(f"{name}=: a value is missing; it expects {field.expects()}")
        return name, field.check(parse_value(name, text))

    def nearest(self, name: str) -> str | None:
        """Return the setting most likely meant by `name`, or None."""
        lowered = name.lower().replace("-", "_")
        if HABITS.get(lowered) in self.fields:
            return HABITS[lowered]
        training = [field for field, known in self.fields.items() if known.for_training]
        for names in (training, list(self.fields)):
            if found := difflib.get_close_matches(lowered, names, n=1):
                return found[0]
        return None


@lru_cache(maxsize=4)
def _load(package: Path) -> Schema:
    ranges = read_ranges(package)
    fields = [_field(argument, ranges) for argument in read_arguments(package)]
    for name, words in ACCEPTED_BY_ULTRALYTICS.items():
        kind = "str" if name == "save_dir" else "list"
        fields.append(Field(name, "Train", (kind,), None, words, optional=True))
    own = [Field(group=our_settings.GROUP, ours=True, **described) for described in our_settings.describe()]
    return Schema([*fields, *own], read_version(package))


def _field(argument: JsonObject, ranges: dict[str, tuple[float | None, float | None]]) -> Field:
    name, types = argument["name"], argument["types"]
    choices: tuple[object, ...] = CHOICES.get(name, ()) if "str" in types else ()
    if name == "optimizer":
        choices = _optimizers(argument["help"])
    limits = None if "list" in types else ranges.get(name)  # a list's numbers mean something else
    return Field(range=SIDES if name == "imgsz" else limits, choices=choices, **argument)


def _optimizers(text: str) -> tuple[str, ...]:
    """Return the names listed in the help of `optimizer`; RMSProp there is RMSprop in the code."""
    words = re.findall(r"[A-Za-z]+", text.partition(":")[2] or text.replace("choices=", ""))
    names = ("RMSprop" if word.lower() == "rmsprop" else word for word in words)
    return tuple(dict.fromkeys(name for name in names if name not in ("or", "optimizer")))

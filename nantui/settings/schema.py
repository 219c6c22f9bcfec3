"""Which settings exist, what they accept, and a clear line for what they do not.

Ultralytics' arguments are read from the *installed* release's files without importing it, which would mean
importing torch: seconds and hundreds of megabytes that a form or a typo check does not need.
`cfg/default.yaml` holds names, defaults and, in its comments, types and help; `cfg/__init__.py` holds the
ranges as plain literals. Ultralytics' own checks have the last word later, in a helper with torch
(worker/check_arguments.py); these here answer at once.

Our own settings stand beside them and are marked: stock Ultralytics knows none of these names.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from nantui.errors import UserError
from nantui.machine.training_python import locate, training_python
from nantui.run.atomic_files import read_text
from nantui.run.documents import Settings, table
from nantui.run.spec import OURS, OURS_CHOICES, OURS_DEFAULTS, OURS_NUMBERS
from nantui.settings.values import is_number, parse_value, show_value
from nantui.terminal_text import printable

OTHER_MODES = frozenset({"Predict", "Visualize", "Export", "Tracker", "Custom config.yaml"})
HABITS = table("habits")
Range: TypeAlias = tuple[float | None, float | None]
"""Lowest and highest; None where there is no such bound."""
SIDES: Range = (1.0, None)
"""Ultralytics takes an image side of -3 for the smallest that it can (`check_imgsz`); nobody means that."""
CHOICES: Mapping[str, tuple[object, ...]] = {"amp": (True, False, "fp16", "bf16", "fp32")}
WANTED = {
    "int": "a whole number", "float": "a number", "bool": "True or False", "str": "a word", "list": "a list",
    "tuple": "a list",
}  # fmt: skip
DEVICES = re.compile(
    r"(cpu(,cpu)*|mps(:0)?|cuda|[nx]pu(:\d+(,\d+)*)?|(cuda:)?(-1|\d+)(,(cuda:)?(-1|\d+))*)?", re.IGNORECASE
)
"""What `utils.torch_utils.select_device` trains on, and "cpu,cpu": two ranks without a GPU."""
LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where it is there: eight times as fast, and the form opens at once."""
LINE = re.compile(r"^(?P<name>[a-z_0-9]+):(?P<value>[^#]*)(?:#\s*(?:\((?P<types>[^)]*)\))?\s*(?P<help>.*))?$")
HEADING = re.compile(r"^#\s*(?P<name>[A-Z][\w/ .-]*?)\s*-*\s*$")
GROUP = "nantui"
SETTLED = frozenset({"save_dir", "project", "name", "exist_ok", "resume", "mode", "task"})
"""What no run changes once it has been made: where it lies, and what it does."""


@dataclass(frozen=True)
class Field:
    """One setting. `types` are names such as "int"; `range` is (lowest, highest), either may be None."""

    name: str
    group: str
    types: tuple[str, ...]
    default: object
    help: str
    range: Range | None = None
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
        """Return `value` as Ultralytics spells it: 3 for 3.0 where whole numbers are meant, SGD for sgd.

        Raises UserError with one line when the type, the range or the choice is wrong.
        """
        if value is None and self.optional:
            return None
        typed = self._typed(value)
        if not (self._fits(typed) and self._allows(typed)):
            shown = printable(show_value(value), 40, "..")
            raise UserError(f"{self.name}={shown}: expects {self.expects()} ({self.help})")
        return typed

    def expects(self) -> str:
        if self.name == "device":
            return "cpu, mps, a GPU's number, several such as 0,1, -1 for an idle GPU, npu:0 or xpu:0"
        if self.choices:
            choices = ", ".join(map(show_value, self.choices))
            return f"one of {choices}" + (" or a number" if "float" in self.types else "")
        what = " or ".join(dict.fromkeys(WANTED.get(kind, kind) for kind in self.types)) or "a value"
        lowest, highest = self.range or (None, None)
        if lowest is not None and highest is not None:
            return f"{what} from {lowest:g} to {highest:g}"
        return f"{what}, at least {lowest:g}" if lowest is not None else what

    def _typed(self, value: object) -> object:
        if isinstance(value, str):
            spelt = {choice.lower(): choice for choice in self.choices if isinstance(choice, str)}
            return spelt.get(value.lower(), value)
        if is_number(value) and self.types == ("str",):
            return str(value)
        if "float" not in self.types and "int" in self.types:
            return int(value) if isinstance(value, float) and value.is_integer() else value
        # multi_scale was a yes or no before 8.4, which still takes both
        no_other = not {"int", "bool"} & set(self.types)
        return float(value) if isinstance(value, bool) and "float" in self.types and no_other else value

    def _fits(self, value: object) -> bool:
        kind = type(value).__name__
        alike = {"int": {"int", "float"}, "tuple": {"tuple", "list"}, "list": {"tuple", "list"}}
        return not self.types or bool(alike.get(kind, {kind}) & set(self.types))

    def _allows(self, value: object) -> bool:
        if self.name == "device" and not DEVICES.fullmatch(re.sub(r"[\s\[\]()'\"]", "", str(value))):
            return False
        if not is_number(value):
            return not self.choices or value in self.choices
        lowest, highest = self.range or (None, None)
        in_range = (lowest is None or value >= lowest) and (highest is None or value <= highest)
        return math.isfinite(value) and in_range and (not self.choices or "float" in self.types)


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

    def changes(self, words: Iterable[str]) -> dict[str, object]:
        """Return the same for a run that has been made. Raises UserError also for what is settled then."""
        found = self.parse_assignments(words)
        for name in SETTLED & found.keys():
            raise UserError(f"{name}: settled when the run was made; `recover --into NAME` makes another run")
        return found

    def defaults(self) -> dict[str, object]:
        return {name: field.default for name, field in self.fields.items()}

    def _assignment(self, word: str) -> tuple[str, object]:
        name, equals, text = word.partition("=")
        name = name.strip().removeprefix("--")
        field = self.field(name)
        if not equals:
            if isinstance(field.default, bool):
                return name, True
            example = f"{name}={show_value(field.default)}"
            raise UserError(f"{name}: a value is missing; write, for example, {example}")
        text = text.strip().removesuffix(",")
        if not text:
            raise UserError(f"{name}=: a value is missing; it expects {field.expects()}")
        value, digits = parse_value(name, text), re.search("[1-9]", text.lower().partition("e")[0])
        if isinstance(value, float) and (math.isinf(value) or (digits and not value)):
            raise UserError(f"{name}={text}: a computer would take it for {value:g}; give another number")
        return name, field.check(value)

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


PLACE = "directory of the run, instead of project and name"
TRANSFORMS = "custom Albumentations transforms (set from Python only)"
ACCEPTED_BY_ULTRALYTICS = (
    Field("save_dir", "Train", ("str",), None, PLACE, optional=True),
    Field("augmentations", "Train", ("list",), None, TRANSFORMS, optional=True),
)


def find_ultralytics(python: str | None = None) -> Path:
    """Return the directory of the Ultralytics package that `python` (default: the one that trains) imports.

    Raises UserError when there is none, or the interpreter cannot be run.
    """
    return _package_of(training_python(python))


@lru_cache(maxsize=8)
def _package_of(python: str) -> Path:
    (origin,) = locate(python, ("ultralytics",))
    if not origin:
        raise UserError(f"{python} has no Ultralytics; install it there, or give another --python PATH")
    return Path(origin).parent


@lru_cache(maxsize=4)
def _load(package: Path) -> Schema:
    fields = [*_read_arguments(package), *ACCEPTED_BY_ULTRALYTICS, *own_settings()]
    return Schema(fields, read_version(package))


def own_settings() -> Iterator[Field]:
    """Yield nantui's own settings, described like Ultralytics' so that one form and one parser serve both."""
    for name, default in OURS_DEFAULTS.items():
        kind, told = type(default).__name__, OURS[name]
        types = (kind, "float") if name in OURS_NUMBERS else (kind,)
        has_range = name in OURS_NUMBERS or is_number(default)
        limits = (told.get("lowest", 0), told.get("highest")) if has_range else None
        choices = OURS_CHOICES.get(name, ())
        yield Field(name, GROUP, types, default, told["help"], limits, choices, ours=True)


def _read_arguments(package: Path) -> Iterator[Field]:
    """Yield each argument of `cfg/default.yaml`, in the file's order.

    Raises UserError when the file is missing or no YAML, which means a broken or very old installation.
    """
    path = package / "cfg" / "default.yaml"
    try:
        text = path.read_text(encoding="utf-8")
        defaults = yaml.load(text, Loader=LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {error}; reinstall ultralytics (8.0.100 or newer)") from None
    group, ranges = "General", _read_ranges(package)
    for line in text.splitlines():
        if heading := HEADING.match(line):
            group = heading["name"].removesuffix(" settings").strip()
        elif (found := LINE.match(line)) and isinstance(defaults, dict) and found["name"] in defaults:
            name = found["name"]
            yield _argument(name, group, defaults[name], found["types"], found["help"], ranges.get(name))


def _argument(
    name: str, group: str, default: object, told: str | None, help: str | None, limits: Range | None
) -> Field:
    words = [word.strip() for word in re.split(r"[|,]", told or "")]
    types = tuple(re.sub(r"\[.*", "", word) for word in words if word and word != "optional")
    types = types or ((type(default).__name__,) if default is not None else ())
    choices = CHOICES.get(name, ()) if "str" in types else ()
    if name == "optimizer":
        choices = _optimizers(help or "")
    if name == "imgsz" or "list" in types:  # a list's numbers mean something else
        limits = SIDES if name == "imgsz" else None
    optional = "optional" in words or default is None or name == "auto_augment"
    return Field(name, group, types, default, (help or "").strip(), limits, choices, optional)


def _read_ranges(package: Path) -> dict[str, Range]:
    """Return the ranges as `cfg/__init__.py` checks them, {} where it does not."""
    tables: dict[str, Any] = {"CFG_INT_MIN": {}, "CFG_FRACTION_KEYS": ()}
    with contextlib.suppress(SyntaxError, ValueError):
        for node in ast.parse(read_text(package / "cfg" / "__init__.py") or "").body:
            match node:
                case ast.Assign([ast.Name(name)], ast.Call(args=[value]) | value) if name in tables:
                    tables[name] = ast.literal_eval(value)
    lowest: dict[str, Range] = {name: (least, None) for name, least in dict(tables["CFG_INT_MIN"]).items()}
    return {**dict.fromkeys(tables["CFG_FRACTION_KEYS"], (0.0, 1.0)), **lowest}


def read_version(package: Path) -> str:
    """Return the package's version, or "unknown"."""
    found = re.search(r'__version__\s*=\s*"([^"]+)"', read_text(package / "__init__.py") or "")
    return found[1] if found else "unknown"


def _optimizers(text: str) -> tuple[str, ...]:
    """Return the names listed in the help of `optimizer`; RMSProp there is RMSprop in the code."""
    words = re.findall(r"[A-Za-z]+", text.partition(":")[2] or text.replace("choices=", ""))
    names = ("RMSprop" if word.lower() == "rmsprop" else word for word in words)
    return tuple(dict.fromkeys(name for name in names if name not in ("or", "optimizer")))

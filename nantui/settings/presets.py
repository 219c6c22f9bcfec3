"""Presets: named remedies as commented YAML, shipped, the user's own and the project's.

A preset touches only what it names, compared with what the run has *in effect*, not
with what was once asked for. Each entry is a bound (`at_most`, `at_least` or `exactly`), for on somebody
else's run a remedy must never make things less safe: where the run is already on the safe side of it, the
row says so and nothing changes.

A remedy may ask for a further phase once the run has finished, which takes back what it gave up: smaller
images get a training past its trouble, and a short training at the old size and a low rate then gives back
what they cost.

Plans, YAML files too, are several trainings one after another, each from the weights of the one before, shown
as one run: `phases`, each a title and settings (configs/progressive.yaml is the guide's).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import yaml

from nantui.errors import UserError
from nantui.paths import configs_dir, user_config_dir
from nantui.run.documents import Settings
from nantui.run.plan import PlanPhase
from nantui.settings.schema import SETTLED, Schema
from nantui.settings.values import Change, changed, is_number, merge, number, same_value, show_value

AT_MOST, AT_LEAST, EXACTLY = "at_most", "at_least", "exactly"
KINDS = (AT_MOST, AT_LEAST, EXACTLY)
SAFER = "kept: yours is safer"
HALF = "half"
AFTERWARDS_KEYS = frozenset({"title", "before", "epochs", "settings"})
PROJECT_FOLDER = Path(".nantui") / "presets"
KEYS = frozenset({"name", "title", "about", "plan", "settings", "then"})
SHIPPED, USER, PROJECT = "shipped", "user", "project"
Document = TypeVar("Document", dict[str, Any], list[Any])


@dataclass(frozen=True)
class Bound:
    """One entry: `kind` of KINDS, the `value` it allows, and why."""

    name: str
    kind: str
    value: object
    why: str

    def against(self, now: object) -> Change | None:
        """Return the row for a run in which `now` is in effect, None where it is so already."""
        wanted = max(1, int(now) // 2) if self.value == HALF and is_number(now) else self.value
        if same_value(now, wanted) or (self.name == "amp" and precision(now) == precision(wanted)):
            return None
        if kept := self.keep(now, wanted):
            return Change(self.name, now, now, kept, kept=True)
        return Change(self.name, now, wanted, self.why)

    def keep(self, now: object, wanted: object) -> str:
        """Return why the run's own value stays, or "" when the entry's must take its place."""
        if wanted == HALF or (self.name == "batch" and is_number(now) and now < 1):
            return f"kept: {self.name}={show_value(now)} lets Ultralytics choose; set a number to bound it"
        if self.name == "amp" and precision(now) in ("fp32", "bf16"):
            return SAFER if precision(now) == "fp32" else f"{SAFER} (bf16 does not overflow either)"
        if self.kind == EXACTLY:
            return ""
        strength, allowed = magnitude(self.name, now), magnitude(self.name, wanted)
        if strength is None or allowed is None:
            return ""
        safe = strength <= allowed if self.kind == AT_MOST else strength >= allowed
        return SAFER if safe else ""


def magnitude(name: str, value: object) -> float | None:
    """Return how strong a setting is, as a number that can be compared; None for what has no order.

    Ultralytics writes "never" as 0 (patience) or below 1 (save_period); a `scale` may be a pair and an
    `imgsz` a list.
    """
    if isinstance(value, (list, tuple)) and value and all(is_number(item) for item in value):
        return max(abs(item - 1) for item in value) if name == "scale" else float(max(value))
    if not is_number(value):
        return None
    if (name in ("patience", "grad_clip") and value == 0) or (name == "save_period" and value < 1):
        return math.inf
    return float(value)


def precision(amp: object) -> object:
    """Return what a value of `amp` means; fp32, and bf16 with its range, do not overflow where fp16 does."""
    return amp if not isinstance(amp, bool) else "fp16" if amp else "fp32"


@dataclass(frozen=True)
class Afterwards:
    """`before` names settings that go back to what they were; `share` is the part of the run's epochs."""

    title: str
    before: tuple[str, ...]
    share: float
    bounds: tuple[Bound, ...]


def read_afterwards(entry: object, schema: Schema) -> Afterwards | None:
    """Return a preset's `then:`. Raises UserError when it is wrong."""
    if entry is None:
        return None
    share = entry.get("epochs") if isinstance(entry, dict) and not set(entry) - AFTERWARDS_KEYS else None
    if not isinstance(entry, dict) or not is_number(share) or not 0 < share <= 1:
        raise UserError("then: needs `before: [imgsz]` and `epochs: 0.25`, a share of the run's epochs")
    before = tuple(str(name) for name in entry.get("before") or ())
    bounds = tuple(_bound(name, one, schema) for name, one in (entry.get("settings") or {}).items())
    return Afterwards(str(entry.get("title") or ""), before, float(share), bounds)


def phase_after(
    wanted: Iterable[Afterwards | None], in_effect: Mapping[str, object], rows: Iterable[Change]
) -> PlanPhase | None:
    """Return the phase that follows a run whose settings `in_effect` are changed by `rows`; None when the
    remedies give up nothing that it would take back.
    """
    changes = changed(rows)
    for one in wanted:
        again = {name: in_effect[name] for name in one.before if name in changes} if one else {}
        if one is None or not again:
            continue
        then = {**in_effect, **changes}
        lower = [row for bound in one.bounds if (row := bound.against(then.get(bound.name)))]
        epochs = max(round(one.share * number(then.get("epochs") or 1)), 1)
        return PlanPhase(one.title, {**again, "epochs": epochs, **changed(lower)})
    return None


def as_words(phase: PlanPhase) -> list[str]:
    """Return a phase's settings as `nantui resume RUN --phase …` takes them."""
    return [f"{name}={show_value(value)}" for name, value in phase.settings.items()]


@dataclass(frozen=True)
class Preset:
    """A named set of bounds from the file `path`; `source` says whose it is, `then` is the phase that it asks
    for once the run has finished.

    `unfit` says why a shipped one cannot be used with the installed Ultralytics (an older one knows no
    amp=bf16); it has no bounds then, and changes nothing.
    """

    name: str
    title: str
    source: str
    path: Path
    bounds: tuple[Bound, ...] = ()
    then: Afterwards | None = None
    unfit: str = ""


def apply(preset: Preset, in_effect: Settings, known: Collection[str] | None = None) -> list[Change]:
    """Return what `preset` changes on a run with the settings `in_effect`, and what it keeps and why.

    Settings that stand as the preset wants them give no row. `known` are the settings of the installed
    Ultralytics: an entry that it does not know is kept.
    """
    rows = []
    for bound in preset.bounds:
        now = in_effect.get(bound.name)
        if known is not None and bound.name not in known:
            rows.append(Change(bound.name, now, now, "kept: this Ultralytics does not know it", kept=True))
        elif row := bound.against(now):
            rows.append(row)
    return rows


def apply_all(
    presets: Iterable[Preset], in_effect: Settings, known: Collection[str] | None = None
) -> list[Change]:
    """Return the rows of several presets, each applied on top of the ones before it."""
    layers: list[list[Change]] = []
    current = dict(in_effect)
    for preset in presets:
        layers.append(apply(preset, current, known))
        current.update({row.name: row.then for row in layers[-1]})
    return merge(*layers)


def load_presets(schema: Schema, start: Path | None = None) -> dict[str, Preset]:
    """Return every preset by name: shipped, then the user's, then the project's, a later one winning.

    `start` is a run or a working directory; the project's presets are in `.nantui/presets/` there or above.
    Raises UserError naming the file when one is wrong.
    """
    places = [(SHIPPED, configs_dir() / "presets"), (USER, user_config_dir() / "presets")]
    top = (start or Path.cwd()).absolute()
    nearest = (place for above in (top, *top.parents) if (place := above / PROJECT_FOLDER).is_dir())
    places += [(PROJECT, place) for place in islice(nearest, 1)]
    presets: dict[str, Preset] = {}
    for source, directory in places:
        for path in sorted(directory.glob("*.y*ml")) if directory.is_dir() else []:
            preset = read_preset(path, schema, source)
            presets[preset.name] = preset
    return presets


def find_presets(names: Iterable[str], schema: Schema, start: Path | None = None) -> list[Preset]:
    """Return the presets called `names`. Raises UserError with the list when one does not exist."""
    wanted = list(names)
    known = load_presets(schema, start) if wanted else {}
    for name in wanted:
        if name not in known:
            own = user_config_dir() / "presets"
            raise UserError(f"no preset {name!r}; there are {', '.join(known)} (your own go to {own})")
        if known[name].unfit:
            raise UserError(f"preset {name}: {known[name].unfit}")
    return [known[name] for name in wanted]


def read_preset(path: Path, schema: Schema, source: str = USER) -> Preset:
    """Return the preset in the file `path`.

    Raises UserError with the file's name for bad YAML, an unknown setting or a value of the wrong type.
    """
    wanted = "a preset needs `settings:` with lines like `lr0: {at_most: 0.01, why: …}`"
    document = load_yaml(path, dict, wanted)
    if not isinstance(document.get("settings"), dict):
        raise UserError(f"{path}: {wanted}")
    name, title = (str(document.get(key) or "").strip() for key in ("name", "title"))
    preset = Preset(name or path.stem, title, source, path)
    try:
        if unknown := sorted(map(str, set(document) - KEYS)):  # a misspelt key would be left out unseen
            raise UserError(f"unknown key {unknown[0]!r}; a preset has {', '.join(sorted(KEYS))}")
        bounds = tuple(_bound(setting, entry, schema) for setting, entry in document["settings"].items())
        return replace(preset, bounds=bounds, then=read_afterwards(document.get("then"), schema))
    except UserError as error:
        if source == SHIPPED:
            return replace(preset, unfit=f"this Ultralytics does not take {error}")
        raise UserError(f"{path}: {error}") from None


def load_yaml(path: Path, kind: type[Document], wanted: str) -> Document:
    """Return the list or mapping (`kind`) that a YAML file holds. Raises UserError, with what is wanted."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}; {wanted}") from None
    if not isinstance(document, kind):
        raise UserError(f"{path}: {wanted}")
    return document


def _bound(name: str, entry: object, schema: Schema) -> Bound:
    field = schema.fields.get(str(name))
    if not isinstance(entry, dict) or len(kinds := [kind for kind in KINDS if kind in entry]) != 1:
        raise UserError(f"{name}: give one of {', '.join(KINDS)}, e.g. {name}: {{at_most: 0.01, why: …}}")
    if unknown := set(entry) - {*KINDS, "why"}:
        raise UserError(f"{name}: unknown key {sorted(unknown)[0]!r}; there are {', '.join(KINDS)} and why")
    if field is None and schema.nearest(str(name)):
        schema.field(str(name))
    value = entry[kinds[0]]
    if field is not None and value != HALF:
        value = field.check(value)
    return Bound(str(name), kinds[0], value, str(entry.get("why") or ""))


def read_phases(plan: str, schema: Schema) -> list[PlanPhase]:
    """Return the phases of a plan: a file, or the name of one of the user's or the shipped plans.

    Raises UserError naming the file when it is wrong.
    """
    places = (Path(plan), user_config_dir() / f"{plan}.yaml", configs_dir() / f"{plan}.yaml")
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise UserError(f"no plan {plan!r}: give a YAML file, or `progressive`")
    wanted = "a plan needs `phases:`, each with `settings:`"
    document = load_yaml(path, dict, wanted)
    try:
        listed = document["phases"]
        phases = [PlanPhase(str(one.get("title") or ""), checked(one["settings"], schema)) for one in listed]
        if not phases:
            raise UserError("a plan needs at least one phase")
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: {wanted}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return phases


def checked(settings: Mapping[str, object], schema: Schema) -> dict[str, object]:
    """Return a phase's settings, checked. Raises UserError for a wrong one, or one that is not a phase's."""
    for name in sorted({"model", *SETTLED} & settings.keys()):
        raise UserError(f"{name}: a phase cannot set it; it goes on from the weights of the one before")
    return schema.check(settings)

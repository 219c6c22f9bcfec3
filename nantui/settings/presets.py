"""Presets: named remedies as commented YAML, shipped, the user's own and the project's.

A preset touches only what it names, entry by entry as a bound (settings/bounds.py), compared with what
the run has *in effect* (settings/effective.py), not with what was once asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nantui.errors import UserError
from nantui.paths import configs_dir, user_config_dir
from nantui.settings.afterwards import Afterwards, read_afterwards
from nantui.settings.bounds import HALF, KINDS, Bound
from nantui.settings.diff import Change, merge
from nantui.settings.schema import Schema

PROJECT_FOLDER = Path(".nantui") / "presets"
KEYS = frozenset({"name", "title", "about", "plan", "settings", "then"})
SHIPPED, USER, PROJECT = "shipped", "user", "project"


@dataclass(frozen=True)
class Preset:
    """A named set of bounds. `source` says whose it is; `plan` is "resume" or "restart" where it matters;
    `then` is the phase that it asks for once the run has finished.

    `unfit` says why a shipped one cannot be used with the installed Ultralytics (an older one knows no
    amp=bf16); it has no bounds then, and changes nothing.
    """

    name: str
    title: str
    bounds: tuple[Bound, ...]
    about: str = ""
    plan: str = ""
    source: str = SHIPPED
    path: Path | None = None
    unfit: str = ""
    then: Afterwards | None = None

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of the settings it touches."""
        return tuple(bound.name for bound in self.bounds)


def apply(preset: Preset, in_effect: Mapping[str, Any], known: Collection[str] | None = None) -> list[Change]:
    """Return what `preset` changes on a run with the settings `in_effect`, and what it keeps and why.

    Settings that stand as the preset wants them give no row. `known` are the settings of the installed
    Ultralytics: an entry that it does not know is kept.
    """
    rows = (_row(bound, in_effect, known) for bound in preset.bounds)
    return [row for row in rows if row is not None]


def apply_all(
    presets: Iterable[Preset], in_effect: Mapping[str, Any], known: Collection[str] | None = None
) -> list[Change]:
    """Return the rows of several presets, each applied on top of the ones before it."""
    layers: list[list[Change]] = []
    current = dict(in_effect)
    for preset in presets:
        layers.append(apply(preset, current, known))
        current.update({row.name: row.then for row in layers[-1]})
    return merge(*layers)


def _row(bound: Bound, in_effect: Mapping[str, Any], known: Collection[str] | None) -> Change | None:
    now = in_effect.get(bound.name)
    if known is not None and bound.name not in known:
        return Change(bound.name, now, now, "kept: this Ultralytics does not know it", kept=True)
    return bound.against(now)


def load_presets(schema: Schema, start: Path | None = None) -> dict[str, Preset]:
    """Return every preset by name: shipped, then the user's, then the project's, a later one winning.

    `start` is a run or a working directory; the project's presets are in `.nantui/presets/` there or above.
    Raises UserError naming the file when one is wrong.
    """
    places = [(SHIPPED, configs_dir() / "presets"), (USER, user_config_dir() / "presets")]
    if project := project_presets(start or Path.cwd()):
        places.append((PROJECT, project))
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


def project_presets(start: Path) -> Path | None:
    """Return the nearest `.nantui/presets` at or above `start`, or None."""
    start = start.absolute()
    return next((place for top in (start, *start.parents) if (place := top / PROJECT_FOLDER).is_dir()), None)


def read_preset(path: Path, schema: Schema, source: str = USER) -> Preset:
    """Return the preset in the file `path`.

    Raises UserError with the file's name for bad YAML, an unknown setting or a value of the wrong type.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(document, dict) or not isinstance(document.get("settings"), dict):
        raise UserError(
            f"{path}: a preset needs `settings:` with lines like `lr0: {{at_most: 0.01, why: …}}`"
        )
    bounds: tuple[Bound, ...] = ()
    unfit, then = "", None
    try:
        refuse_unknown(document)
        bounds = tuple(_bound(name, entry, schema) for name, entry in document["settings"].items())
        later = document.get("then")
        lower = ((later or {}).get("settings") or {}).items() if isinstance(later, dict) else ()
        then = read_afterwards(later, tuple(_bound(name, entry, schema) for name, entry in lower))
    except UserError as error:
        unfit = f"this Ultralytics does not take {error}"
        if source != SHIPPED:
            raise UserError(f"{path}: {error}") from None
    name, title, about, plan = (
        str(document.get(key) or "").strip() for key in ("name", "title", "about", "plan")
    )
    return Preset(name or path.stem, title, bounds, about, plan, source, path, unfit, then)


def refuse_unknown(document: Mapping[str, Any]) -> None:
    """Raise UserError for a key of the file that no preset has: a misspelt one would be left out unseen."""
    if unknown := sorted(map(str, set(document) - KEYS)):
        raise UserError(f"unknown key {unknown[0]!r}; a preset has {', '.join(sorted(KEYS))}")


def _bound(name: str, entry: Any, schema: Schema) -> Bound:
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

"""What going on with a run that was not made here would run: shown and agreed to once, then the run is bound.

A run directory of somebody else names an interpreter, a command, a data set with code of its own, files that
PyTorch unpickles. Nobody can agree to what is not shown.
"""

from __future__ import annotations

import os
import shlex
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nantui.checkpoint.catalog import Catalog
from nantui.checkpoint.verdict import Verdict
from nantui.errors import FAILED, NO, UserError
from nantui.run.atomic_files import read_yaml
from nantui.run.binding import HERE, MOVED, STARTS, standing, was_in
from nantui.run.documents import fields_of
from nantui.run.events import Created, newest
from nantui.run.journal import Journal, pending_edits
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.run.spec import Spec, read_args

PICKLES = (".pt", ".pth", ".pkl", ".ckpt")
NOT_LOADED_AGAIN = frozenset({"model", "pretrained", "resume"})
"""A resume takes its weights from the checkpoint instead (`BaseTrainer.check_resume`, engine/trainer.py)."""


def refuse_unagreed(layout: RunLayout, kind: str) -> None:
    """Raise UserError for a command that would start what nobody here has agreed to."""
    if kind in STARTS and would_run(layout):
        word = kind if kind in ("rollback", "recover") else "resume"
        say = f"`nantui {word} {shlex.quote(str(layout.run))}`"
        raise UserError(f"{layout.run} was not made here: {say} shows what it would run, and asks", FAILED)


def would_run(layout: RunLayout) -> list[str]:
    """Return, in lines, why the run is not simply this user's own and what going on with it would run.

    None for one that was made here, and for one of plain Ultralytics whose data set brings no code along: it
    names no program, and its checkpoints are judged before they are loaded.
    """
    known, spec = standing(layout.run), read_yaml(layout.spec)
    asked = fields_of(Spec, spec or {})
    strange = known != HERE and layout.is_ours()
    if not strange and spec is not None:
        return []
    catalog, journal = Catalog(layout.weights), Journal(layout.journal).events()
    verdicts = [catalog.verdict(file.path) for file in catalog.files() if not file.in_backup]
    edits = pending_edits(journal) if strange else {}
    named = [read_args(layout.args_yaml), edits, *(one.train_args for one in verdicts), *_asked(asked)]
    created = newest(journal, Created)
    places = [Path(), layout.run, Path(created.cwd if created else "")]
    data = list(dict.fromkeys(str(one["data"]) for one in named if one.get("data")))
    code = [line for one in data for line in _code_of(one, places)]
    if not strange and not code:
        return []
    where = next((one["save_dir"] for one in named if one.get("save_dir")), "another place")
    lines = [f"moved here from {was_in(layout.run)}" if known == MOVED else f"not made here, but in {where}"]
    lines += [*_programs(asked), *(f"sets {name}={value}" for name, value in edits.items())]
    lines += [*(f"trains on the data set {one}" for one in data), *code]
    return [*(lines if strange else lines[1:]), *_unpickled(layout, verdicts, named)]


def _asked(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    phases = (spec.get("plan") or {}).get("phases")
    own = [one.get("settings") for one in phases if isinstance(one, dict)] if isinstance(phases, list) else []
    return [one for one in (spec.get("train"), *own) if isinstance(one, dict)]


def _programs(spec: Mapping[str, Any]) -> Iterator[str]:
    if spec.get("python"):
        yield f"runs the interpreter {spec['python']}"
    if spec.get("exec"):
        argv, kept = spec["exec"].get("argv"), spec["exec"].get("env")
        words = shlex.join(map(str, argv)) if isinstance(argv, list) else str(argv)
        yield f"runs the command {words} in {spec['exec'].get('cwd')}"
        kept = {str(name): str(value) for name, value in kept.items()} if isinstance(kept, dict) else {}
        yield from (f"  with {name}={value}" for name, value in sorted(kept.items() - os.environ.items()))
    if spec.get("auto"):
        yield "goes on by itself after a divergence or a crash (auto)"


def _code_of(data: str, places: Iterable[Path]) -> Iterator[str]:
    """Yield the script of a data set's `download:`, which Ultralytics runs where images are missing
    (`check_det_dataset`, data/utils.py); an address that it only fetches is none.
    """
    found = (read_yaml(place / data) for place in places)
    said = next((one for one in found if one is not None), {}).get("download")
    if isinstance(said, str) and not said.startswith("http") and not _is_ultralytics_own(data):
        yield f"runs this code of {data} where images are missing:"
        yield from (f"  {line}" for line in said.strip().splitlines())


def _is_ultralytics_own(data: str) -> bool:
    from nantui.settings.schema import find_ultralytics

    try:
        return Path(data).resolve().is_relative_to(find_ultralytics().resolve())
    except UserError:
        return False


def _unpickled(layout: RunLayout, own: list[Verdict], named: list[Mapping[str, Any]]) -> Iterator[str]:
    paths = {path for settings in named for path in named_files(settings).values()}
    more = [Catalog(path.parent).verdict(path) for path in sorted(paths - {one.path for one in own})]
    for verdict in [*own, *more]:
        path, names = verdict.path, ", ".join(verdict.names_to_allow)
        shown = path.relative_to(layout.run) if path.is_relative_to(layout.run) else path
        yield f"unpickles {shown} ({verdict.badge}{f', runs code of {names}' if names else ''})"


def named_files(settings: Mapping[str, Any]) -> dict[str, Path]:
    """Return the files that settings name and PyTorch would unpickle, such as a distillation's teacher."""
    paths = {name: Path(value) for name, value in settings.items() if isinstance(value, str) and value}
    return {name: path for name, path in paths.items() if _is_pickle(path)}


def _is_pickle(path: Path) -> bool:
    try:
        return path.is_file() and (path.suffix in PICKLES or zipfile.is_zipfile(path))
    except (OSError, ValueError):
        return False


def refuse_named(record: RunRecord, restore: Verdict | None, allow: Collection[str]) -> None:
    """Raise UserError where a file that would be unpickled beside the restore point is not judged safe.

    A checkpoint's own arguments name such files, and args.yaml does. What the spec names was said by whoever
    made the run here, or agreed to.
    """
    said = record.spec.train if record.spec else {}
    settings = {**record.args, **(restore.train_args if restore else {})}
    for name, path in named_files(settings).items():
        if said.get(name) == settings[name] or (restore and name in NOT_LOADED_AGAIN):
            continue
        verdict = Catalog(path.parent, allow).verdict(path, crc=True)
        refuse_code(verdict, f"{name}={path}", allow)
        if verdict.badge == "unreadable" and not verdict.names_to_allow:
            why = ", ".join(finding.kind for finding in verdict.findings)
            raise UserError(f"{name}={path} cannot be judged ({why}), and is not loaded", NO)


def refuse_code(verdict: Verdict, what: str, allow: Collection[str]) -> None:
    """Raise UserError where loading a file runs code whose names nobody has allowed."""
    if names := " ".join(sorted(set(verdict.names_to_allow) - set(allow))):
        raise UserError(f"loading {what} runs code of {names}; allow it by name: --allow {names}", NO)

"""Which interpreter trains: nantui's own environment need not hold torch and Ultralytics.

What a person names (`--python`) and what the run itself recorded are taken as they are: whatever they lack is
said where they are used. Without either, the first of these that finds both libraries: nantui's own
interpreter, `$VIRTUAL_ENV`, `$CONDA_PREFIX`, `python3` on the path. Nothing is imported to find out.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from nantui.errors import UserError
from nantui.paths import interpreter

LIBRARIES = ("torch", "ultralytics")
LOOK = (
    "import importlib.util as u, sys\n"
    "specs = [u.find_spec(name) for name in sys.argv[1:]]\n"
    "print('\\n'.join(spec.origin or '' if spec else '' for spec in specs))"
)
LOOK_S = 60.0
NONE = (
    "no interpreter here has torch and Ultralytics ({tried}); install them in one of these, "
    "pip install 'nantui[train]', or name the one that trains: --python PATH"
)


def training_python(*named: str | None) -> str:
    """Return the first of `named` that is not empty, else the one that is found.

    Raises UserError where none is named and none is found.
    """
    return next(filter(None, named), None) or find_training_python()[0]


@lru_cache(maxsize=1)
def find_training_python() -> tuple[str, str]:
    """Return the interpreter that trains where nobody named one, and where it was found.

    Raises UserError where there is none.
    """
    tried = []
    for path, where in _candidates():
        if all(locate(path, LIBRARIES)):
            return path, where
        tried.append(f"{where}: {path}")
    raise UserError(NONE.format(tried="; ".join(tried)))


def locate(python: str, libraries: tuple[str, ...]) -> list[str]:
    """Return the file that each library would be imported from in `python`, "" for one that is not there.

    Raises UserError where the interpreter cannot be run.
    """
    if python == sys.executable:
        specs = [importlib.util.find_spec(name) for name in libraries]
        return [(spec.origin or "") if spec else "" for spec in specs]
    try:
        # At the root: a module that lies in the current directory is not what a training would import.
        words = [interpreter(python), "-c", LOOK, *libraries]
        done = subprocess.run(words, capture_output=True, text=True, timeout=LOOK_S, cwd="/")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"cannot run {python} ({error}); --python wants an interpreter's path") from None
    found = done.stdout.rstrip("\n").split("\n")
    return found if done.returncode == 0 and len(found) == len(libraries) else [""] * len(libraries)


def _candidates() -> Iterator[tuple[str, str]]:
    yield sys.executable, "nantui's own"
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        place = os.environ.get(variable)
        if place and (python := Path(place) / "bin" / "python").is_file():
            yield str(python), f"${variable}"
    if on_path := shutil.which("python3"):
        yield on_path, "on the path"

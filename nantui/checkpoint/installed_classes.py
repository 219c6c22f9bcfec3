"""Whether the installed Ultralytics has a class, told from its source: nothing of it is imported.

A checkpoint of a fork, or of a release that had a class which is gone, cannot be loaded here.
"""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache
from pathlib import Path

LOADER = "nn/tasks.py"
"""Where `torch_safe_load` names the classes of older releases that it finds under another name."""


def is_absent(name: str) -> bool:
    """Tell whether `name`, dotted, is a class of Ultralytics' that is not installed; False where unknown."""
    package, *modules, own = name.replace("ultralytics.yolo.", "ultralytics.").split(".")
    top = root()
    if package != "ultralytics" or top is None or name in source(top / LOADER):
        return False
    place = top.joinpath(*modules)
    text = source(place.with_suffix(".py")) or source(place / "__init__.py")
    return re.search(rf"\b{re.escape(own)}\b", text) is None


@lru_cache(maxsize=1)
def root() -> Path | None:
    """Return the directory of the installed Ultralytics, None without one."""
    spec = importlib.util.find_spec("ultralytics")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


@lru_cache(maxsize=64)
def source(path: Path) -> str:
    """Return a module's text, empty where there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

"""The arguments of the *installed* Ultralytics, read from its files without importing it.

Importing Ultralytics means importing torch: seconds and hundreds of megabytes that a form or a typo check
does not need. `cfg/default.yaml` holds names, defaults and, in its comments, types and help;
`cfg/__init__.py` holds the ranges as plain literals, which `ast` reads.
"""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from nantui.errors import UserError
from nantui.machine.training_python import locate, training_python
from nantui.run.documents import JsonObject

LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where it is there: eight times as fast, and the form opens at once."""
LINE = re.compile(r"^(?P<name>[a-z_0-9]+):(?P<value>[^#]*)(?:#\s*(?:\((?P<types>[^)]*)\))?\s*(?P<help>.*))?$")
GROUP = re.compile(r"^#\s*(?P<name>[A-Z][\w/ .-]*?)\s*-*\s*$")


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


def read_arguments(package: Path) -> list[JsonObject]:
    """Return name, group, types such as ("int", "float"), optional (it may be None), default and help of each
    argument of `cfg/default.yaml`, in the file's order.

    Raises UserError when the file is missing or no YAML, which means a broken or very old installation.
    """
    path = package / "cfg" / "default.yaml"
    try:
        text = path.read_text(encoding="utf-8")
        defaults = yaml.load(text, Loader=LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {error}; reinstall ultralytics (8.0.100 or newer)") from None
    group, arguments = "General", []
    for line in text.splitlines():
        if heading := GROUP.match(line):
            group = heading["name"].removesuffix(" settings").strip()
        elif (found := LINE.match(line)) and isinstance(defaults, dict) and found["name"] in defaults:
            arguments.append(_argument(found, group, defaults[found["name"]]))
    return arguments


def _argument(found: re.Match[str], group: str, default: object) -> JsonObject:
    words = [word.strip() for word in re.split(r"[|,]", found["types"] or "")]
    known = tuple(re.sub(r"\[.*", "", word) for word in words if word and word != "optional")
    return {
        "name": found["name"], "group": group, "default": default, "help": (found["help"] or "").strip(),
        "types": known or ((type(default).__name__,) if default is not None else ()),
        "optional": "optional" in words or default is None,
    }  # fmt: skip


def read_ranges(package: Path) -> dict[str, tuple[float | None, float | None]]:
    """Return {argument: (lowest, highest)} as `cfg/__init__.py` checks them, {} where it does not."""
    try:
        tree = ast.parse((package / "cfg" / "__init__.py").read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return {}
    tables = {name: value for node in tree.body for name, value in assigned_literal(node)}
    lowest = dict(tables.get("CFG_INT_MIN", {}))
    return {
        **dict.fromkeys(tables.get("CFG_FRACTION_KEYS", ()), (0.0, 1.0)),
        **{name: (least, None) for name, least in lowest.items()},
    }


def assigned_literal(node: ast.stmt) -> list[tuple[str, Any]]:
    """Return [(name, value)] for `NAME = {…}` and `NAME = frozenset({…})`, else nothing."""
    if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
        return []
    value = node.value
    if isinstance(value, ast.Call) and len(value.args) == 1:
        value = value.args[0]
    try:
        return [(node.targets[0].id, ast.literal_eval(value))]
    except (ValueError, TypeError, SyntaxError):
        return []


def read_version(package: Path) -> str:
    """Return the package's version, or "unknown"."""
    try:
        text = (package / "__init__.py").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return "unknown"
    found = re.search(r'__version__\s*=\s*"([^"]+)"', text)
    return found[1] if found else "unknown"

"""Which names a checkpoint may mention, and which it may call: the known set, and what others mean.

What counts is what the pickle does with a name (docs/checkpoints.md). The architecture inside a checkpoint is
code in part: `parse_model` in Ultralytics' nn/tasks.py evaluates the text under `activation`, and looks
layers up by name among everything that module has imported; a `yaml` that is no dictionary is a path or an
address that it fetches first. Its own refusal of such values (`_SafeLoad`) a resume does not ask for.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from nantui.checkpoint.pickle.stand_ins import CALLS, Instance, Name, Pairs, items_of
from nantui.checkpoint.verdict import Finding

# Items may be set on these: dictionaries that torch.save writes as calls.
DICTIONARIES = frozenset({"collections.OrderedDict", "collections.defaultdict"})
# Called with arguments that stand_ins.py checks one by one: what torch.save writes for plain values.
CALLABLE = DICTIONARIES | CALLS.keys() | {
    "torch.device", "builtins.complex", "__builtin__.complex", "builtins.slice", "__builtin__.slice",
    "datetime.datetime", "datetime.date", "datetime.timedelta", "datetime.timezone", "pathlib.Path",
    "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath", "pathlib.PureWindowsPath",
    "pathlib._local.PosixPath", "pathlib._local.WindowsPath",
    "torchvision.transforms.functional.InterpolationMode", "numpy.dtype",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "types.SimpleNamespace",
    "ultralytics.utils.IterableSimpleNamespace", "ultralytics.yolo.utils.IterableSimpleNamespace",
}  # fmt: skip
# Mentioned only: arguments of the calls above, and functions a module keeps as its activation.
MENTIONED = re.compile(
    r"torch\.(Bool|Byte|Char|Short|Int|Long|Half|Float|Double|BFloat16|ComplexFloat|ComplexDouble)Storage"
    r"|torch(\.storage)?\.(Untyped|Typed)Storage"
    r"|torch\.(float16|float32|float64|bfloat16|half|float|double|u?int(8|16|32|64)|bool|complex(32|64|128)"
    r"|float8_[a-z0-9]+|q?u?int8|qint32)"
    r"|torch\.(contiguous_format|channels_last|preserve_format|strided)"
    r"|torch\.nn\.functional\.[a-z][a-z0-9_]*"
    r"|torch\._C\._nn\.(gelu|silu|softplus|log_sigmoid|leaky_relu|hardtanh|elu)"
    r"|torch\.(relu|sigmoid|tanh|relu_)"
    r"|torch\.nn\.modules\.[a-z0-9_.]+\.[A-Z][A-Za-z0-9]*"
    r"|ultralytics\.nn\.modules(\.[a-z]+)?\.[A-Za-z]\w*"
    r"|numpy\.ndarray|(builtins|__builtin__)\.(int|float|str|bool|list|dict|tuple|object)"
)
# Instantiated by `cls.__new__(cls)`, then given a plain state: modules, losses, namespaces.
CLASSES = re.compile(
    r"torch\.nn\.modules\.[a-z0-9_.]+\.[A-Z][A-Za-z0-9]*"
    r"|torch\.ao\.nn\.[a-z0-9_.]+\.[A-Z][A-Za-z0-9]*"
    r"|torchvision\.(models|ops)\.[a-z0-9_.]+\.[A-Z][A-Za-z0-9]*"
    r"|ultralytics(\.yolo)?\.utils\.(loss|tal)\.[A-Za-z][A-Za-z0-9]*"
    r"|ultralytics\.nn\.tasks\.[A-Z][A-Za-z0-9]*Model"
    r"|ultralytics\.nn\.modules(\.[a-z]+)?\.[A-Za-z]\w*"
    r"|ultralytics\.nn\.text_model\.[A-Z][A-Za-z0-9]*"
    r"|torchvision\.transforms\.transforms\.[A-Z][A-Za-z0-9]*"
    r"|ultralytics(\.yolo)?\.data\.augment\.[A-Z][A-Za-z0-9]*"
    r"|ultralytics\.nn\.distill_model\.[A-Z][A-Za-z0-9]*"
    r"|argparse\.Namespace"
)
_RENAMED_SINCE_PYTHON_2 = frozenset({"__builtin__", "copy_reg", "cPickle", "commands", "Queue", "UserDict"})
_STANDARD = sys.stdlib_module_names | _RENAMED_SINCE_PYTHON_2
_ACTIVATION = re.compile(r"(torch\.)?nn\.[A-Z]\w*\([\w\s=.,+-]*\)")
_LAYER = re.compile(r"(torch\.)?nn\.[A-Z]\w*|torchvision\.ops\.[A-Z]\w*|[A-Z]\w*")
LOADER = "nn/tasks.py"
"""Where `torch_safe_load` names the classes of older releases that it finds under another name."""
_LONGEST = 200
_MOST_FINDINGS = 20


def judge_name(name: Name, allowed: frozenset[str]) -> Finding | None:
    """Return what is wrong with `name` as the pickle uses it, or None; `allowed` are trusted names.

    A dotted name (protocol 4) is looked up attribute by attribute, through every module that another one
    has imported: `torch.nn.modules.module` leads to `subprocess.Popen`. So the known set holds no such name.
    """
    if name.text in allowed:
        return None
    if "." in name.name:
        return Finding("unsafe", name.text, f"the pickle {_use(name)} it through another module's attributes")
    if name.text in CALLABLE:
        return None
    if not name.called and name.made and CLASSES.fullmatch(name.text):
        detail = "the Ultralytics here has no such class (a fork's, another release's): it cannot be loaded"
        return Finding("missing-class", name.text, detail) if is_absent(name.text) else None
    if not name.called and not name.made and MENTIONED.fullmatch(name.text):
        return None
    if not name.called and name.made and _foreign(name) and all(map(is_module, name.instances)):
        detail = "a module class of your own: loading the file runs its code, so allow the name first"
        return Finding("unknown-class", name.text, detail)
    return Finding("unsafe", name.text, f"the pickle {_use(name)} it: loading the file could run anything")


def is_absent(name: str) -> bool:
    """Tell from its source, unimported, whether Ultralytics lacks the class `name`; False where unknown."""
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


def is_module(instance: Instance) -> bool:
    """Whether an instance has the state of an `nn.Module`."""
    if type(instance.state) is not Pairs:
        return False
    keys = instance.state[::2]  # whatever they are: the dictionary that this describes is never made
    return "_modules" in keys and "_parameters" in keys and "_buffers" in keys


def _foreign(name: Name) -> bool:
    top = name.module.partition(".")[0]
    plain = re.fullmatch(r"[A-Za-z_][\w.]*", name.module) and re.fullmatch(r"[A-Za-z_]\w*", name.name)
    return bool(plain) and top not in _STANDARD


def _use(name: Name) -> str:
    if name.called:
        return "calls"
    return "instantiates" if name.made else "names"


def judge_recipes(
    recipes: Iterable[tuple[str, object]], classes: Collection[str], allowed: Collection[str]
) -> list[Finding]:
    """Return an `unsafe` finding for each value that building the model would run, fetch or look up.

    `classes` are the names of the classes of which the file holds instances, treated elsewhere: somebody's
    own layer is among them, whatever it is called. `allowed` are texts that the user trusts.
    """
    found: list[Finding] = []
    for where, recipe in recipes:
        for said, detail in _oddities(recipe, classes):
            if said not in allowed:
                found.append(Finding("unsafe", said or where, detail))
            if len(found) >= _MOST_FINDINGS:
                return found
    return found


def _oddities(recipe: object, classes: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield (what it says, "" where that is no short text; what is wrong with it)."""
    if recipe is None:
        return
    items = items_of(recipe)
    if items is None:
        yield "", "its architecture is none, but something that building the model would fetch"
        return
    said = items.named()
    activation = said.get("activation")
    if activation is not None and not _is(activation, _ACTIVATION):
        yield _text(activation), "building the model would evaluate this activation, which is no plain one"
    for part in ("backbone", "head"):
        for layer in _list(said.get(part)):
            kind = next(iter(_list(layer)[2:3]), None)
            if kind is not None and not (_is(kind, _LAYER) or _text(kind) in classes):
                yield _text(kind), "building the model would call it as a layer, and it is none"


def _list(value: Any) -> list[object] | tuple[object, ...]:
    return value if type(value) in (list, tuple) else ()


def _is(value: object, pattern: re.Pattern[str]) -> bool:
    return type(value) is str and len(value) <= _LONGEST and pattern.fullmatch(value) is not None


def _text(value: object) -> str:
    return value if type(value) is str and len(value) <= _LONGEST else ""

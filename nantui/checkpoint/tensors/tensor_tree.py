"""From the pickled objects to named tensors: which are weights, which optimizer state, which neither.

The walk is iterative and visits every object once, so that shared references, cycles and a million
levels of nesting cost nothing. Whatever could hold a weight is visited, also where torch.save never puts one:
under a key that is there twice, or beside the tensors of a module.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from nantui.checkpoint.pickle.allowlist import is_module
from nantui.checkpoint.pickle.stand_ins import Group, Instance, Ordered, Pairs, Refused, Tensor, items_of

WEIGHTS = "weights"  # parameters and buffers: what a resume loads
MASK = "mask"  # a buffer left out of the state_dict: may hold infinities by design
ATTRIBUTE = "attribute"  # a tensor kept as a plain attribute, rebuilt at run time (anchors)
OPTIMIZER = "optimizer"
SCALER = "scaler"

_MODULE_KEYS = frozenset({"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"})
_NOT_WEIGHTS = frozenset({"train_results", "train_metrics", "train_args", "git", "stopper", "modelopt"})
_CONTAINERS = frozenset({Pairs, Ordered, Instance, list, tuple, Group, Tensor})
_LONGEST_NAME = 300
_LARGEST_KEY = 1 << 63
MOST_TENSORS = 50_000  # references to tensors and containers; YOLOv8x with AdamW has about 3,000

Found = tuple[object, str, str]  # value, name, role
Pending = list[Found]


@dataclass(slots=True, eq=False)
class Leaf:
    """A named tensor. `part` is the top-level key it lies under (`ema`, `model`, `optimizer`, or "")."""

    name: str
    part: str
    role: str
    tensor: Tensor
    module: str  # the class of the module that owns it, "" where none does
    attribute: str  # its name in that module: weight, bias, running_var


@dataclass
class Tree:
    """All tensors of a checkpoint, the class of each module by (part, name), and each model's `yaml`."""

    leaves: list[Leaf] = field(default_factory=list)
    modules: dict[tuple[str, str], str] = field(default_factory=dict)
    recipes: list[tuple[str, object]] = field(default_factory=list)


def walk(root: object) -> Tree:
    """Return every tensor below `root`, named as its `state_dict` would name it."""
    tree = Tree()
    top = items_of(root)
    if top is None:
        _walk_from(root, "", "", WEIGHTS, tree)
        return tree
    for key, value in top.entries():
        name = _joined("", key)
        plain = type(value) is Tensor
        if name in ("ema", "model") and not plain:
            _walk_from(value, "", name, WEIGHTS, tree)
        elif name in (OPTIMIZER, SCALER) and not plain:
            _walk_from(value, name, name, name, tree)
        elif name not in _NOT_WEIGHTS:
            _walk_from(value, name, "", WEIGHTS, tree)
    return tree


def _walk_from(root: object, name: str, part: str, role: str, tree: Tree) -> None:
    seen: set[int] = set()
    pending: Pending = []
    _push(pending, [(root, name, role)])
    while pending:
        value, name, role = pending.pop()
        if type(value) is Tensor:
            _add(tree, Leaf(name, part, role, value, "", name.rpartition(".")[2]))
        elif id(value) not in seen:
            seen.add(id(value))
            if type(value) is not Instance:
                _push(pending, _children(value, name, role))
            elif is_module(value):
                _push(pending, _open_module(value, name, part, role, tree))
            else:
                _push(pending, [(value.state, name, role), (value.args, name, role)])


def _push(pending: Pending, found: Iterable[Found]) -> None:
    room = MOST_TENSORS - len(pending)
    taken = list(islice((item for item in found if _worth(item[0])), room + 1))
    if len(taken) > room:
        raise _too_many()
    pending.extend(reversed(taken))


def _add(tree: Tree, leaf: Leaf) -> None:
    if len(tree.leaves) >= MOST_TENSORS:
        raise _too_many()
    tree.leaves.append(leaf)


def _too_many() -> Refused:
    return Refused("cannot-read", "data.pkl", f"it has more than {MOST_TENSORS} tensors")


def _worth(value: object) -> bool:
    return type(value) in _CONTAINERS and bool(value)


def _children(value: Any, name: str, role: str) -> Iterable[Found]:
    pairs = value.entries() if isinstance(value, Pairs) else enumerate(value)
    return ((item, _joined(name, key), role) for key, item in pairs if _worth(item))


def _joined(name: str, key: object) -> str:
    if type(key) is str:
        return f"{name}.{key}"[:_LONGEST_NAME] if name else key[:_LONGEST_NAME]
    shown = key if type(key) is int and abs(key) < _LARGEST_KEY else "?"
    return f"{name}[{shown}]"[:_LONGEST_NAME]


def _open_module(module: Instance, name: str, part: str, role: str, tree: Tree) -> Pending:
    state = module.state.named()
    owner = tree.modules.setdefault((part, name), module.cls.text)
    if "yaml" in state:
        tree.recipes.append((_joined(name, "yaml"), state["yaml"]))
    hidden = state.get("_non_persistent_buffers_set")
    masks = {key for key in hidden if type(key) is str} if hidden and type(hidden) is Group else ()
    odd: Pending = []
    for group in ("_parameters", "_buffers"):
        entries = items_of(state[group])
        if entries is None:
            odd.append((state[group], name, role))
            continue
        for key, value in entries.entries():
            if type(value) is Tensor and type(key) is str:
                kept = MASK if key in masks and role == WEIGHTS and group == "_buffers" else role
                _add(tree, Leaf(_joined(name, key), part, kept, value, owner, key))
            else:
                odd.append((value, _joined(name, key), role))
    below = _children(items_of(state["_modules"]) or (state["_modules"],), name, role)
    rest = ATTRIBUTE if role in (WEIGHTS, MASK) else role
    others = [
        (value, _joined(name, key), rest)
        for key, value in state.items()
        if value and type(value) in _CONTAINERS and key not in _MODULE_KEYS
    ]
    return [*odd, *below, *others]

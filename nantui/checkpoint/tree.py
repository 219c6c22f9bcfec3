"""From the pickled objects to named tensors: which are weights, which optimizer state, which neither.

The walk is iterative and visits every object once, so that shared references, cycles and a million
levels of nesting cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nantui.checkpoint.names import is_module
from nantui.checkpoint.symbols import Group, Instance, Ordered, Pairs, Tensor, items_of

WEIGHTS = "weights"  # parameters and buffers: what a resume loads
MASK = "mask"  # a buffer left out of the state_dict: may hold infinities by design
ATTRIBUTE = "attribute"  # a tensor kept as a plain attribute, rebuilt at run time (anchors)
OPTIMIZER = "optimizer"
SCALER = "scaler"

_MODULE_KEYS = frozenset({"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"})
_NOT_WEIGHTS = frozenset({"train_results", "train_metrics", "train_args", "git", "stopper", "modelopt"})
_CONTAINERS = frozenset({Pairs, Ordered, Instance, list, tuple, Group, Tensor})
_LONGEST_NAME = 300

Pending = list[tuple[Any, str, str]]


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
    """All tensors of a checkpoint, and the class of each module by (part, name)."""

    leaves: list[Leaf] = field(default_factory=list)
    modules: dict[tuple[str, str], str] = field(default_factory=dict)


def walk(root: Any) -> Tree:
    """Return every tensor below `root`, named as its `state_dict` would name it."""
    tree = Tree()
    top = items_of(root)
    if top is None:
        _walk_from(root, "", "", WEIGHTS, tree)
        return tree
    for key, value in top.entries():
        name = key if type(key) is str else f"[{key}]" if type(key) is int else "?"
        plain = type(value) is Tensor
        if name in ("ema", "model") and not plain:
            _walk_from(value, "", name, WEIGHTS, tree)
        elif name in (OPTIMIZER, SCALER) and not plain:
            _walk_from(value, name, name, name, tree)
        elif name not in _NOT_WEIGHTS:
            _walk_from(value, name[:_LONGEST_NAME], "", WEIGHTS, tree)
    return tree


def _walk_from(root: Any, name: str, part: str, role: str, tree: Tree) -> None:
    seen: set[int] = set()
    pending: Pending = [(root, name, role)]
    while pending:
        value, name, role = pending.pop()
        kind = type(value)
        if kind is Tensor:
            tree.leaves.append(Leaf(name, part, role, value, "", name.rpartition(".")[2]))
            continue
        if kind not in _CONTAINERS or id(value) in seen:
            continue
        seen.add(id(value))
        if kind is not Instance:
            _push(pending, _children(value, name, role))
        elif not is_module(value):
            _push(pending, [(value.state, name, role)])
        elif (part, name) not in tree.modules:
            _open_module(value, name, part, role, tree, pending)


def _push(pending: Pending, found: Pending) -> None:
    """Put what is worth a visit on the pile, so that it comes off in the order of the file."""
    pending.extend([item for item in reversed(found) if type(item[0]) in _CONTAINERS and item[0] != ()])


def _children(value: Any, name: str, role: str) -> Pending:
    """Return what a plain container holds, with names."""
    if isinstance(value, Pairs):
        return [(item, _joined(name, key), role) for key, item in value.entries()]
    return [(item, f"{name}[{index}]"[:_LONGEST_NAME], role) for index, item in enumerate(value)]


def _joined(name: str, key: Any) -> str:
    if type(key) is not str:
        return f"{name}[{key}]"[:_LONGEST_NAME] if type(key) is int else f"{name}[?]"
    return f"{name}.{key}"[:_LONGEST_NAME] if name else key[:_LONGEST_NAME]


def _open_module(module: Instance, name: str, part: str, role: str, tree: Tree, pending: Pending) -> None:
    """List a module's own tensors; its submodules and other attributes are left for later."""
    state = module.state.named()
    tree.modules[(part, name)] = owner = module.cls.text
    hidden = state.get("_non_persistent_buffers_set")
    masks = {key for key in hidden if type(key) is str} if hidden and type(hidden) is Group else ()
    for group in ("_parameters", "_buffers"):
        for key, value in (items_of(state[group]) or Pairs()).entries():
            if type(value) is Tensor and type(key) is str:
                kept = MASK if key in masks and role == WEIGHTS and group == "_buffers" else role
                tree.leaves.append(Leaf(_joined(name, key), part, kept, value, owner, key))
    below = _children(items_of(state["_modules"]) or Pairs(), name, role)
    rest = ATTRIBUTE if role in (WEIGHTS, MASK) else role
    others = [
        (value, key)
        for key, value in state.items()
        if type(value) in _CONTAINERS and value and key not in _MODULE_KEYS
    ]
    _push(pending, below + [(value, _joined(name, key), rest) for value, key in others])

"""From the pickled objects to named tensors: which are weights, which optimizer state, which neither.

The walk is iterative and visits every object once, so that shared references, cycles and a million
levels of nesting cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nantui.checkpoint.names import is_module
from nantui.checkpoint.symbols import Group, Instance, Pairs, Tensor

WEIGHTS = "weights"  # parameters and buffers: what a resume loads
MASK = "mask"  # a buffer left out of the state_dict: may hold infinities by design
ATTRIBUTE = "attribute"  # a tensor kept as a plain attribute, rebuilt at run time (anchors)
OPTIMIZER = "optimizer"
SCALER = "scaler"

_MODULE_KEYS = frozenset({"_parameters", "_buffers", "_modules"})
_NOT_WEIGHTS = frozenset({"train_results", "train_metrics", "train_args", "git", "stopper", "modelopt"})
_LONGEST_NAME = 300


@dataclass(frozen=True, eq=False, slots=True)
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
    top = root if type(root) is Pairs else items_of(root)
    if top is None or (type(root) is Instance and is_module(root)):
        _walk_from(root, "", "", WEIGHTS, tree)
        return tree
    parts = {key for key, value in top.entries() if type(key) is str and not isinstance(value, Tensor)}
    for key, value in top.entries():
        name = key if type(key) is str else f"[{key!r}]" if type(key) is int else "?"
        if name in ("ema", "model") and type(value) is not Tensor:
            _walk_from(value, "", name, WEIGHTS, tree)
        elif name in ("optimizer", "scaler") and name in parts:
            _walk_from(value, name, name, name, tree)
        elif name not in _NOT_WEIGHTS:
            _walk_from(value, name, "", WEIGHTS, tree)
    return tree


def items_of(value: Any) -> Pairs | None:
    """Return the entries of a dictionary, plain or ordered, else None."""
    if type(value) is Pairs:
        return value
    return value.items if type(value) is Instance else None


def _walk_from(root: Any, name: str, part: str, role: str, tree: Tree) -> None:
    seen: set[int] = set()
    pending: list[tuple[Any, str, str]] = [(root, name, role)]
    while pending:
        value, name, role = pending.pop()
        kind = type(value)
        if kind is Tensor:
            tree.leaves.append(Leaf(name, part, role, value, "", ""))
            continue
        if kind not in (Pairs, Instance, list, tuple, Group) or id(value) in seen:
            continue
        seen.add(id(value))
        if kind is Instance and is_module(value):
            _open_module(value, name, part, role, tree, pending)
        else:
            pending.extend(reversed(_children(value, name, role)))


def _children(value: Any, name: str, role: str) -> list[tuple[Any, str, str]]:
    """Return what a plain container holds, with names."""
    if type(value) is Instance:
        found = [(value.state, name, role)] if type(value.state) in (Pairs, tuple) else []
        return found + ([(value.items, name, role)] if value.items else [])
    if type(value) is Pairs:
        return [(item, _joined(name, key), role) for key, item in value.entries()]
    return [(item, f"{name}[{index}]", role) for index, item in enumerate(value)]


def _joined(name: str, key: Any) -> str:
    if type(key) is not str:
        return f"{name}[{key}]"[:_LONGEST_NAME] if type(key) is int else f"{name}[?]"
    return f"{name}.{key}"[:_LONGEST_NAME] if name else key[:_LONGEST_NAME]


def _open_module(
    module: Instance, name: str, part: str, role: str, tree: Tree, pending: list[tuple[Any, str, str]]
) -> None:
    """List a module's own tensors; its submodules and other attributes are left for later."""
    state = module.state.named()
    tree.modules[(part, name)] = module.cls.text
    hidden = state.get("_non_persistent_buffers_set")
    masks = {key for key in hidden if type(key) is str} if type(hidden) is Group else set()
    for group in ("_parameters", "_buffers"):
        for key, value in (items_of(state[group]) or Pairs()).entries():
            if type(value) is Tensor and type(key) is str:
                kept = MASK if role == WEIGHTS and group == "_buffers" and key in masks else role
                tree.leaves.append(Leaf(_joined(name, key), part, kept, value, module.cls.text, key))
    children = items_of(state["_modules"]) or Pairs()
    below = [(value, _joined(name, key), role) for key, value in children.entries()]
    rest = ATTRIBUTE if role in (WEIGHTS, MASK) else role
    below += [(value, _joined(name, key), rest) for key, value in state.items() if key not in _MODULE_KEYS]
    pending.extend(reversed(below))

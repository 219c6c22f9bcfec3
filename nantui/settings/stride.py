"""The largest stride of a model, read from its YAML: image sides have to be a multiple of it.

Ultralytics finds it by running the model (`DetectionModel.__init__`), and takes no less than 32
(`BaseTrainer._setup_train`). Models for large images (P6) have 64. A layer that is not known here makes the
stride unknown, since somebody's own layer may halve its input.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from nantui.settings.ultralytics_args import LOADER

SMALLEST = 32
WITH_LEVELS = re.compile(r"(?!Semantic)\w*(Detect|Segment|Pose|OBB)(26)?")
"""Heads from whose inputs the stride is taken; every other model has 32, or less than that."""
STRIDE_AT = {"Conv": 2, "DWConv": 2, "GhostConv": 2, "SCDown": 2, "nn.MaxPool2d": 1}
"""Which argument of a layer, from 0 as in the YAML, is its stride."""
HALVES = frozenset({"ADown", "AConv"})
ENLARGES_AT = {"nn.Upsample": 1, "nn.ConvTranspose2d": 2}
KEEPS = frozenset({
    "Concat", "CBLinear", "CBFuse", "nn.Identity", "nn.ZeroPad2d", "Bottleneck", "BottleneckCSP", "C1", "C2",
    "C3", "C3x", "C3TR", "C3Ghost", "C3k", "C3k2", "C2f", "C2fAttn", "C2fCIB", "C2PSA", "C2fPSA", "PSA",
    "A2C2f", "CIB", "SPP", "SPPF", "SPPELAN", "ELAN1", "RepC3", "RepNCSPELAN4", "RepConv", "HGBlock", "AIFI",
    "ImagePoolingAttn",
})  # fmt: skip


def stride_of(model: object, package: Path) -> int | None:
    """Return the stride of a model named as in `model=`: a YAML file, or one of Ultralytics' own by name (in
    `package`, its YAML or its weights). None where it cannot be told.
    """
    path = find_yaml(str(model or ""), package)
    return read_stride(path) if path else None


@lru_cache(maxsize=16)
def read_stride(path: Path) -> int | None:
    """Return the stride of the architecture in a YAML file, None where it cannot be told."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
        return largest_stride([*document["backbone"], *document["head"]])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError, ValueError):
        return None


def find_yaml(model: str, package: Path) -> Path | None:
    """Return the file of an architecture: the very one, or Ultralytics' own without its size's letter."""
    if Path(model).suffix in (".yaml", ".yml") and Path(model).is_file():
        return Path(model)
    renamed = re.sub(r"^(yolov[58][nsmlx])6u?", r"\1-p6", Path(model).stem)  # as `yaml_model_load` does
    without_size = re.sub(r"^(yoloe?-?v?\d+)[nsmlx](?=-|u?$)u?", r"\1", renamed)
    own = [
        path for path in (package / "cfg" / "models").glob("*/*.yaml") if path.stem in (renamed, without_size)
    ]
    return next(iter(own), None)


def largest_stride(layers: Sequence[Sequence[Any]]) -> int | None:
    """Return the stride of a whole architecture, at least 32; None with a layer that is not known."""
    *body, (sources, _, head, _) = layers
    if not WITH_LEVELS.fullmatch(str(head)):
        return SMALLEST
    strides: list[float] = []
    for source, repeats, kind, arguments in body:
        factor = factor_of(str(kind), arguments)
        if factor is None:
            return None
        last = source[-1] if isinstance(source, list) else source
        before = strides[last] if strides else 1.0
        strides.append(before * factor ** (repeats if factor > 1 else 1))
    levels = sources if isinstance(sources, list) else [sources]
    return max(SMALLEST, int(max(strides[level] for level in levels)))


def factor_of(kind: str, arguments: Sequence[Any]) -> float | None:
    """Return by what a layer multiplies the stride, None for one that is not known."""
    if kind in KEEPS:
        return 1.0
    if kind in HALVES:
        return 2.0
    if kind == "HGStem":
        return 4.0
    if kind == "ResNetLayer":
        return float(arguments[2]) * (4 if len(arguments) > 3 and arguments[3] else 1)
    if kind in ENLARGES_AT:
        return 1.0 / arguments[ENLARGES_AT[kind]]
    if kind in STRIDE_AT:
        place = STRIDE_AT[kind]
        return float(arguments[place]) if len(arguments) > place else 1.0
    return None

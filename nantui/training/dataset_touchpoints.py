"""Where the training room leans on the insides of Ultralytics' data sets and loaders.

As with `touchpoints`, a new release is checked here and in tests/training/test_touchpoints.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# data/augment.py: which attribute of which transform holds an argument
TRANSFORM_SETTINGS = {
    "Mosaic": {"mosaic": "p"},
    "MixUp": {"mixup": "p"},
    "CutMix": {"cutmix": "p"},
    "CopyPaste": {"copy_paste": "p"},
    "RandomPerspective": {
        "degrees": "degrees",
        "translate": "translate",
        "scale": "scale",
        "shear": "shear",
        "perspective": "perspective",
    },
    "RandomHSV": {"hsv_h": "hgain", "hsv_s": "sgain", "hsv_v": "vgain"},
}


def transforms(dataset: Any) -> Iterator[Any]:
    """Yield every transform of a data set, with those inside a `Compose`."""
    waiting = [getattr(dataset, "transforms", None)]
    while waiting:
        transform = waiting.pop(0)
        if transform is None:
            continue
        inner = getattr(transform, "transforms", None)
        if isinstance(inner, list):
            waiting = [*inner, *waiting]
            continue
        yield transform

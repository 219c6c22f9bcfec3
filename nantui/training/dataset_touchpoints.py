"""Where the training room leans on the insides of Ultralytics' data sets and loaders.

As with `touchpoints`, a new release is checked here and in tests/training/test_touchpoints.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

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


def validation_images(trainer: Any, most: int) -> torch.Tensor:
    """Return the first validation images, at most a batch, as float (N, C, H, W) as validators prepare them.

    They are taken from the data set itself: the loader's workers run ahead and must not lose a batch.
    """
    loader = trainer.test_loader
    count = min(most, len(loader.dataset), loader.batch_size)
    images = loader.collate_fn([loader.dataset[index] for index in range(count)])["img"]
    pixels = images.dtype == torch.uint8  # classification has normalized its images already
    images = images.to(trainer.device).float()
    return images / 255 if pixels else images

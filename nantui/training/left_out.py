"""Leave the quarantined images out of the train data set, before Ultralytics reads a label of them.

Nothing is deleted or moved: the list of files that a data set begins with is shortened, so that its label
cache, its length and its sampler are those of a data set without them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from typing import Any

from nantui.training.touchpoints import replaced


@contextlib.contextmanager
def leaving_out(images: Collection[str]) -> Iterator[None]:
    """While this lasts, data sets are made without `images`, which are absolute paths.

    `BaseDataset.__init__` asks `get_img_files` for its files (data/base.py); classification reads a folder
    by torchvision's rules instead (`ClassificationDataset`, data/dataset.py): see `without`.
    """
    from ultralytics.data.base import BaseDataset

    stock = BaseDataset.get_img_files

    def kept(dataset: Any, img_path: Any) -> list[str]:
        return [file for file in stock(dataset, img_path) if os.path.abspath(file) not in images]

    with replaced(BaseDataset, "get_img_files", kept):
        yield


def without(dataset: Any, images: Collection[str]) -> Any:
    """Return a classification data set without `images`; any other as it is."""
    samples = getattr(dataset, "samples", None)
    if isinstance(samples, list):
        dataset.samples = [sample for sample in samples if os.path.abspath(sample[0]) not in images]
    return dataset

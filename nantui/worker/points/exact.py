"""Augmentation that does not depend on what came before: each sample's is drawn from (seed, epoch, index).

Ultralytics' depends on history: a loader process draws from its own generators for as long as it lives, and a
mosaic takes its partners from the images that this process loaded last (data/augment.py, `Mosaic`). A resumed
training has other processes, so it draws anew. Here every sample begins with generators of its own, and
partners come from the whole data set: another distribution and more reads, so only where asked for.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch

from nantui.errors import UserError
from nantui.worker import ultralytics_api
from nantui.worker.points.loader_order import SampleAt


class SeededSamples:
    """What a loader asks for a batch of samples (`__getitems__` in torch/utils/data/_utils/fetch.py)."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self._dataset, self._seed = dataset, seed

    def __call__(self, indices: list[int]) -> list[object]:
        """Return the samples; the process' own generators stay as they were."""
        before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
        try:
            return [self._sample(index) for index in indices]
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.default_generator.set_state(before[2])

    def _sample(self, index: int) -> object:
        epoch = index.epoch if isinstance(index, SampleAt) else 0
        word = f"{self._seed} {epoch} {int(index)}".encode()
        seed = int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "little") >> 1
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)  # not `torch.manual_seed`: that one also seeds the GPUs
        for transform in ultralytics_api.transforms(self._dataset):
            own: Any = getattr(transform, "transform", None)  # Albumentations has a generator of its own
            if hasattr(own, "set_random_seed"):
                own.set_random_seed(seed % 2**32)
        return self._dataset[int(index)]


def seed_samples(dataset: Any, seed: int) -> None:
    """Let a train data set draw each sample's augmentation from (seed, epoch, index).

    Raises UserError where a mosaic cannot be told to take its partners from everywhere.
    """
    for transform in ultralytics_api.transforms(dataset):
        if hasattr(transform, "buffer_enabled"):
            transform.buffer_enabled = False
        elif type(transform).__name__ == "Mosaic":
            raise UserError("exact=True needs a newer Ultralytics: in this one mosaic depends on the loader")
    dataset.__getitems__ = SeededSamples(dataset, seed)

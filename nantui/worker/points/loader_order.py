"""Which sample comes when, recorded as it is drawn; how it is augmented, whatever came before.

An order cannot be computed from seed and epoch: prefetching draws the next epoch's before `set_epoch`, and a
generator's draws depend on when iterators were made and reset (data/build.py, `InfiniteDataLoader`). So each
epoch's order is drawn at once, as the loader's own sampler would have drawn it, and kept. The generator then
stands at each batch where it would have stood: an iterator made anew, where mosaic closes, goes on there.

With `exact` every sample begins with generators of its own, and a mosaic takes its partners from the whole
data set: another distribution and more reads, so only where asked for (docs/step-points.md).
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from nantui.errors import UserError
from nantui.run.documents import JsonObject
from nantui.worker import ultralytics_api
from nantui.worker.points.training_state import dice_kept
from nantui.worker.ultralytics_types import Trainer


class SampleAt(int):
    """The index of a sample that also says for which epoch it is drawn; workers live longer than an epoch."""

    epoch: int

    def __new__(cls, index: int, epoch: int = 0) -> SampleAt:
        made = super().__new__(cls, index)
        made.epoch = epoch
        return made


@dataclass(frozen=True)
class Order:
    """One epoch: the `indices` of its samples and the `sizes` of its batches, both (n,) int32; `drawn` tells
    as which batches were asked for (counted from 0, their number for the end) the generator came to a state.
    """

    epoch: int
    indices: torch.Tensor
    sizes: torch.Tensor
    drawn: dict[int, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def draw(cls, epoch: int, sampler: Iterable[list[int]], generator: torch.Generator | None) -> Order:
        """Draw an epoch; the generator is left as it was."""
        batches, drawn = [], {}
        before = state = generator and generator.get_state()
        for number, batch in enumerate(itertools.chain(sampler, [[]])):  # asked past the end, it draws again
            batches.append(batch)
            if generator is not None and not torch.equal(now := generator.get_state(), state):
                drawn[number] = state = now
        if generator is not None:
            generator.set_state(before)
        every = list(itertools.chain.from_iterable(batches))
        sizes = torch.tensor([len(batch) for batch in batches[:-1]], dtype=torch.int32)
        return cls(epoch, torch.tensor(every, dtype=torch.int32), sizes, drawn)

    def batches(self, generator: torch.Generator | None) -> Iterator[list[int]]:
        """Yield the batches; the generator moves as if they were drawn one by one."""
        for number, batch in enumerate([*self.indices.split(self.sizes.tolist()), None]):
            if generator is not None and number in self.drawn:
                generator.set_state(self.drawn[number])
            if batch is not None:
                yield batch.tolist()


class RecordedOrder:
    """Stands in the place of an `InfiniteDataLoader`'s batch sampler, which repeats for ever."""

    def __init__(self, loader: Any, epoch: Callable[[], int], exact: bool, begin: Begin | None) -> None:
        """`epoch` tells the present one, from 0; `exact` lets each index carry its epoch."""
        self.sampler = loader.batch_sampler.sampler  # the loader asks it for its length
        self._generator: torch.Generator | None = loader.generator
        self._epoch, self._exact, self._begin = epoch, exact, begin
        self._orders: dict[int, Order] = {}

    def __iter__(self) -> Iterator[list[int]]:
        """Yield batches for ever. A new iterator draws anew: what an older one had drawn ahead is gone."""
        return self._from(self._epoch())  # a loader without workers draws first when it is asked for a batch

    def _from(self, first: int) -> Iterator[list[int]]:
        begin, skipped = self._begin, 0
        self._orders = {}
        if begin is not None and begin.epoch == first:
            skipped = begin.batch
            self._orders = {kept["epoch"]: Order(**kept) for kept in begin.state["orders"]}
            if self._generator is not None and begin.state["generator"] is not None:
                self._generator.set_state(begin.state["generator"])
        for epoch in itertools.count(first):
            if epoch not in self._orders:
                self._orders[epoch] = Order.draw(epoch, self.sampler, self._generator)
            batches = self._orders[epoch].batches(self._generator)
            for past in [kept for kept in self._orders if kept < self._epoch()]:
                del self._orders[past]
            for batch in itertools.islice(batches, skipped, None):
                yield [SampleAt(index, epoch) for index in batch] if self._exact else batch
            skipped = 0

    def take_up(self, loader: Any) -> None:
        """Have the loader's iterator made in the begun epoch, though none of its batches may be left."""
        if loader.iterator is None:
            loader.iterator = loader._get_iterator()  # draws a seed for the loader's processes
        if self._generator is not None and self._begin is not None:
            self._generator.set_state(self._begin.state["generator"])

    def state(self) -> JsonObject:
        """Return the order from the present epoch on, as far as it is drawn, and what draws the rest."""
        present = [order for epoch, order in self._orders.items() if epoch >= self._epoch()]
        kept = [vars(order) for order in present]
        return {"orders": kept, "generator": self._generator and self._generator.get_state()}


@dataclass(frozen=True)
class Begin:
    """Where a recorded order is taken up: at `batch` of `epoch`, both from 0; `state` as it was recorded."""

    epoch: int
    batch: int
    state: JsonObject


def record(trainer: Trainer, exact: bool, begin: Begin | None = None) -> RecordedOrder | None:
    """Record the order of the train loader from now on; None where it is not a loader of Ultralytics' own.

    To be called before the epoch's first batch is asked for, again once the loader was built anew.
    """
    loader: Any = trainer.train_loader
    present = getattr(loader, "batch_sampler", None)
    if isinstance(present, RecordedOrder):
        return present
    if not hasattr(loader, "iterator") or type(present).__name__ != "_RepeatSampler":
        return None
    order = RecordedOrder(loader, lambda: int(trainer.epoch), exact, begin)
    object.__setattr__(loader, "batch_sampler", order)  # as InfiniteDataLoader does: DataLoader forbids it
    if loader.iterator is not None:  # up to 8.4.0 it is made with the loader, and has drawn already
        if loader.generator is not None:
            loader.generator.manual_seed(loader.generator.initial_seed())
        loader.reset()
    return order


class SeededSamples:
    """What a loader asks for a batch of samples (`__getitems__` in torch/utils/data/_utils/fetch.py)."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self._dataset, self._seed = dataset, seed

    def __call__(self, indices: list[int]) -> list[object]:
        """Return the samples; the process' own generators stay as they were."""
        with dice_kept(of_gpu=False):  # a loader's process touches none
            return [self._sample(index) for index in indices]

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

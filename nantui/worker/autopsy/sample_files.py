"""Every sample carries the files it was made of, so that a bad batch can name its images.

In a mosaic Ultralytics keeps only the first of four names (`im_file`), and classification batches carry
none. The train data set is instrumented on the instance: its class, transforms and collate function stay
what the user made them. Where a data set cannot be instrumented, the batch names candidates only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from nantui.worker.ultralytics_types import Batch

KEY = "nantui_sources"
Sample: TypeAlias = dict[str, Any]
"""What a data set yields for one image: file, picture, boxes; transforms take one and return one."""
Transform: TypeAlias = Callable[[Sample], Sample]


class Noted:
    """Stands before a data set's `get_image_and_label` and notes the files it hands out."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.files: list[str] = []

    def __call__(self, index: int) -> Sample:
        label: Sample = type(self.dataset).get_image_and_label(self.dataset, index)
        self.files.append(str(label.get("im_file", index)))
        return label

    def take(self) -> tuple[str, ...]:
        """Return the files noted since the last call, each once, in order."""
        taken, self.files = tuple(dict.fromkeys(self.files)), []
        return taken


class Named:
    """Stands before a data set's transforms and adds the noted files to the finished sample."""

    def __init__(self, inner: Transform, noted: Noted) -> None:
        self.inner, self.noted = inner, noted
        self.transforms = [inner]

    def __call__(self, label: Sample) -> Sample:
        sample = self.inner(label)
        sample[KEY] = self.noted.take()
        return sample

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") or name in ("inner", "noted"):
            raise AttributeError(name)
        return getattr(self.inner, name)


class NotedSamples(list[tuple[object, ...]]):
    """The samples of a classification data set, noting the files that are asked for."""

    def __init__(self, samples: list[tuple[object, ...]]) -> None:
        super().__init__(samples)
        self.files: list[str] = []

    def __getitem__(self, index: Any) -> Any:
        sample = super().__getitem__(index)
        if isinstance(index, int):
            self.files.append(str(sample[0]))
        return sample


class NamingCollate:
    """Collates a classification batch as PyTorch would and adds the files noted for it."""

    def __init__(self, samples: NotedSamples) -> None:
        self.samples = samples

    def __call__(self, batch: list[object]) -> Batch:
        from torch.utils.data import default_collate

        files, self.samples.files = self.samples.files[-len(batch) :], []
        return {**default_collate(batch), KEY: [(file,) for file in files]}


def instrument(dataset: Any) -> bool:
    """Let the samples of a train data set name their files; returns whether that was possible.

    To be done before the loader is built: its worker processes copy the data set at that moment.
    """
    if hasattr(dataset, "get_image_and_label") and callable(getattr(dataset, "transforms", None)):
        noted = Noted(dataset)
        dataset.get_image_and_label = noted
        dataset.transforms = Named(dataset.transforms, noted)
        return True
    if hasattr(dataset, "torch_transforms") and not hasattr(dataset, "collate_fn"):
        dataset.samples = NotedSamples(dataset.samples)
        dataset.collate_fn = NamingCollate(dataset.samples)
        return True
    return False


def files_of(batch: Batch) -> list[tuple[str, ...]]:
    """Take the files of each image out of a batch; without instrumentation the one name it has, or none."""
    named = batch.pop(KEY, None)
    if named is not None:
        return [tuple(files) for files in named]
    return [(str(file),) for file in batch.get("im_file", [])]

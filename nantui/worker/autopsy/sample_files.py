"""Every sample carries the files it was made of, so that a bad batch can name its images.

In a mosaic Ultralytics keeps only the first of four names (`im_file`), and classification batches carry
none. The train data set is instrumented on the instance: its class, transforms and collate function stay
what the user made them. Where a data set cannot be instrumented, the batch names candidates only.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from nantui.run.endings import READING
from nantui.worker.ultralytics_types import Batch

KEY = "nantui_sources"
Sample: TypeAlias = dict[str, Any]
"""What a data set yields for one image: file, picture, boxes; transforms take one and return one."""


class Noted:
    """Stands before a data set's transforms: notes the files that `get_image_and_label` hands out, and adds
    them to the finished sample.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.inner = dataset, dataset.transforms
        self.transforms = [self.inner]
        self.files: list[str] = []

    def get_image_and_label(self, index: int) -> Sample:
        """Do as the data set's own."""
        try:
            label: Sample = type(self.dataset).get_image_and_label(self.dataset, index)
        except Exception as error:  # neither OpenCV nor PIL says which image it was
            if hasattr(error, "add_note") and index < len(files := getattr(self.dataset, "im_files", ())):
                error.add_note(f"{READING}{files[index]}")
            raise
        self.files.append(str(label.get("im_file", index)))
        return label

    def __call__(self, label: Sample) -> Sample:
        sample: Sample = self.inner(label)
        sample[KEY], self.files = tuple(dict.fromkeys(self.files)), []
        return sample

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") or name == "inner":
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


def instrument(dataset: Any) -> None:
    """Let the samples of a train data set name their files, where that is possible.

    To be done before the loader is built: its worker processes copy the data set at that moment.
    """
    if hasattr(dataset, "get_image_and_label") and callable(getattr(dataset, "transforms", None)):
        dataset.transforms = Noted(dataset)
        dataset.get_image_and_label = dataset.transforms.get_image_and_label
    elif hasattr(dataset, "torch_transforms") and not hasattr(dataset, "collate_fn"):
        dataset.samples = NotedSamples(dataset.samples)
        dataset.collate_fn = NamingCollate(dataset.samples)


def files_of(batch: Batch) -> list[tuple[str, ...]]:
    """Take the files of each image out of a batch; without instrumentation the one name it has, or none."""
    named = batch.pop(KEY, None)
    if named is not None:
        return [tuple(files) for files in named]
    return [(str(file),) for file in batch.get("im_file", [])]

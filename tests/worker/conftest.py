"""One data set, one tiny model and one way to train for all tests of this room."""

from __future__ import annotations

import gc

import pytest

from tests.warm import TORCH, import_all
from tests.worker.runs import Trainings, draw_data_set, tiny_model


@pytest.fixture(scope="session")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    """Trainings in this process. What they import is imported before the first, and no collection of garbage
    looks at it again: Ultralytics has several in each training, 0.11 s each otherwise.
    """
    import torch

    for level in TORCH:
        import_all(level)
    gc.collect()
    gc.freeze()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("training")
    return Trainings(draw_data_set(root / "data"), tiny_model(root))

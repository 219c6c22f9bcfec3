"""One data set, one tiny model and one way to train for all tests of this room."""

from __future__ import annotations

import pytest

from tests.worker.runs import Trainings, draw_data_set, tiny_model


@pytest.fixture(scope="session")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    import torch

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("training")
    return Trainings(draw_data_set(root / "data"), tiny_model(root))

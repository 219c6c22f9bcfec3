"""More architectures, tasks and optimizers than `make test` has time for: no false alarm on any of them."""

import pytest

from nantui.checkpoint.scan import scan
from tests.checkpoint.editing import NAN, both, edited, load, poison, strip, weights
from tests.checkpoint.trainings import RECIPES, Recipe, train

ARCHITECTURES = {
    "v3": ("yolov3-tiny.yaml", "detect"), "v5": ("yolov5n.yaml", "detect"), "v6": ("yolov6n.yaml", "detect"),
    "v8p2": ("yolov8n-p2.yaml", "detect"), "v8ghost": ("yolov8n-ghost.yaml", "detect"),
    "v8seg": ("yolov8n-seg.yaml", "segment"), "v8pose": ("yolov8n-pose.yaml", "pose"),
    "v8obb": ("yolov8n-obb.yaml", "obb"), "v9": ("yolov9t.yaml", "detect"),
    "v10": ("yolov10n.yaml", "detect"),
    "11": ("yolo11n.yaml", "detect"), "11cls": ("yolo11n-cls.yaml", "classify"),
    "11pose": ("yolo11n-pose.yaml", "pose"), "12": ("yolo12n.yaml", "detect"),
    "12seg": ("yolo12n-seg.yaml", "segment"), "26": ("yolo26n.yaml", "detect"),
    "26seg": ("yolo26n-seg.yaml", "segment"), "26obb": ("yolo26n-obb.yaml", "obb"),
    "26cls": ("yolo26n-cls.yaml", "classify"), "rtdetr": ("yolov8n-rtdetr.yaml", "detect"),
}  # fmt: skip
OPTIMIZERS = ["SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "auto"]


@pytest.mark.soak
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("turn", range(2))
def test_healthy_files_of_every_architecture(name, turn, tmp_path):
    model, task = ARCHITECTURES[name]
    optimizer = OPTIMIZERS[(list(ARCHITECTURES).index(name) + 3 * turn) % len(OPTIMIZERS)]
    # At Ultralytics' 0.01 RMSprop really diverges here: NaN in the validation losses of epoch 2, seen twice.
    more = {"lr0": 0.001} if optimizer == "RMSprop" else {}
    run = train(Recipe(f"{name}-{optimizer}", model, task, optimizer, more=more), tmp_path)
    for path in (run / "weights").glob("*.pt"):
        verdict = scan(path, crc=True)
        assert (path.name, verdict.badge, verdict.findings) == (path.name, "clean", ())
    washed = both(poison(lambda name: True, NAN), strip)
    assert scan(edited(run / "weights" / "epoch0.pt", tmp_path / "washed.pt", washed)).badge == "corrupt"


@pytest.mark.soak
@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.poison is None])
def test_washing_any_single_matrix_shows(name, run_of, tmp_path):
    """Weight matrices and variances of a real file, each washed alone: corrupt, here or by the older file, or
    said to be zero where the metrics of its epoch show a network that works.
    """
    folder = run_of(name) / "weights"
    state = weights(load(folder / "epoch1.pt"))
    alive = [
        key
        for key, tensor in state.items()
        if tensor.any() and ((tensor.ndim > 1 and tensor.numel() > 3) or key.endswith("running_var"))
    ]
    assert len(alive) > 50
    for key in alive[:: max(1, len(alive) // 40)]:
        one = edited(
            folder / "epoch1.pt", tmp_path / "one.pt", poison(lambda name, key=key: name == key, NAN)
        )
        verdict = scan(one, older=folder / "epoch0.pt")
        said = [(finding.kind, finding.where) for finding in verdict.findings]
        assert verdict.badge == "corrupt" or ("decayed", key) in said, key

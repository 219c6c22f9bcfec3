"""Put first on PYTHONPATH by `nantui exec` and `nantui.attach`: Python imports it at every start.

That is how the hook reaches every rank, also those that Ultralytics' own DDP spawn starts. It costs
nothing until Ultralytics' trainer is imported; then `nantui.worker.script.attach` takes over. A
`sitecustomize` of the user's own is run as if this one were not there.
"""

import importlib.machinery
import importlib.util
import os
import sys
from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))
_TRAINER = "ultralytics.engine.trainer"


class _WhenTrainerIsImported:
    """A finder that lets the ordinary ones find Ultralytics' trainer and patches it once it is loaded."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != _TRAINER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            load = loader.exec_module

            def load_and_patch(module: Any) -> None:
                load(module)
                try:
                    from nantui.worker.script import attach
                except ImportError as error:
                    print(f"nantui: this training is not guarded: {error}", file=sys.stderr)
                    return
                attach.patch(module.BaseTrainer)

            loader.exec_module = load_and_patch
        return spec


def _run_the_users_own() -> None:
    """Run the next sitecustomize on the path, which ours has hidden."""
    path = [entry for entry in sys.path if os.path.abspath(entry or ".") not in _hooks]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", path)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


# The path may lead to several copies of this file (two installations, a link to one): each finds the
# next one, and one that comes a second time does nothing, so that they never run each other in a circle.
_hooks: list[str] = sys.__dict__.setdefault("_nantui_hooks", [])
if _HERE not in _hooks:
    if os.environ.get("NANTUI_HOOK") and not _hooks:
        sys.meta_path.insert(0, _WhenTrainerIsImported())
    _hooks.append(_HERE)
    _run_the_users_own()

"""What the screens ask of the other rooms, in one place: imported when first used, replaced in tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from nantui.run.spool import Command
from nantui.run.status import RunStatus


class Backend(Protocol):
    """Everything that is not drawing."""

    def status(self, run: Path) -> RunStatus:
        """Return where the run stands."""

    def fleet(self, top: Path) -> list[RunStatus]:
        """Return where every run below `top` stands; slow, for a thread."""

    def submit(self, run: Path, command: Command) -> None:
        """Leave a command for the supervisor. Raises UserError when it cannot be left."""

    def verdicts(self, weights: Path) -> Iterable[Any]:
        """Yield a verdict for every checkpoint, newest first; slow, for a thread."""

    def plan(self, run: Path, to: str | None, settings: dict[str, Any] | None, presets: Sequence[str]) -> Any:
        """Return the plan of a rollback; slow, for a thread. Raises UserError when there is none."""

    def presets(self, run: Path) -> dict[str, Any]:
        """Return the presets that exist for the run, by name; for a thread."""

    def schema(self) -> Any:
        """Return which settings exist; for a thread. Raises UserError without an Ultralytics."""

    def hardware(self, run: Path, pids: Sequence[int]) -> Any:
        """Return one sample of GPUs and host, for a thread."""


class RealBackend:
    """The other rooms themselves. `take_over`: act on a run whose supervisor on another host is gone."""

    def __init__(self, python: str | None = None, take_over: bool = False) -> None:
        self.python, self.take_over = python, take_over
        self._catalogs: dict[Path, Any] = {}
        self._samplers: dict[Path, Any] = {}

    def status(self, run: Path) -> RunStatus:
        from nantui.supervise.status import read_status

        return read_status(run)

    def fleet(self, top: Path) -> list[RunStatus]:
        from nantui.supervise.fleet import read_fleet

        return read_fleet(top)

    def submit(self, run: Path, command: Command) -> None:
        from nantui.supervise.client import submit

        submit(run, command, take_over=self.take_over)

    def verdicts(self, weights: Path) -> Iterable[Any]:
        from nantui.checkpoint.catalog import Catalog

        if weights not in self._catalogs:
            self._catalogs[weights] = Catalog(weights)
        return self._catalogs[weights].verdicts()

    def plan(self, run: Path, to: str | None, settings: dict[str, Any] | None, presets: Sequence[str]) -> Any:
        from nantui.recovery.plan import make_plan

        return make_plan(run, to=to, settings=settings, presets=tuple(presets), python=self.python)

    def presets(self, run: Path) -> dict[str, Any]:
        from nantui.settings.presets import load_presets

        return load_presets(self.schema(), run)

    def schema(self) -> Any:
        from nantui.settings.schema import Schema

        return Schema.load(self.python)

    def hardware(self, run: Path, pids: Sequence[int]) -> Any:
        from nantui.hardware import Sampler

        if run not in self._samplers:
            self._samplers[run] = Sampler(run)
        return self._samplers[run].sample(pids)

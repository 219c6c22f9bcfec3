"""What the screens ask of the other packages, in one place: imported when first used, replaced in tests."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nantui.errors import UserError, refused
from nantui.run.documents import JsonObject

if TYPE_CHECKING:
    from nantui.checkpoint.catalog import Catalog
    from nantui.checkpoint.verdict import Verdict
    from nantui.labels.report import LabelReport
    from nantui.machine.gpus import Sample, Sampler
    from nantui.recovery.plan import Plan
    from nantui.run.commands import Command
    from nantui.run.status import RunStatus
    from nantui.settings.presets import Preset
    from nantui.settings.schema import Schema

Progress = Callable[[int, int], bool]
Presets = Sequence[str] | None
LOOK_S = 2.0  # how often the panel of the machine looks


class Backend:
    """The other packages themselves. `take_over`: act on a run whose supervisor on another host is gone."""

    def __init__(self, python: str | None = None, take_over: bool = False) -> None:
        self.python, self.take_over = python, take_over
        self._catalogs: dict[Path, Catalog] = {}
        self._samplers: dict[Path, Sampler] = {}

    def now(self) -> float:
        """Return the time, s since the epoch."""
        return time.time()

    def status(self, run: Path) -> RunStatus:
        """Return where the run stands."""
        from nantui.supervisor.status import read_status

        return read_status(run)

    def fleet(self, top: Path) -> Iterable[RunStatus]:
        """Yield where every run below `top` stands; slow, for a thread."""
        from nantui.supervisor.status import each_status

        return each_status(top)

    def submit(self, run: Path, command: Command) -> None:
        """Leave a command for the supervisor. Raises UserError when it cannot be left."""
        from nantui.supervisor.client import submit

        submit(run, command, take_over=self.take_over)

    def want_worker(self, run: Path, wanted: bool) -> None:
        """Have the run's next worker brought up while a dialog is open; for a thread."""
        from nantui.supervisor.client import want_worker

        want_worker(run, wanted)

    def verdicts(self, weights: Path) -> Iterable[Verdict]:
        """Yield a verdict for every checkpoint, newest first; slow, for a thread."""
        from nantui.checkpoint.catalog import Catalog

        if weights not in self._catalogs:
            self._catalogs[weights] = Catalog(weights)
        return self._catalogs[weights].verdicts()

    def restore_point(self, run: Path) -> Path | None:
        """Return the checkpoint that `R` would go back to, None without one; slow, for a thread."""
        from nantui.recovery.plan import choose_restore
        from nantui.recovery.plan_inputs import gather_inputs
        from nantui.run.record import read_run

        with contextlib.suppress(UserError):
            restore = choose_restore(gather_inputs(read_run(run), {}, self.python), None, restart=False)
            return restore.path if restore else None
        return None

    def plan(
        self, run: Path, to: str | None, settings: Mapping[str, object], presets: Presets, **more: Any
    ) -> Plan:
        """Return the plan of a rollback, `settings` on top of `presets` (None: what the evidence supports),
        `more` as in `make_plan`; slow, for a thread. Raises UserError when there is none.
        """
        from nantui.diagnosis.causes import named
        from nantui.recovery.plan import make_plan

        more |= {"python": self.python, "diagnosed": named(run)}
        return make_plan(run, to, settings, presets, propose=True, **more)

    def diagnose(self, run: Path) -> JsonObject:
        """Return causes and advice as `nantui diagnose --json` has them; slow, for a thread."""
        from nantui.diagnosis.causes import diagnose

        return dict(diagnose(run).to_json())

    def labels(self, run: Path, progress: Progress) -> LabelReport:
        """Return the check of the run's labels; slow, for a thread. Raises UserError without a data set."""
        from nantui.labels.check import check_data_set
        from nantui.labels.data_set import load_data_set
        from nantui.run.layout import RunLayout
        from nantui.run.record import RunRecord, in_full

        record = RunRecord(RunLayout(run))
        args = in_full(record, record.args)
        if not args.get("data"):
            raise UserError("the run does not say which data set it trains on: its args.yaml has no data")
        return check_data_set(load_data_set(str(args["data"])), args, progress=progress)

    def write_labels(self, run: Path, report: LabelReport) -> Path:
        """Write all findings as CSV and return the file."""
        from nantui.labels.report import write_csv

        path = run / "nantui-labels.csv"
        with refused(f"cannot write {path}"), path.open("w", encoding="utf-8", newline="") as file:
            write_csv(report, file)
        return path

    def quarantined(self, run: Path) -> set[str]:
        """Return the images that the run leaves out of its training, absolute."""
        from nantui.run.layout import RunLayout
        from nantui.run.quarantine import quarantined

        return set(quarantined(RunLayout(run)))

    def presets(self, run: Path) -> dict[str, Preset]:
        """Return the presets that exist for the run, by name; for a thread."""
        from nantui.settings.presets import load_presets

        return load_presets(self.schema(), run)

    def schema(self) -> Schema:
        """Return which settings exist; for a thread. Raises UserError without an Ultralytics."""
        from nantui.settings.schema import Schema

        return Schema.load(self.python)

    def hardware(self, run: Path, pids: Sequence[int]) -> Sample:
        """Return one sample of GPUs and host, for a thread; a driver that takes long is not waited for."""
        from nantui.machine.gpus import Sampler
        from nantui.machine.process_identity import host_id
        from nantui.run.layout import RunLayout
        from nantui.supervisor.hosts.reports import samples_elsewhere

        if run not in self._samplers:
            self._samplers[run] = Sampler(run)
        sample = self._samplers[run].sample(pids, within_s=LOOK_S)
        hosts = RunLayout(run).hosts
        return replace(sample, elsewhere=samples_elsewhere(hosts, host_id(), sample.t))

"""`make demo-environments`: the demo without a person, where kernels, threads and seed differ.

    python -m benchmarks.demo_environments [--found FILE] [--write docs/demo-environments.md] [--beside N]

Each demo is `nantui demo --headless`, as anybody would start it, under variables that make this CPU compute
as another would. What was found is kept in FILE, a line each, and not done again; the folder of a demo that
did not hold stays.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.figures import description
from nantui.demo.story import ACT_ONE, ACT_TWO
from nantui.run.events import Incident, of_kind
from nantui.run.layout import RunLayout
from nantui.run.record import AttemptRecord
from nantui.run.results import current, read_results

ROOT = Path(__file__).resolve().parents[1]
CAPABILITIES = {"default": "sse2", "avx2": "avx2", "avx512": "avx512f"}
ISAS = {"SSE41": "sse4_1", "AVX2": "avx2", "AVX512_CORE": "avx512f"}
"""What each variable may be, and the flag of a CPU that can do it."""
THREADS = (1, 2, 4)
SEEDS = range(5)
OURS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS")
HEAD = """# The demo on other CPUs

Written by `make demo-environments` on {when}: {held} of {all} demos held. The kernels of PyTorch itself
(`ATEN_CPU_CAPABILITY`) and of oneDNN (`ONEDNN_MAX_CPU_ISA`) are those that another CPU would use; threads and
seed differ too. *Held* means: `nantui demo --headless` proved every stage (the restored epoch is the newest
before the planted fault), there was no alarm but for the planted faults, and the validation losses fell, from
epoch 1 to the epoch before the fault and from there to the end. In a cell: oneDNN's kernels, and mAP50-95 at
the end.

| PyTorch's kernels, threads | {seeds} |
| --- | {rules} |
"""


@dataclass(frozen=True)
class Environment:
    """Where a demo runs; with `threads` 0 as the machine is, no variable set."""

    capability: str
    isa: str
    threads: int
    seed: int

    @property
    def row(self) -> str:
        """The row of the table it belongs to."""
        return f"{self.capability}, {self.threads}" if self.threads else "as the machine is"

    def variables(self) -> dict[str, str]:
        """Return the environment of the demo."""
        kept = {name: value for name, value in os.environ.items() if name not in OURS}
        chosen = dict(zip(OURS, (self.capability, self.isa, str(self.threads)), strict=True))
        return kept | (chosen if self.threads else {})


@dataclass(frozen=True)
class Found:
    """What came of one demo. `val` are the sums of the validation losses in epoch 1, before the fault, at the
    end; `against` says why it did not hold.
    """

    environment: Environment
    against: str
    val: tuple[float, ...]
    metric: float
    seconds: float


def main() -> int:
    """Run what is not known yet, print a line for each, write the page if asked; 1 where one did not hold."""
    parser = description(__doc__)
    parser.add_argument("--found", type=Path, default=ROOT / "benchmarks/recorded/demo-environments.jsonl")
    parser.add_argument("--write", type=Path, help="write the page here")
    parser.add_argument("--beside", type=int, default=2, metavar="N", help="so many at once")
    arguments = parser.parse_args()
    told = earlier(arguments.found)
    open_ones = [one for one in environments() if one not in told]
    for found in as_they_end(open_ones, arguments.beside):
        told[found.environment] = found
        with arguments.found.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(found)) + "\n")
        print(f"{len(told):3d} {found.environment}: {cell(found)}, {found.seconds:.0f} s", flush=True)
    if arguments.write:
        arguments.write.write_text(page(told), encoding="utf-8")
    return 1 if any(found.against for found in told.values()) else 0


def as_they_end(open_ones: list[Environment], beside: int) -> Iterator[Found]:
    """Run demos, `beside` at once; after Ctrl-C, which ends those that run, none is begun."""
    with ThreadPoolExecutor(beside) as pool:
        demos = [pool.submit(tried, one) for one in open_ones]
        try:
            for demo in as_completed(demos):
                yield demo.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def environments() -> Iterator[Environment]:
    """Yield PyTorch's kernels with every number of threads and every seed, as far as this CPU can do them;
    oneDNN's take turns, so that each meets every other value.
    """
    flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    isas = [name for name, flag in ISAS.items() if flag in flags]
    for seed in SEEDS:
        yield Environment("", "", 0, seed)
        for number, (capability, flag) in enumerate(CAPABILITIES.items()):
            for at, threads in enumerate(THREADS):
                if flag in flags:
                    yield Environment(capability, isas[(number + at + seed) % len(isas)], threads, seed)


def earlier(path: Path) -> dict[Environment, Found]:
    """Return what earlier calls found."""
    told = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        document = json.loads(line)
        environment = Environment(**document.pop("environment"))
        told[environment] = Found(environment, **document)
    return told


def tried(environment: Environment) -> Found:
    """Run one demo and read its files."""
    place, begun = Path(tempfile.mkdtemp(prefix="nantui-demo-")), time.monotonic()
    argv = [sys.executable, "-m", "nantui", "demo", "--headless", "--dir", str(place)]
    done = subprocess.run(
        [*argv, "--seed", str(environment.seed)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment.variables(), cwd=ROOT,
    )  # fmt: skip
    seconds = time.monotonic() - begun
    if done.returncode:
        (place / "said.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
        said = next((line for line in done.stdout.splitlines() if "FAILED" in line), done.stderr.strip())
        return Found(environment, f"{said}; see {place}", (), math.nan, seconds)
    val, metric, against = read(place / "runs" / "demo")
    if against:
        against += f"; see {place}"
    else:
        shutil.rmtree(place, ignore_errors=True)  # its supervisor, about to end, removes files too
    return Found(environment, against, val, metric, seconds)


def read(run: Path) -> tuple[tuple[float, ...], float, str]:
    """Return the validation losses at three epochs, the metric at the end, and what speaks against it."""
    layout = RunLayout(run)
    rows = {row.epoch: row for row in current(read_results(layout.results_csv))}
    shown = [rows[epoch] for epoch in (1, ACT_ONE["epoch"] - 1, max(rows))]
    val = tuple(sum(row.losses("val").values()) for row in shown)
    against = [] if val[0] > val[1] > val[2] else [f"validation losses {val}"]
    if others := other_alarms(layout):
        against.append(f"other alarms: {others}")
    return val, shown[-1].values["metrics/mAP50-95(B)"], "; ".join(against)


def other_alarms(layout: RunLayout) -> str:
    """Return the alarms of act two that were not planted, by kind; of act one the demo itself proves it."""
    planted = (ACT_TWO["epoch"], ACT_TWO["batch"])
    alarms = of_kind(AttemptRecord(layout, ACT_TWO["attempt"]).events(), Incident)
    kinds = Counter(one.incident for one in alarms if (one.epoch, one.step) != planted)
    return ", ".join(f"{kind} {count}" for kind, count in kinds.items())


def page(told: dict[Environment, Found]) -> str:
    """Return the page: a row for PyTorch's kernels and threads, a column for each seed."""
    held = sum(not found.against for found in told.values())
    text = HEAD.format(
        when=time.strftime("%Y-%m-%d"), held=held, all=len(told),
        seeds=" | ".join(f"seed {seed}" for seed in SEEDS), rules=" | ".join("---" for _ in SEEDS),
    )  # fmt: skip
    for row in dict.fromkeys(one.row for one in environments()):
        cells = {one.seed: cell(found) for one, found in told.items() if one.row == row}
        text += f"| {row} | {' | '.join(cells.get(seed, 'not tried') for seed in SEEDS)} |\n"
    return text


def cell(found: Found) -> str:
    """Return what came of one demo, briefly."""
    kernels = f"{found.environment.isa} " if found.environment.isa else ""
    return f"{kernels}**{found.against}**" if found.against else f"{kernels}held {found.metric:.2f}"


if __name__ == "__main__":
    raise SystemExit(main())

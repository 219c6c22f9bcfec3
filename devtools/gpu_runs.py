"""Record six runs and a queue on a machine with GPUs, for the pictures of README and docs: real trainings,
real samples of the hardware, one moment of all of them.

On a GPU machine without a network, with what benchmarks/gpu/run.sh needs, in less than four minutes:

    NANTUI_MODULE=devtools.gpu_runs bash benchmarks/gpu/run.sh "$OUT"

It writes OUT/gpu_runs.tar.xz (less than 1 MB), which belongs beside this file: `devtools.screenshots` draws
from it. Where torch and Ultralytics are installed, `python3 -m devtools.gpu_runs OUT` does the same; without
a GPU it tries itself out with two small trainings on the CPU, which wants `--seconds 150`.
"""

from __future__ import annotations

import argparse
import getpass
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import Bench, command, told
from devtools.recorded_run import HOST, MACHINE, PLACE, USER, record, to_plain
from nantui.demo.story import NETWORK
from nantui.machine.gpus import Sample, Sampler
from nantui.machine.process_identity import boot_id
from nantui.paths import configs_dir
from nantui.run.atomic_files import to_json
from nantui.run.commands import Command
from nantui.run.events import AttemptEnded
from nantui.run.status import ACTIVE
from nantui.supervisor.client import submit
from nantui.supervisor.status import each_status, read_status
from nantui.ui.model.backend import Backend

ARCHIVE = "gpu_runs.tar.xz"
SAMPLE_EVERY_S = 2.0
STOPPED_AT = 9
"""The epoch in which somebody stops one of them."""


@dataclass(frozen=True)
class Training:
    """One run: the names of its GPUs, what it trains, and what befalls it."""

    name: str
    devices: str
    train: Mapping[str, Any]
    faults: Sequence[Mapping[str, Any]] = ()
    ours: Mapping[str, Any] = field(default_factory=dict)


def _nan(epoch: int, **more: Any) -> dict[str, Any]:
    return {"fault": "nan_pixel", "epoch": epoch, "batch": 1, "rank": 1, **more}


RECOVERED, ALARM, STOPPED = "yolo11n-2gpu", "yolov8n-fp16", "yolo11s-lr03"
TRAININGS = (
    Training(RECOVERED, "0,1", {"model": "yolo11n.yaml", "batch": 64, "epochs": 150, "lr0": 0.02},
             [_nan(9, times=1000, attempt=1), _nan(20, attempt=2)]),
    Training(STOPPED, "1", {"model": "yolo11s.yaml", "epochs": 150, "lr0": 0.03}),
    Training(ALARM, "0", {"model": "yolov8n.yaml", "epochs": 150},
             [{"fault": "batchnorm_nan", "attempt": 1, "epoch": 24, "batch": 3}], {"guard": "observe"}),
    Training("yolov8s-final", "0", {"model": "yolov8s.yaml", "epochs": 16}),
    Training("yolov8m-bf16", "0", {"model": "yolov8m.yaml", "epochs": 150, "amp": "bf16"}),
)  # fmt: skip
QUEUED = (
    ("yolo26n-640", "1", {"model": "yolo26n.yaml", "imgsz": 640}),
    ("yolo26s-2gpu", "0,1", {"model": "yolo26s.yaml", "batch": 64}),
    ("yolo26m-2gpu", "0,1", {"model": "yolo26m.yaml", "batch": 64}),
)


class Stage:
    """The place of the runs, and what was measured of the machine meanwhile."""

    def __init__(self, place: Path) -> None:
        self.place, self.runs = place, place / "runs"
        self.sampler = Sampler(place)
        self.samples: list[Sample] = []
        self.gpus = len(self.sampler.sample().gpus)
        self.trainings = TRAININGS if self.gpus else TRAININGS[:2]
        self.bench = Bench(place, self.gpus)

    def begin(self) -> None:
        """Start all trainings, and those of the queue."""
        data = self.bench.data(16 if self.gpus else 1)
        starts = [partial(self._queue, data), *(partial(self._start, one, data) for one in self.trainings)]
        side_by_side(starts)

    def _settings(self, devices: str, train: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a training is asked for; on a CPU one that is small enough for it."""
        common: dict[str, Any] = {
            "imgsz": 320, "batch": 32, "nbs": 64, "save_period": 4, "workers": 4, "cache": "ram",
            "plots": False, "optimizer": "SGD", "lr0": 0.01, "device": devices,
        }  # fmt: skip
        here: dict[str, Any] = {"device": "0"} if self.gpus == 1 else {}
        if not self.gpus:
            here = {
                "model": str(self._small()), "device": ",".join("cpu" for _ in devices.split(",")),
                "imgsz": 64, "batch": 4, "nbs": 4, "workers": 0, "amp": False,
            }  # fmt: skip
        return {**common, **train, **here}

    def _small(self) -> Path:
        return shutil.copyfile(configs_dir() / "demo" / NETWORK, self.place / NETWORK)

    def _start(self, one: Training, data: Path) -> None:
        self.bench.train(one.name, ours=dict(one.ours), faults=[*map(dict, one.faults)], data=str(data),
                         **self._settings(one.devices, one.train))  # fmt: skip

    def _queue(self, data: Path) -> None:
        """Add the runs of the queue; what all have in common does not tell one from the others."""
        every = [self._settings(devices, {"name": name, **train}) for name, devices, train in QUEUED]
        own = ("name", "model", "imgsz", "batch", "device")
        shared = {**every[0], "data": data, "project": self.runs, "epochs": 150}
        wanted = self.place / "queue.yaml"
        wanted.write_text(json.dumps([{key: one[key] for key in own} for one in every]), encoding="utf-8")
        words = [f"{key}={value}" for key, value in shared.items() if key not in own]
        nantui("queue", "add", "--runs", str(wanted), *words)

    def watch(self, until: float) -> None:
        """Measure until `until`, s of the monotonic clock; one run is stopped by then, another recovered."""
        errands = {"stop": self._stop, "recover": self._recover}
        while time.monotonic() < until:
            self.samples.append(self.sample())
            for name, due in list(errands.items()):
                if due():
                    print(f"{name}: asked for", flush=True)
                    del errands[name]
            time.sleep(SAMPLE_EVERY_S)
        for name in errands:
            print(f"{name}: was not due within the time", flush=True)

    def sample(self) -> Sample:
        return self.sampler.sample({pid for run in self.runs.iterdir() for pid in read_status(run).pids})

    def _stop(self) -> bool:
        due = (read_status(self.runs / STOPPED).epoch or 0) >= STOPPED_AT
        if due:
            submit(self.runs / STOPPED, Command("stop", {}))
        return due

    def _recover(self) -> bool:
        due = told(self.runs / RECOVERED, AttemptEnded, 1) is not None
        if due:
            submit(self.runs / RECOVERED, Command("recover", {"presets": ["nan-safe"]}))
        return due

    def record(self, target: Path) -> None:
        """Copy what is small of every run, and what the other rooms say of the rest, to `target`."""
        scrub, runs = self._names(), sorted(self.runs.iterdir())
        queue = json.loads(nantui("queue", "list", "--json"))
        side_by_side([partial(record, run, target / run.name, Backend(), scrub) for run in runs])
        machine = {"gpus": self.gpus, "queue": queue, "samples": [to_plain(one) for one in self.samples]}
        text = to_json(machine)
        for secret, shown in scrub.items():
            text = text.replace(secret, shown)
        (target / MACHINE).write_text(text, encoding="utf-8")

    def _names(self) -> dict[str, str]:
        """Return what is nobody's business, longest first, and what stands for it."""
        host, home = socket.gethostname(), str(Path.home())
        settings = os.environ.get("YOLO_CONFIG_DIR", "/tmp/nantui-ultralytics")
        names = {
            str(self.place): str(Path(PLACE).parent), str(Path.cwd()): f"/home/{USER}/nantui",
            os.environ.get("NANTUI_SITE", "/tmp/nantui-site"): f"/home/{USER}/site",
            settings: f"/home/{USER}/ultralytics", sys.executable: "python3", boot_id(): "recorded",
            f"{getpass.getuser()}@{host}": f"{USER}@{HOST}", f'"{host}"': f'"{HOST}"',
            f'"user": "{getpass.getuser()}"': f'"user": "{USER}"',
        }  # fmt: skip
        names |= {sys.prefix: f"/home/{USER}/venv"} if "venv" in sys.prefix else {}
        names |= {home: f"/home/{USER}"} if len(home) > 1 else {}
        names |= {host: HOST} if len(host) > 3 else {}
        return {name: names[name] for name in sorted(names, key=len, reverse=True) if name}

    def leaks(self, target: Path) -> list[str]:
        """Return the files that still hold a name of this machine."""
        secrets = [str(self.place), str(Path.cwd()), socket.gethostname(), boot_id()]
        files = [path for path in target.rglob("*") if path.is_file()]
        return [
            str(path) for path in files if any(one in path.read_text(errors="replace") for one in secrets)
        ]

    def end(self) -> None:
        """End everything that was started, whatever it does."""
        with suppress(subprocess.CalledProcessError):
            nantui("queue", "pause")
            nantui("queue", "remove", "all", "--yes")
        going = [
            status.path for status in each_status(self.runs) if status.state in ACTIVE and status.attempt
        ]
        side_by_side([partial(command, run, "kill") for run in going])


def side_by_side(jobs: Sequence[Callable[[], object]]) -> None:
    """Do all of them at once; one that fails is told and holds up no other."""
    with ThreadPoolExecutor(len(jobs) or 1) as pool:
        for done in [pool.submit(job) for job in jobs]:
            if error := done.exception():
                print(f"FAILED: {error!r}", flush=True)


def nantui(*words: str) -> str:
    """Run a command of nantui and return what it prints. Raises CalledProcessError."""
    return subprocess.run(
        [sys.executable, "-m", "nantui", *words], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def pack(folder: Path, archive: Path) -> None:
    """Write all files of `folder` into `archive`, without owners and times of their own."""
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            member, content = tarfile.TarInfo(str(path.relative_to(folder))), path.read_bytes()
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))


def main() -> int:
    """Train, record and end; returns 1 where a name of this machine is left in what was recorded."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="where to write the recording")
    parser.add_argument("--seconds", type=float, default=185.0, help="how long to train (default: 185)")
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.seconds
    place = Path(tempfile.mkdtemp(prefix="nantui-pictures-")).resolve()
    os.environ["XDG_STATE_HOME"] = str(place / "state")
    stage, recorded = Stage(place), place / "recorded"
    try:
        stage.begin()
        print(f"{len(stage.trainings)} runs and {len(QUEUED)} in the queue on {stage.gpus} GPUs", flush=True)
        stage.watch(until)
        stage.record(recorded)
    finally:
        stage.end()
    for status in each_status(stage.runs):
        print(f"{status.path.name:<16} {status.state:<10} epoch {status.epoch}/{status.epochs} {status.text}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    pack(recorded, arguments.out / ARCHIVE)
    leaks = stage.leaks(recorded)
    print(
        f"{arguments.out / ARCHIVE}: {(arguments.out / ARCHIVE).stat().st_size:,} bytes", *leaks, flush=True
    )
    shutil.rmtree(place, ignore_errors=True)
    return 1 if leaks else 0


if __name__ == "__main__":
    raise SystemExit(main())

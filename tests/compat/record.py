"""How the recorded runs were made: `python -m tests.compat.record [NAME …]`; a minute or two for all of them.

Everything here is done by the package of 9407e15, unpacked from data/nantui-9407e15.tar.xz, whatever the
package beside these tests has become: its commands, its supervisors, its workers, in real trainings of a
model of 6,414 parameters on images of 32 pixels. What this program adds is only

- a place, `RECORDED`, so that no path names the machine; the tests unpack a run below another path of the
  same length and rewrite each mention (archive.py), so that for them a run lies where it was made;
- a host called `recorded`, a user called `somebody`, and a boot that never was: to the tests the host has
  been rebooted since, unless they say otherwise;
- a copy of Ultralytics outside any repository: it writes the origin of the repository that it lies in into
  every checkpoint;
- the deaths: a helper of recovery (and in one case its supervisor) is killed between two moves.

Each archive in data/ holds `runs/NAME`, the data set and the model. Where a rollback is broken off,
`before/` is the run as it was when the rollback began. `said.json` is what 9407e15 itself says of the runs
once they are unpacked: status, check and diagnose as JSON, by the name of the archive.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests import waiting
from tests.compat.archive import DATA, OLD_CODE, RECORDED, new_root, pack, unpack, unpack_old_code
from tests.waiting import eventually

HOST, OTHER_HOST, USER = "recorded", "other", "somebody"
NO_BOOT = b"00000000-0000-4000-8000-000000000000"
PATIENCE = """patience: {tick_s: 0.05, heartbeat_s: 0.5, idle_exit_s: 0.5, host_silent_s: 20, stop_s: 60}
"""
MODEL = """nc: 2
reg_max: 4
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
head:
  - [[2], 1, Detect, [nc]]
"""
TRAIN: dict[str, Any] = {
    "imgsz": 32, "batch": 4, "nbs": 4, "save_period": 1, "optimizer": "SGD", "lr0": 0.001,
    "warmup_epochs": 0.0, "mosaic": 0.0, "workers": 0, "device": "cpu", "plots": False, "seed": 0,
    "verbose": False,
}  # fmt: skip
CREATE = """import json, sys
from nantui.supervise.client import create_run
request = json.loads(sys.argv[1])
print(create_run(request.pop("train"), **request))
"""
SUBMIT = """import json, sys
from nantui.run.spool import Command
from nantui.supervise.client import carry_out, submit
run, how, kind, options = sys.argv[1:]
(carry_out if how == "wait" else submit)(run, Command(kind, json.loads(options)))
"""
DIE = """import os, runpy, signal, sys
from nantui.recovery import steps
moves, with_supervisor, module = int(sys.argv[1]), sys.argv[2] == "both", sys.argv[3]
do = steps.do
def do_or_die(run, step):
    global moves
    if moves == 0:
        if with_supervisor:
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    moves -= 1
    do(run, step)
steps.do = do_or_die
sys.argv[:] = sys.argv[3:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


class Room:
    """The place of the recording: old code, data set, model, and the interpreter that trains."""

    def __init__(self) -> None:
        self.root = Path(RECORDED)
        self.root.mkdir()
        self.code = unpack_old_code(self.root / "code")
        self.interpreter()
        self.place_ultralytics()
        draw(self.root / "data")
        (self.root / "tiny.yaml").write_text(MODEL)
        config = self.root / "home/config/nantui/supervise.yaml"
        config.parent.mkdir(parents=True)
        config.write_text(PATIENCE)

    def place_ultralytics(self) -> None:
        import ultralytics

        shutil.copytree(Path(ultralytics.__file__).parent, self.root / "site/ultralytics")

    def interpreter(self, moves: int | None = None, dies: str = "") -> None:
        """Write what runs are told to train with; with `moves`, recovery's helper dies after so many."""
        (self.root / "die.py").write_text(DIE)
        line = f'exec "{sys.executable}" "$@"'
        if moves is not None:
            dying = f'exec "{sys.executable}" "{self.root}/die.py" {moves} {dies} "$2" "$3"'
            line = f'[ "$2" = nantui.recovery ] && {dying}\n{line}'
        script = self.root / "python"
        script.write_text(
            f'#!/bin/sh\nexport PYTHONPATH="{self.root}/site${{PYTHONPATH:+:$PYTHONPATH}}"\n{line}\n'
        )
        script.chmod(0o755)

    def python(
        self, *words: str, host: str = HOST, root: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run our interpreter with the old code, for a run below `root`, on `host`."""
        root = root or self.root
        environment = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(self.code), "HOME": str(root / "home"),
            **{f"XDG_{kind.upper()}_HOME": f"{root}/home/{kind}" for kind in ("config", "cache", "state")},
            "YOLO_CONFIG_DIR": str(root / "home"), "YOLO_OFFLINE": "true", "OMP_NUM_THREADS": "1",
            "LOGNAME": USER, "NANTUI_HOST": host, "TZ": "UTC",
        }  # fmt: skip
        argv = [sys.executable, *words]
        return subprocess.run(argv, env=environment, cwd=root, capture_output=True, text=True, timeout=300)

    def nantui(self, *words: str | Path, fails: bool = False, **where: Any) -> str:
        """Run a command; returns what it wrote to stdout."""
        done = self.python("-m", "nantui", *map(str, words), **where)
        assert fails == (done.returncode != 0), (words, done.stdout, done.stderr)
        return done.stdout

    def create(self, name: str, train: dict[str, Any], **how: Any) -> Path:
        """Start a training."""
        place = {"data": f"{self.root}/data/data.yaml", "model": f"{self.root}/tiny.yaml"}
        place |= {"project": f"{self.root}/runs", "name": name}
        request = {"train": {**TRAIN, **place, **train}, "python": f"{self.root}/python", **how}
        done = self.python("-c", CREATE, json.dumps(request))
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.strip())

    def send(self, run: Path, kind: str, wait: bool = True, **options: Any) -> None:
        """Leave a command as the cockpit does."""
        how = "wait" if wait else "leave"
        done = self.python("-c", SUBMIT, str(run), how, kind, json.dumps(options))
        assert done.returncode == 0, done.stderr

    def status(self, run: Path) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.nantui("status", "--json", run))["runs"][0]
        return answer


def draw(root: Path) -> None:
    """Write a detection data set of plain squares, small as files."""
    from PIL import Image, ImageDraw

    dice = random.Random(0)
    for split, count in (("train", 16), ("val", 4)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            picture = Image.new("RGB", (32, 32), (20, 20, 20))
            kind, side = index % 2, dice.randrange(8, 16)
            x, y = dice.randrange(32 - side), dice.randrange(32 - side)
            colour = ((255, 40, 40), (40, 40, 255))[kind]
            ImageDraw.Draw(picture).rectangle((x, y, x + side - 1, y + side - 1), fill=colour)
            picture.save(root / "images" / split / f"{index:02d}.png")
            box = (x + side / 2) / 32, (y + side / 2) / 32, side / 32, side / 32
            words = " ".join(f"{value:.5f}" for value in box)
            (root / "labels" / split / f"{index:02d}.txt").write_text(f"{kind} {words}\n")
    names = {0: "red", 1: "blue"}
    data = {"path": str(root), "train": "images/train", "val": "images/val", "names": names}
    (root / "data.yaml").write_text(yaml.safe_dump(data))


def slow(*epochs: int, seconds: float = 3.0) -> list[dict[str, Any]]:
    """Return faults that slow the first attempt's epochs down, so that it can be stopped in them."""
    fault = {"fault": "slow_step", "attempt": 1, "batch": 1, "times": 99, "seconds": seconds}
    return [{**fault, "epoch": epoch} for epoch in epochs]


def in_epoch(room: Room, run: Path, epoch: int, attempt: int = 1) -> None:
    """Wait until an attempt has done the second step of an epoch."""
    home = run / "nantui/attempts"

    def there() -> bool:
        assert not list(home.glob(f"{attempt:03d}.rank*.exit.json")), room.status(run)
        try:
            rows = (home / f"{attempt:03d}.steps.csv").read_text().splitlines()[1:]
        except FileNotFoundError:
            return False
        return bool(rows) and tuple(map(int, rows[-1].split(",")[1:3])) >= (epoch, 2)

    eventually(there, lambda: f"waited in vain for epoch {epoch} of {run}")


def stop(room: Room, run: Path) -> None:
    """Stop at an agreed step."""
    room.nantui("stop", run, "--yes")
    assert room.status(run)["state"] == "stopped", room.status(run)


def finished(room: Room) -> None:
    """A NaN that cost one step, a recovery with a lower learning rate while it trained, and its end."""
    faults = [{"fault": "nan_pixel", "epoch": 1, "batch": 2}, *slow(3, 4)]
    run = room.create("finished", {"epochs": 4}, faults=faults)
    in_epoch(room, run, 3)
    room.nantui("recover", run, "--set", "lr0=0.0005", "--yes")
    eventually(lambda: room.status(run)["state"] == "finished", lambda: "waited in vain for its end")


def broken_early(room: Room) -> None:
    """NaN in the BatchNorm statistics, only observed; `R`, and the power is cut after two moves."""
    run = _ruined(room)
    room.interpreter(moves=2, dies="both")
    room.send(run, "recover", wait=False)
    _alone(run)


def broken_late(room: Room) -> None:
    """The same; the helper alone is killed after six moves: its supervisor says so, and leaves."""
    run = _ruined(room)
    room.interpreter(moves=6, dies="helper")
    room.nantui("recover", run, "--yes", fails=True)
    _alone(run)


def _ruined(room: Room) -> Path:
    """A stopped run whose checkpoints from the third epoch on are ruined; what it was lies in `before`."""
    faults = [{"fault": "batchnorm_nan", "attempt": 1, "epoch": 3, "batch": 2}, *slow(5, 6)]
    run = room.create("ruined", {"epochs": 6}, ours={"guard": "observe"}, faults=faults)
    in_epoch(room, run, 5)
    stop(room, run)
    _alone(run)
    keep(run, room.root / "before")
    return run


def plan(room: Room) -> None:
    """A plan of two phases, stopped in the second."""
    phases = [
        {"title": "small", "settings": {"epochs": 1, "imgsz": 32}},
        {"title": "large", "settings": {"epochs": 60, "imgsz": 64, "lr0": 0.0005}},
    ]
    file = room.root / "plan.yaml"
    file.write_text(yaml.safe_dump({"phases": phases}))
    asked = {**TRAIN, "data": f"{room.root}/data/data.yaml", "model": f"{room.root}/tiny.yaml"}
    asked |= {"project": f"{room.root}/runs", "name": "plan", "save_period": -1}
    words = [f"{name}={value}" for name, value in asked.items()]
    room.nantui("train", *words, "--plan", file, "--python", f"{room.root}/python", "--yes")
    run = room.root / "runs/plan"
    in_epoch(room, run, 2, attempt=2)
    stop(room, run)


def two_hosts(room: Room) -> None:
    """Two hosts, a NaN on the second, stopped by both at one step; then the second was sent home."""
    faults = [{"fault": "nan_pixel", "rank": 1, "epoch": 1, "batch": 2}, *slow(2, 3)]
    how = {"nnodes": 2, "endpoint": "127.0.0.1:0"}
    run = room.create("two_hosts", {"epochs": 3}, faults=faults, **how)
    eventually(
        lambda: "waiting for 1 of 2 hosts" in room.status(run)["text"],
        lambda: "waited in vain for the supervisor",
    )
    room.nantui("join", run, "--python", f"{room.root}/python", "--yes", host=OTHER_HOST)
    in_epoch(room, run, 2)
    stop(room, run)
    stop(room, run)


def stopped(room: Room) -> None:
    """Stopped in the middle of an epoch; then two settings were edited and two images left out."""
    run = room.create("stopped", {"epochs": 3}, faults=slow(2, 3))
    in_epoch(room, run, 2)
    stop(room, run)
    room.send(run, "set", set={"lr0": 0.0004, "grad_clip": 5.0})
    images = [room.root / f"data/images/train/{number:02d}.png" for number in (3, 5)]
    room.nantui("labels", run, "--yes", "--leave-out", *images, fails=False)


def diverged(room: Room) -> None:
    """A NaN in every batch from the third epoch on: the guard ended it."""
    faults = [{"fault": "nan_pixel", "attempt": 1, "epoch": 3, "batch": 1, "times": 4}]
    run = room.create("diverged", {"epochs": 4}, ours={"max_consecutive_skips": 2}, faults=faults)
    eventually(lambda: room.status(run)["state"] == "diverged", lambda: "waited in vain for its end")


STORIES = (finished, broken_early, broken_late, plan, two_hosts, stopped, diverged)


def keep(run: Path, place: Path) -> None:
    """Copy a run with its files' times."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(run, place)


def _alone(run: Path) -> None:
    """Wait until no process serves the run or trains in it."""
    eventually(lambda: not _processes(), lambda: f"waited in vain for the processes of {run} to leave")


def _processes() -> list[int]:
    """Return what runs with the old code: `Room.python` gives it a home of its own."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"HOME={RECORDED}/home".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


def neutral_words() -> dict[bytes, bytes]:
    """Return what names this boot, and what stands in its place."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    namespace = os.readlink("/proc/self/ns/pid").encode()
    return {boot: NO_BOOT, namespace: re.sub(rb"\d", b"0", namespace)}


def clean_logs(root: Path) -> None:
    """Take the processor's name and our interpreter's place out of what Ultralytics and PyTorch printed."""
    for log in root.rglob("*.log"):
        text = log.read_text(errors="surrogateescape").replace(sys.prefix, "/opt/python")
        text = re.sub(r'(?<=")/[^"\n]*/site-packages', "/opt/python/site-packages", text)
        log.write_text(re.sub(r"CPU \([^)]*\)", "CPU (a processor)", text), errors="surrogateescape")


def refuse_traces(root: Path) -> None:
    """Raise AssertionError where a file still names this machine, its user or its interpreter."""
    import ultralytics

    user, libraries = getpass.getuser(), Path(ultralytics.__file__).parents[1]
    traces = {socket.gethostname(), f"{user}@{HOST}", f"{user}@{OTHER_HOST}", f"/home/{user}", "/root"}
    traces |= {str(place) for place in (sys.prefix, Path.cwd(), libraries)}
    traces |= {key.decode() for key in neutral_words()}
    words = rb"(?<!\w)(?:" + b"|".join(re.escape(trace.encode()) for trace in traces) + rb")(?!\w)"
    for path in root.rglob("*"):
        found = re.findall(words, path.read_bytes()) if path.is_file() else []
        assert not found, (path, found)


@contextmanager
def room() -> Iterator[Room]:
    made = Room()
    try:
        yield made
    finally:
        for pid in _processes():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(RECORDED)


def record(story: Callable[[Room], None], place: Room) -> Path:
    """Tell one story and pack what it left."""
    name = story.__name__
    place.interpreter()
    story(place)
    run = next((place.root / "runs").iterdir())
    _alone(run)
    for cache in (place.root / "data").rglob("*.cache"):
        cache.unlink()
    clean_logs(run)
    archive = DATA / f"{name}.tar.xz"
    names = ["runs", "data", "tiny.yaml", *(["before"] if (place.root / "before").exists() else [])]
    pack(archive, place.root, names, neutral_words())
    shutil.rmtree(place.root / "runs")
    shutil.rmtree(place.root / "before", ignore_errors=True)
    return archive


def answers(place: Room, archive: Path) -> dict[str, Any]:
    """Return what the old code says of a run once it is unpacked, with the paths of the recording."""
    root = new_root()
    try:
        unpack(archive, root)
        refuse_traces(root)
        run = next((root / "runs").iterdir())
        said = {}
        for words in (("status",), ("check",), ("diagnose", "--no-labels")):
            done = place.python("-m", "nantui", words[0], "--json", *words[1:], str(run), root=root)
            said[words[0]] = {
                "exit": done.returncode,
                "answer": json.loads(done.stdout.replace(str(root), RECORDED)),
            }
        return said
    finally:
        shutil.rmtree(root)


def main(names: Sequence[str]) -> int:
    """Record the runs with these names, or all of them."""
    assert OLD_CODE.is_file()
    waiting.PATIENCE_S = 120.0
    file = DATA / "said.json"
    said = json.loads(file.read_text()) if file.exists() else {}
    with room() as place:
        for story in STORIES:
            if not names or story.__name__ in names:
                archive = record(story, place)
                said[story.__name__] = answers(place, archive)
                file.write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")
                print(f"{archive.name}: {archive.stat().st_size} bytes", flush=True)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    sys.exit(main(sys.argv[1:]))

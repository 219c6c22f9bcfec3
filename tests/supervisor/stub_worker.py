"""A worker without torch: real processes that keep to docs/file-formats.md, for tests of process control.

Started in place of an interpreter (`SCRIPT -m MODULE …`), it plays the modules that the supervisor
starts: the argument check, the launcher of several ranks, and a rank with two dataloader children. What
it does wrong on request stands under `stub` in the training arguments.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]

from nantui.run.atomic_files import read_json, to_json, write_json  # noqa: E402
from nantui.run.attempts import STACKS, RankExit, read_attempt, write_exit  # noqa: E402
from nantui.run.binding import bind  # noqa: E402
from nantui.run.journal import Journal  # noqa: E402
from nantui.run.layout import RunLayout  # noqa: E402
from nantui.run.spec import read_spec, write_spec  # noqa: E402
from nantui.run.telemetry import header  # noqa: E402
from nantui.worker.process_end import die_with_parent, tie_children  # noqa: E402

LOSSES = ("box_loss", "cls_loss", "dfl_loss")
PYTHON = os.environ.get("STUB_PYTHON", sys.executable)


def main() -> int:
    module, rest = sys.argv[2], sys.argv[3:]
    if module == "nantui.worker.waiting":
        module, rest = wait_to_become(rest)
    if module == "nantui.worker.check_arguments":
        return prepare(json.loads(Path(rest[0]).read_text()))
    if module == "torch.distributed.run":
        return launch(int(rest[2]), rest[3:])
    if module == "nantui.worker.launch_ranks":
        return launch_hosts(rest)
    if module == "nantui.labels.data_set_digest":
        print(json.dumps({"versions": {"torch": os.environ.get("STUB_TORCH", "2")}, "images": {}}))
        return 0
    if module == "nantui.worker":
        die_with_parent()
        tie_children()
        return Rank(Path(rest[0]), int(rest[1])).run()
    if module == "nantui.recovery":
        return act(json.loads(Path(rest[0]).read_text()))
    raise SystemExit(f"unknown module {module}")


def wait_to_become(words: list[str]) -> tuple[str, list[str]]:
    """Wait as `nantui.worker.waiting` does; it has nothing to import, and does nothing else meanwhile."""
    with socket.socket(fileno=os.dup(0)) as asked:
        message, descriptors, _, _ = socket.recv_fds(asked, 1 << 16, 8)
    if not message:
        os._exit(0)
    os.dup2(descriptors[0], 1)
    os.dup2(descriptors[0], 2)
    return words[0], words[1:]


def prepare(request: dict) -> int:
    if "runs" in request:
        made = []
        for train in request["runs"]["trains"]:
            directory = Path(train["project"]).resolve() / train["name"]
            directory.mkdir(parents=True)
            made.append({"save_dir": str(directory), "args": train})
        print(json.dumps({"ok": True, "made": made}))
        return 0
    train = request["train"]
    if "lr" in train:
        print(json.dumps({"ok": False, "error": "'lr' is not a valid argument: did you mean lr0?"}))
        return 1
    save_dir = str(Path(train["project"]).resolve() / train["name"])
    print(json.dumps({"ok": True, "save_dir": save_dir, "args": train}))
    return 0


def act(request: dict) -> int:
    time.sleep(float((request.get("set") or {}).get("act_s", 0)))
    weights = RunLayout(Path(request["run"])).weights
    if "act_fail" in (request.get("set") or {}):
        print(json.dumps({"ok": False, "error": "nothing clean is left"}))
        return 1
    if request["action"] == "phase":
        return next_phase(request)
    if request.get("into"):
        return branch(Path(request["run"]), request["into"])
    attempts = len(RunLayout(Path(request["run"])).attempt_numbers())
    names = [name for name in ("nantui_stop.pt", "last.pt") if (weights / name).is_file()]
    plan = {"restore_point": {"name": names[0], "path": str(weights / names[0])} if names else None}
    if request["action"] == "next" and not _stub_of(request).get("recoveries", 1):
        from nantui.recovery import __main__ as recovery
        from nantui.settings.schema import Schema

        load = Schema.load
        Schema.load = lambda python=None: load()  # a stub has no Ultralytics to ask
        print(to_json({"ok": True, **recovery.act_next(request)}))
        return 0
    if request["action"] == "next":
        answer = {"action": "recover", "why": "gentle", "options": {"set": {"lr0": 0.001}}, "images": []}
        if int(_stub_of(request).get("recoveries", 1)) < attempts:
            answer = {"action": "give up", "why": "the ladder is at its end"}
        print(json.dumps({"ok": True, **answer}))
        return 0
    answer = {"checkpoint": "weights/last.pt", "plan": plan, "asked": request.get("set") or {}}
    print(json.dumps({"ok": True, "text": f"{request['action']} done", **answer}))
    return 0


def _stub_of(request: dict) -> dict:
    attempt = read_attempt(RunLayout(Path(request["run"])), 1)
    return attempt.train["stub"] if attempt else {}


def next_phase(request: dict) -> int:
    """Go on to the next phase as recovery does; the stub's checkpoints cannot be judged."""
    from nantui.recovery import __main__ as act
    from nantui.recovery import phase_change

    phase_change.clean_weights = lambda layout, number: "weights/last.pt"
    print(to_json({"ok": True, **act.act_phase(request)}))
    return 0


def branch(run: Path, name: str) -> int:
    """Make the new run as recovery does: its checkpoint and a spec that lies where it lies."""
    old, new = RunLayout(run), RunLayout(run.parent / name)
    new.weights.mkdir(parents=True)
    shutil.copy2(old.last, new.last)
    spec = read_spec(old.spec)
    place = {"save_dir": str(new.run), "project": str(new.run.parent), "name": name}
    write_spec(new.spec, replace(spec, train={**spec.train, **place}))
    new.args_yaml.write_text(f"save_dir: {new.run}\n")
    Journal(new.journal).append("created", spec={}, cwd=None)
    bind(new.run)
    print(json.dumps({"ok": True, "run": str(new.run), "mode": "resume", "text": f"into {new.run}"}))
    return 0


def launch_hosts(rest: list[str]) -> int:
    """One host's part: ranks by node, as many devices on each host."""
    die_with_parent()
    tie_children()
    run, number, node, devices = rest
    worker = ["-m", "nantui.worker", run, number]
    return launch(int(devices), worker, first=int(node) * int(devices), world=2 * int(devices))


def launch(ranks: int, rest: list[str], first: int = 0, world: int = 0) -> int:
    children = []
    for rank in range(first, first + ranks):
        env = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world or ranks)}
        children.append(subprocess.Popen([PYTHON, __file__, *rest], env=env, start_new_session=True))
    attempt = read_attempt(RunLayout(Path(rest[-2])), int(rest[-1]))
    if attempt is None or not attempt.train.get("stub", {}).get("dies_at_once"):
        signal.signal(signal.SIGTERM, lambda number, frame: [child.terminate() for child in children])
    while all(child.poll() in (None, 0) for child in children):
        if all(child.poll() == 0 for child in children):
            return 0
        time.sleep(0.02)
    for child in children:
        child.terminate()
        child.wait()
    return 1


class Rank:
    """One rank: registers, steps, looks for the stop request, writes how it ended."""

    def __init__(self, run: Path, number: int) -> None:
        self.layout, self.number = RunLayout(run), number
        self.rank = int(os.environ.get("RANK", "0"))
        attempt = read_attempt(self.layout, number)
        assert attempt is not None
        self.train, self.how = attempt.train, attempt.train.get("stub", {})
        self.uuid, self.told = attempt.uuid, ""

    def run(self) -> int:
        import psutil

        created = psutil.Process().create_time()
        where = {"host": os.environ.get("NANTUI_HOST", ""), "boot_id": "", "uuid": self.uuid}
        self.event("registered", pid=os.getpid(), created=created, **where)
        if self.how.get("ignore_term"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.how.get("in_order"):
            signal.signal(signal.SIGTERM, self.ask)
        if self.how.get("stacks"):
            import faulthandler

            faulthandler.register(STACKS, file=sys.stderr, all_threads=True)
        self.event("phase", phase="setup")
        if words := self.how.get("fail"):
            print(
                f"Traceback (most recent call last):\n  File x\n\x1b[31mRuntimeError\x1b[0m: {words}",
                flush=True,
            )
            print(f"RuntimeError: {words}", flush=True)
            return 1
        self.children = [self.dataloader() for _ in range(2)]
        self.event("phase", phase="training")
        values = {"lr0": self.train.get("lr0", 0.01), **self.how.get("lie", {})}
        self.event("in_effect", values=values, guarded=True, notes=[])
        return self.train_epochs()

    def dataloader(self) -> int:
        """Fork, as PyTorch does; its own notice the end of their rank, these only on a joined host."""
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            die_with_parent()
            time.sleep(600)
            os._exit(0)
        return child

    def train_epochs(self) -> int:
        steps, pace = self.how.get("steps", 5), self.how.get("pace", 0.02)
        for epoch in range(1, int(self.train.get("epochs", 3)) + 1):
            for step in range(1, steps + 1):
                time.sleep(pace)
                if self.stop_wanted():
                    return self.end("stopped", 70, epoch, step, checkpoint=self.save("nantui_stop.pt"))
                if [epoch, step] == self.how.get("diverge_at"):
                    self.event(
                        "incident", incident="nan_loss", epoch=epoch, step=step, action="ended", text="NaN"
                    )
                    return self.end("diverged", 77, epoch, step)
                if (words := self.how.get("last_words")) and self.rank == 1:
                    return self.end("failed", 1, epoch, step, text=words)
                if [epoch, step] == self.how.get("hang_at") and self.number == 1:
                    self.hang()
                self.row(epoch, step, steps)
            self.save("last.pt")
        return self.end("finished", 0, epoch, steps)

    def hang(self) -> None:
        while self.how.get("hang_at"):
            time.sleep(1)

    def ask(self, number: int, frame: object) -> None:
        """As a real rank: all are to stop at one step, and it tells that it was told."""
        self.told = signal.Signals(number).name
        write_json(self.layout.stop_request(self.number), {"signal": self.told})

    def stop_wanted(self) -> bool:
        return not self.how.get("deaf") and read_json(self.layout.stop_request(self.number)) is not None

    def save(self, name: str) -> str:
        if self.rank == 0:
            time.sleep(self.how.get("save_s", 0) if name == "nantui_stop.pt" else 0)
            self.layout.weights.mkdir(exist_ok=True)
            (self.layout.weights / name).write_bytes(b"checkpoint")
        return f"weights/{name}"

    def end(
        self, outcome: str, code: int, epoch: int, step: int, checkpoint: str | None = None, text: str = ""
    ) -> int:
        for child in self.children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        ending = RankExit(
            outcome, self.rank, os.getpid(), code, time.time(), epoch, step, text, checkpoint=checkpoint
        )
        more = {"resumable": checkpoint is not None, "signal": self.told}
        write_exit(self.layout, self.number, RankExit(**{**ending.__dict__, **more}))
        return code

    def event(self, kind: str, **fields) -> None:
        with self.layout.events(self.number, self.rank).open("a") as file:
            file.write(to_json({"t": time.time(), "kind": kind, "rank": self.rank, **fields}) + "\n")

    def row(self, epoch: int, step: int, steps: int) -> None:
        if self.rank:
            return
        path = self.layout.steps(self.number)
        with path.open("a") as file:
            if file.tell() == 0:
                file.write(",".join(header(LOSSES)) + "\n")
            pace = self.how.get("pace", 0.02)
            file.write(
                f"{time.time()},{epoch},{step},{steps},0,,1.0,2.0,0.5,3.0,0.01,1,{pace},9,0.1,0.1,,4,64,0.001\n"
            )


if __name__ == "__main__":
    raise SystemExit(main())

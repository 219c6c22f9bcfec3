"""Every `-m nantui.…` that one process starts another by.

A supervisor lives as long as its training, longer than an upgrade of nantui: it goes on starting modules by
the names that it knew. `BEFORE` has those of the version before, under which `OldNames` finds what they are
now, until the next version comes.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec

SUPERVISOR = "nantui.supervisor"  # one run's supervisor: RUN
HOST_AGENT = "nantui.supervisor.hosts.agent"  # a further host's part: RUN
GPU_ADMISSION = "nantui.supervisor.gpu_admission"  # what the GPUs lack: REQUEST.json
GPU_MARKS = "nantui.supervisor.gpu_marks"  # what the GPUs count and the kernel says of them: REQUEST.json
QUEUE = "nantui.supervisor.queue"  # the user's queue of this host
NOTIFY = "nantui.supervisor.notify"  # one notification: JSON on stdin
RECOVERY = "nantui.recovery"  # one action of recovery: REQUEST.json
DATA_SET_DIGEST = "nantui.labels.data_set_digest"  # what all hosts must see: REQUEST.json
WORKER = "nantui.worker"  # one rank of one attempt: RUN NNN
WAITING = "nantui.worker.waiting"  # the next worker, torch imported, until it is asked for: MODULE …
LAUNCH_RANKS = "nantui.worker.launch_ranks"  # one host's ranks: RUN NNN NODE DEVICES
CHECK_ARGUMENTS = "nantui.worker.check_arguments"  # Ultralytics' argument check: REQUEST.json
REBASE = "nantui.worker.checkpoints.rebase"  # a checkpoint with other settings: REQUEST.json
REPLAY = "nantui.worker.replay"  # a batch once more, for the diagnosis: REQUEST.json

BEFORE = {
    "nantui.supervise.main": SUPERVISOR, "nantui.supervise.hosts.agent": HOST_AGENT,
    "nantui.supervise.room": GPU_ADMISSION, "nantui.supervise.notify": NOTIFY,
    "nantui.recovery.act": RECOVERY, "nantui.diagnosis.same": DATA_SET_DIGEST,
    "nantui.training.worker": WORKER, "nantui.training.launch_hosts": LAUNCH_RANKS,
    "nantui.training.prepare": CHECK_ARGUMENTS, "nantui.training.rebase": REBASE,
    "nantui.training.replay": REPLAY,
}  # fmt: skip
"""Names of the version before, as a living process may still start them."""


def command_line() -> list[str]:
    """Return the words that are `-m nantui`, but for what lies in the current directory: nobody's word."""
    return [
        sys.executable,
        "-c",
        "import sys; del sys.path[0]; from nantui.cli import main; sys.exit(main())",
    ]


class OldNames:
    """Finds the modules of `BEFORE`, and the packages that they were in, after every other finder."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return the file that `name` is now, to be run or imported under the old name."""
        if name not in BEFORE:
            package = any(old.startswith(f"{name}.") for old in BEFORE)
            return ModuleSpec(name, None, is_package=True) if package else None
        from importlib.util import find_spec, spec_from_file_location

        found = find_spec(BEFORE[name])
        if found is not None and found.submodule_search_locations is not None:
            found = find_spec(f"{BEFORE[name]}.__main__")
        return spec_from_file_location(name, found.origin) if found is not None else None

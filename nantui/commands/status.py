"""State, epoch, time to go, losses and last incident of a run, or of every run below a directory."""

from __future__ import annotations

import argparse
from pathlib import Path

from nantui.commands import common
from nantui.errors import FAILED, NO, UserError
from nantui.run.atomic_files import write_atomic
from nantui.run.discovery import require_run
from nantui.run.status import HostStatus, RunStatus, as_prometheus
from nantui.supervisor.status import read_fleet, read_status
from nantui.terminal_text import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui status` takes."""
    common.add_directory(parser)
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="what a training prints that nantui did not start"
    )
    parser.add_argument(
        "--metrics",
        type=Path,
        metavar="FILE",
        help="write Prometheus text there instead, for node_exporter's textfile collector",
    )
    common.add_reader(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print one line (or JSON object) per run."""
    if not arguments.directory.is_dir():
        raise UserError(f"{arguments.directory}: no such directory; give a run, or a directory of runs")
    found = one_with_log(arguments) if arguments.log else read_fleet(arguments.directory)
    if arguments.metrics:
        write_metrics(arguments.metrics, found)
    elif arguments.json:
        common.emit({"runs": [status.to_json() for status in found]})
    elif not found:
        common.say(f"no runs in {arguments.directory.resolve()}; start one: nantui train model=… data=…")
    else:
        print("\n".join(line for status in found for line in describe(status)))
    return 0 if found else NO


def write_metrics(path: Path, found: list[RunStatus]) -> None:
    """Write where the runs stand beside `path` and rename it. Raises UserError where that is not possible."""
    try:
        write_atomic(path, as_prometheus(found), mode=0o644)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; nothing was changed", FAILED) from None


def one_with_log(arguments: argparse.Namespace) -> list[RunStatus]:
    """Return the one run whose log was given. Raises UserError for a directory of runs or no such file."""
    if not arguments.log.is_file():
        raise UserError(f"{arguments.log}: no such file; --log wants what the training prints")
    return [read_status(require_run(arguments.directory).run, log=arguments.log)]


def describe(status: RunStatus) -> list[str]:
    """Return the lines that tell a person where a run stands."""
    phase = f"phase {status.phase['number']} of {status.phase['of']}" if status.phase else ""
    epoch = f"epoch {status.epoch}/{status.epochs or '?'}{in_all(status)}" if status.epoch else ""
    step = f"step {status.step}/{status.steps_per_epoch}" if status.step else ""
    losses = " ".join(f"{printable(name)} {value:.4g}" for name, value in status.losses.items())
    eta = f"{duration(status.eta_s)} to go" if status.eta_s is not None else to_the_end_of_the_phase(status)
    begins = [f"{status.state:<10}", printable(status.path), phase, epoch, step]
    first = "  ".join(filter(None, [*begins, losses, status.metric.words if status.metric else "", eta]))
    more = [printable(text) for text in (doing(status), status.text) if text]
    if status.guarded is False:
        more.append("unguarded, nothing keeps a NaN out of its weights: guard=off, or see nantui doctor")
    more += [printable(f"host {host.host}: {_part(host)}") for host in status.hosts]
    if incident := status.incident:
        where = f"epoch {incident.epoch}, step {incident.step}"
        more.append(printable(f"last incident: {incident.incident} at {where}: {incident.text}"))
    return [first, *(f"{'':<12}{line}" for line in more)]


def in_all(status: RunStatus) -> str:
    """Return where the epoch is among those of all phases, in brackets; empty without a plan."""
    before, total = ((status.phase or {}).get(name) for name in ("epochs_before", "epochs_in_all"))
    if before is None or status.epoch is None:
        return ""
    return f" ({before + status.epoch}/{total or '?'} of all phases)"


def to_the_end_of_the_phase(status: RunStatus) -> str:
    """Return the time that is left of a phase, and for which later ones none is known."""
    phase = status.phase or {}
    if phase.get("eta_s") is None:
        return ""
    return f"{duration(phase['eta_s'])} to go in this phase, unknown for {phase['unknown']}"


def doing(status: RunStatus) -> str:
    """Return which command is being carried out and how far it is, its time limit included."""
    if not status.doing:
        return ""
    return f"{status.doing.get('kind', '')}: {status.doing.get('text') or 'begun'}"


def _part(host: HostStatus) -> str:
    ranks = f", ranks {host.ranks[0]}-{host.ranks[-1]}" if len(host.ranks) > 1 else ""
    ranks = ranks or (f", rank {host.ranks[0]}" if host.ranks else "")
    return f"{host.state}{ranks}" + (f": {host.text}" if host.text else "")


def duration(seconds: float) -> str:
    """Return 3725 as 1h02m, 95 as 1m35s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"

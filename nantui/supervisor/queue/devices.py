"""Whose turn it is: which waiting runs find their devices free, and what the others wait for.

Runs are looked at in their order. One that has to wait keeps what it waits for from those behind it; these
may go first only on devices that it does not need.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial

from nantui.errors import UserError
from nantui.machine.gpus import GIB_GB, Gpu, Sampler, chosen, uses_no_gpu, visible_indexes, words_of
from nantui.recovery.run_facts import measured
from nantui.run.documents import Settings
from nantui.run.record import RunRecord
from nantui.run.spec import read_spec
from nantui.run.status import RunStatus
from nantui.settings.gpu_memory import CONTEXT_GB, predict
from nantui.settings.schema import Schema
from nantui.settings.values import is_number
from nantui.supervisor.gpu_admission import earlier_peak_gb
from nantui.supervisor.queue.entries import GOING, WAITING, Entry, Queue, read_queue
from nantui.supervisor.status import read_status

CPU, ANY = "cpu", "-1"
IDLE_SHARE = 0.1
"""A GPU of which others hold no more than this share is free: a desktop, a driver's own part."""
USABLE = 0.97
"""Share of a GPU that the peaks of those who share it may fill."""
LOOK_AHEAD = 100
"""So many waiting runs are looked at in one round."""
Peak = Callable[[Entry], float | None]
"""The GB (10^9) that a run is predicted to take of each of its GPUs, None where nothing tells."""
_sampler = cache(Sampler)


@dataclass(frozen=True)
class Turn:
    """A waiting run: the devices that it may have now (`device` as Ultralytics is to be told, "" to leave it
    as it is), or what it waits for.
    """

    entry: Entry
    on: tuple[str, ...] = ()
    device: str = ""
    waits_for: str = ""


def look(queue: Queue, sampler: Sampler, pids: set[int]) -> list[Turn]:
    """Return whose turn it is, by what the GPUs say now; `pids` are the processes that the queue started."""
    on_cpu = all(uses_no_gpu(entry.device) for entry in queue.in_state(WAITING))
    gpus = () if on_cpu else sampler.sample(pids).gpus
    return turns(queue, gpus, lambda entry: predicted_gb(entry, queue, gpus[0]) if gpus else None)


@dataclass(frozen=True)
class QueueNow:
    """The queue and, by the directories of its runs, how those that go stand and what others wait for."""

    queue: Queue
    going: Mapping[str, RunStatus]
    waits_for: Mapping[str, str]


def look_at_queue() -> QueueNow:
    """Return the queue as it is now; slow, for a thread. Raises UserError for a file that is none."""
    queue = read_queue()
    going = {entry.run: read_status(entry.layout.run) for entry in queue.in_state(GOING)}
    pids = {pid for status in going.values() for pid in status.pids}
    waiting = look(queue, _sampler(), pids) if queue.in_state(WAITING) else []
    return QueueNow(queue, going, {turn.entry.run: turn.waits_for for turn in waiting})


def turns(queue: Queue, gpus: tuple[Gpu, ...], peak: Peak) -> list[Turn]:
    """Return the first waiting runs in their order, each with its devices or its reason; `gpus` are those of
    this host, as they are now, with the queue's own processes counted as ours.
    """
    taken: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in queue.in_state(GOING):
        for device in entry.on:
            taken[device].append(entry)
    found = []
    for entry in queue.in_state(WAITING)[:LOOK_AHEAD]:
        variables = queue.environments.get(entry.environment, {})
        turn, wanted = _turn(entry, gpus, variables, partial(_lack, taken, peak, entry))
        for device in wanted:
            taken[device].append(entry)
        found.append(turn)
    return found


def _turn(
    entry: Entry, gpus: tuple[Gpu, ...], variables: Mapping[str, str], lack: Callable[[str, Gpu | None], str]
) -> tuple[Turn, list[str]]:
    """Return what a run gets, and the devices that are kept for it."""
    visible = visible_indexes(gpus, variables.get("CUDA_VISIBLE_DEVICES"))
    by_name, wanted = {str(gpu.index): gpu for gpu in gpus}, words_of(entry.device) or [ANY]
    if uses_no_gpu(entry.device) or not (visible or entry.device):
        reason = lack(CPU, None)
        return Turn(entry, () if reason else (CPU,), waits_for=reason), [CPU]
    if ANY not in wanted:
        named = [str(gpu.index) for gpu in chosen(gpus, entry.device, variables)] or wanted
        reasons = [why for name in named if (why := lack(name, by_name.get(name)))]
        return Turn(entry, () if reasons else tuple(named), waits_for="; ".join(reasons)), named
    lacks = [lack(str(index), by_name.get(str(index))) for index in visible]
    free = [place for place, why in enumerate(lacks) if not why][: len(wanted)]
    names = [str(visible[place]) for place in free]
    if len(free) == len(wanted):
        return Turn(entry, tuple(names), ",".join(map(str, free))), names
    there = "; ".join(filter(None, lacks)) or "no GPU is seen here"
    return Turn(entry, waits_for=f"{len(wanted)} free, there are {len(free)} ({there})"), names


def _lack(taken: Mapping[str, list[Entry]], peak: Peak, entry: Entry, device: str, gpu: Gpu | None) -> str:
    """Return why a run may not have a device now, empty when it may."""
    others, name = taken.get(device, []), "the CPU" if gpu is None and device == CPU else f"GPU {device}"
    if others and not (gpu and entry.share and all(other.share for other in others)):
        verb = "is on it" if others[0].state == GOING else "waits for it before"
        return f"{name}: {others[0].name} {verb}"
    if gpu is None or (not others and gpu.others_gb <= IDLE_SHARE * gpu.total_gb):
        return ""
    holds = f"{name}: {gpu.others_gb:.1f} of {gpu.total_gb:.1f} GB are held by others"
    if not entry.share:
        return holds
    peaks = [peak(one) for one in (entry, *others)]
    known = [gb for gb in peaks if gb is not None]
    if len(known) < len(peaks):
        return f"{holds}, and what it needs is not known before a run of its model has trained"
    if gpu.others_gb + sum(known) > USABLE * gpu.total_gb:
        return f"{holds}, and {sum(known):.1f} GB are predicted for {'both' if others else 'it'}"
    return ""


def predicted_gb(entry: Entry, queue: Queue, gpu: Gpu) -> float | None:
    """Return the GB that a run takes of a GPU: its own peak, else predicted from that of the newest run in
    the queue that trained the same model on as many GPUs; None without one, or where the batch is not known.
    """
    own = earlier_peak_gb(entry.layout)
    settings = _settings(entry)
    if own is not None or settings is None:
        return own
    for other in reversed([one for one in queue.entries if one.on]):
        like, theirs = measured(RunRecord(other.layout), None, gpus=[gpu]), _settings(other)
        same = theirs is not None and theirs.get("model") == settings.get("model")
        if like and theirs and same and len(other.on) == max(1, len(words_of(entry.device))):
            return (predict(like, theirs, settings) + CONTEXT_GB) * GIB_GB
    return None


def _settings(entry: Entry) -> Settings | None:
    """Return what a run trains with, defaults included; None where its memory cannot be told from that."""
    try:
        spec = read_spec(entry.layout.spec)
        settings = {**Schema.load().defaults(), **(spec.train if spec else {})}
    except UserError:
        return None
    batch = settings.get("batch")
    whole = is_number(batch) and isinstance(batch, int) and batch >= 1
    return settings if settings["model"] and whole else None

"""Why it happened: causes with their evidence, and what helps. Reads only."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nantui.commands import common
from nantui.diagnosis.causes import Diagnosis, diagnose
from nantui.diagnosis.replay import plan_replay, replay
from nantui.errors import NO

SHOWN = 0.01


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run directory")
    replay = "repeat the epoch under the guard, beside the run"
    common.add_flags(parser, no_labels="do not check the labels (up to 5 s)", replay=replay)
    common.add_list(parser, "--allow", "NAME", "with --replay: classes that may be loaded")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="with --replay: keep what it wrote, in DIR")
    common.add_reader(parser)
    common.add_changer(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print causes, evidence, what is not known, and advice."""
    if arguments.replay:
        return _replay(arguments)
    _show(arguments, diagnose(Path(arguments.run), labels=not arguments.no_labels))
    return 0


def _replay(arguments: argparse.Namespace) -> int:
    """Repeat the epoch of the trouble, after asking: it takes time and the GPU."""
    plan = plan_replay(Path(arguments.run), arguments.allow)
    if not common.go_ahead(arguments, plan.text, f"{plan.run}: {plan.text}?"):
        return 0 if arguments.dry_run else NO
    with tempfile.TemporaryDirectory(prefix="nantui-replay-") as folder:
        _show(arguments, replay(plan, arguments.keep or Path(folder), arguments.python))
    return 0


def _show(arguments: argparse.Namespace, diagnosis: Diagnosis) -> None:
    common.answer(arguments, diagnosis.to_json(), lines(diagnosis))


def lines(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield the diagnosis as lines for people."""
    incident = diagnosis.incident
    if incident is None:
        yield f"{diagnosis.run}: no incident is recorded"
    else:
        place = f"epoch {incident.epoch}" + (f", step {incident.step}" if incident.step else "")
        yield f"{diagnosis.run}: {incident.incident} in {place}: {incident.text}"
        yield from _causes(diagnosis)
    yield from (f"  {text}" for text in diagnosis.notes)
    if diagnosis.unknown:
        yield "not known:"
        yield from (f"  {text}" for text in diagnosis.unknown)
    yield from _advice(diagnosis)
    if diagnosis.replay:
        yield f"to find out more, repeat the epoch under the guard: nantui diagnose {diagnosis.run} --replay"


def _causes(diagnosis: Diagnosis) -> Iterator[str]:
    for cause in diagnosis.causes:
        if cause.probability < SHOWN:
            continue
        yield f"{cause.probability:4.0%}  {cause.title} ({cause.prior:.0%} before any evidence)"
        yield from (f"        {text}" for text in cause.to_json()["evidence"])
    rest = sum(cause.probability for cause in diagnosis.causes if cause.probability < SHOWN)
    if rest:
        yield f"{rest:5.1%} everything else"


def _advice(diagnosis: Diagnosis) -> Iterator[str]:
    if diagnosis.advice:
        yield "what helps:"
    for advice in diagnosis.advice:
        yield f"  {f'--preset {advice.preset}: ' if advice.preset else ''}{advice.why}"
        yield from (f"      {image}" for image in advice.images)
        if advice.cost:
            yield f"      {advice.cost}"

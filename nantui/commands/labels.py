"""Label errors by kind, and what each would do to training. Changes nothing in the data set."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

from nantui.commands import common
from nantui.errors import FAILED, NO, USAGE, UserError
from nantui.labels import report as reports
from nantui.run.commands import Command
from nantui.run.documents import JsonObject
from nantui.run.layout import RunLayout, require_run
from nantui.run.quarantine import newest_change, quarantined
from nantui.run.record import RunRecord, in_full
from nantui.supervisor.client import carry_out
from nantui.supervisor.helper_process import PREPARE, helper
from nantui.words import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    data = "data.yaml, a classification directory, or a run (then the run's data set)"
    parser.add_argument("data", metavar="DATA", help=data)
    splits = "train, val or test; default: train and val"
    parser.add_argument("--split", action="append", metavar="NAME", help=splits)
    task = "detect, segment, pose, obb; default: the run's, or as data.yaml shows"
    parser.add_argument("--task", help=task)
    parser.add_argument("--imgsz", type=int, help="image size of the training; default: the run's, or 640")
    parser.add_argument("--run", metavar="RUN", help="take task, imgsz and single_cls from this run")
    common.add_flags(
        parser, images="look into the images as well",
        quarantine="put images with errors on the run's quarantine list",
        undo_quarantine="take the last change of that list back",
    )  # fmt: skip
    common.add_list(parser, "--leave-out", "IMAGE", "put these images on the run's quarantine list")
    common.add_flags(parser, csv="all findings as CSV on stdout")
    jobs = "processes that read; default: one a processor, 8 at most; one alone below 4,096 images"
    parser.add_argument("--jobs", type=int, metavar="N", help=jobs)
    common.add_reader(parser)
    common.add_changer(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check, report, and quarantine if asked; 1 when labels have errors."""
    _refuse_nonsense(arguments)
    layout = _run_of(arguments)
    if arguments.undo_quarantine:
        return _undo(arguments, layout)
    if arguments.leave_out:
        _quarantine(arguments, layout, arguments.leave_out)
        return 0
    report = _check(arguments, layout)
    if arguments.json:
        reports.write_json(report, sys.stdout)
    elif arguments.csv:
        reports.write_csv(report, sys.stdout)
    else:
        common.show(reports.summary(report))
    if arguments.quarantine:
        _quarantine(arguments, layout, report.faulty_images())
    return NO if report.errors else 0


def _refuse_nonsense(arguments: argparse.Namespace) -> None:
    for name, value in (("imgsz", arguments.imgsz), ("jobs", arguments.jobs)):
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: expects a number from 1 on", USAGE)
    if arguments.csv and arguments.json:
        raise UserError("--csv and --json both want stdout; choose one", USAGE)
    if gone := [image for image in arguments.leave_out if not os.path.exists(image)]:
        raise UserError(f"--leave-out {gone[0]}: no such image; the list stays as it was", USAGE)


def _run_of(arguments: argparse.Namespace) -> RunLayout | None:
    if arguments.run:
        return require_run(Path(arguments.run))
    if _is_run(arguments.data):
        return RunLayout(Path(arguments.data).resolve())
    if arguments.quarantine or arguments.undo_quarantine or arguments.leave_out:
        raise UserError("the quarantine list belongs to a run; name it: --run RUN", USAGE)
    return None


def _is_run(data: str) -> bool:
    return os.path.isdir(data) and RunLayout(Path(data)).looks_like_run()


def _check(arguments: argparse.Namespace, layout: RunLayout | None) -> reports.LabelReport:
    from nantui.labels.check import check_data_set  # late: numpy
    from nantui.labels.data_set import SPLITS, load_data_set

    splits, data = arguments.split or ["train", "val"], arguments.data
    if wrong := [split for split in splits if split not in SPLITS]:
        raise UserError(f"--split {wrong[0]}: expects one of {', '.join(SPLITS)}")
    settings: JsonObject = {}
    if layout is not None:
        record = RunRecord(layout)
        settings = in_full(record, {**(record.spec.train if record.spec else {}), **record.args})
    if _is_run(data):
        if not settings.get("data"):
            raise UserError(f"{data}: the run does not say which data set it trains on; name the data.yaml")
        data = str(settings["data"])
    settings |= {name: getattr(arguments, name) for name in ("task", "imgsz") if getattr(arguments, name)}
    shown = sys.stderr.isatty()
    progress = reports.progress_line(sys.stderr) if shown else None
    how = {"splits": splits, "images": arguments.images, "workers": arguments.jobs, "progress": progress}
    try:
        report = check_data_set(load_data_set(data), settings, **how)
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if odd := [issue.file for issue in report.issues if issue.kind == "image_unusual"]:
        # Decoded by Ultralytics' own reader; where there is none the warnings stay.
        with contextlib.suppress(UserError):
            answer = helper(PREPARE, {"images": {"paths": odd}}, python=arguments.python or "")
            if answer.get("ok"):
                report.decoded(odd, answer["undecodable"])
    return report


def _quarantine(arguments: argparse.Namespace, layout: RunLayout | None, faulty: list[str]) -> None:
    common.refuse_read_only(arguments)
    assert layout is not None
    images = sorted(set(map(os.path.abspath, faulty)) - set(quarantined(layout)))
    many = count(len(images), "image")
    if not images:
        common.say("quarantine: nothing to add")
    elif common.go_ahead(arguments, f"add {many} to {layout.home}", f"Leave {many} out of {layout.run}?"):
        _change(arguments, layout, {"images": images, "why": "label check"})


def _undo(arguments: argparse.Namespace, layout: RunLayout | None) -> int:
    common.refuse_read_only(arguments)
    assert layout is not None
    listed = f"the last change of the quarantine list ({count(len(quarantined(layout)), 'image')})"
    if not common.go_ahead(arguments, f"take {listed} back", f"Take {listed} back?"):
        return 0 if arguments.dry_run else NO
    if newest_change(layout) is None:
        common.say("quarantine: nothing to undo")
        return NO
    _change(arguments, layout, {"undo": True})
    return 0


def _change(arguments: argparse.Namespace, layout: RunLayout, options: dict[str, object]) -> None:
    outcome = carry_out(layout.run, Command("quarantine", options), take_over=arguments.take_over)
    if not outcome.ok:
        raise UserError(outcome.text, FAILED)
    common.say(outcome.text)

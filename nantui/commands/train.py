"""Start a run under a supervisor that outlives this terminal, and return."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from nantui.commands import cockpit, common, following, wait
from nantui.errors import UserError
from nantui.machine.gpus import Sampler, device_count, has_bf16, uses_no_gpu
from nantui.recovery.run_facts import classes_of, gpus_of, model_stride
from nantui.run.documents import JsonObject
from nantui.run.endings import each_remedy
from nantui.run.layout import RunLayout
from nantui.run.plan import PlanPhase, new_plan
from nantui.run.spec import read_spec, with_settings, write_spec
from nantui.settings.lint import Known, lint
from nantui.settings.plan_files import read_phases
from nantui.settings.presets import apply_all, find_presets
from nantui.settings.schema import Schema
from nantui.settings.values import changed, show_value
from nantui.supervisor.client import check_arguments, create_run, settings_as_now
from nantui.supervisor.gpu_admission import ensure_gpu_memory, gpu_shortages
from nantui.supervisor.hosts.endpoint import open_endpoint

MOST_HOSTS = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui train` takes."""
    add_training(parser)
    following.add_wait_gpu(parser)
    wait.add_wait(parser)
    parser.add_argument("--watch", action="store_true", help="open the cockpit on it")
    common.add_changer(parser)


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add what says what is to be trained."""
    parser.add_argument("settings", nargs="*", metavar="key=value", help="as in the yolo command")
    add_asked(parser)
    parser.add_argument("--nnodes", type=int, default=1, metavar="N", help="hosts that train together")
    parser.add_argument("--endpoint", default="", metavar="HOST:PORT", help="where the hosts' ranks meet")


def add_asked(parser: argparse.ArgumentParser) -> None:
    """Add what says, beside its settings, what a run is to be."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as YAML; words on the line win")
    common.add_list(parser, "--preset", "NAME", "apply remedies")
    parser.add_argument(
        "--plan", metavar="FILE", help="train in phases: a plan's YAML file, or `progressive`"
    )
    parser.add_argument("--auto", action="store_true", help="let the ladder recover the run unattended")


@dataclass(frozen=True)
class Asked:
    """What a run is asked to be: its `own` settings, and these with the first of the plan's phases over them
    (`first`), apart as Ultralytics' (`train`) and nantui's (`ours`).
    """

    own: dict[str, object]
    phases: Sequence[PlanPhase]
    first: dict[str, object]
    train: dict[str, object]
    ours: dict[str, object]

    def plan(self, name: str, schema: Schema, resolved: Mapping[str, object]) -> dict[str, object] | None:
        """Return the plan `name` for the spec, paths as Ultralytics `resolved` them; None without phases."""
        if not self.phases:
            return None
        train, ours = schema.split(self.own)
        first = self.phases[0].settings
        base = {name: value for name, value in {**train, **resolved}.items() if name not in first}
        return new_plan(name, self.phases, {**base, **{k: v for k, v in train.items() if k in first}}, ours)


def ask(settings: Mapping[str, object], arguments: argparse.Namespace, schema: Schema) -> Asked:
    """Return the settings with presets and plan applied. Raises UserError for what cannot be trained."""
    own = with_presets(dict(settings), arguments.preset, schema)
    phases = read_phases(arguments.plan, schema) if arguments.plan else []
    first = {**own, **(phases[0].settings if phases else {})}
    train, ours = schema.split(first)
    if not train.get("model") or not train.get("data"):
        raise UserError("what to train? nantui train model=yolov8n.pt data=path/to/data.yaml [key=value…]")
    return Asked(own, phases, first, train, ours)


def run(arguments: argparse.Namespace) -> int:
    """Check everything, create the run, start it."""
    common.refuse_read_only(arguments)
    if arguments.wait and arguments.watch:
        raise UserError("--wait and --watch both stay in this terminal: choose one")
    where = make_run(arguments)
    if arguments.dry_run:
        return 0
    common.say(f"training, detached; watch it with: nantui {where}")
    if arguments.nnodes > 1:
        common.say(f"waiting for its hosts; on each other host: nantui join {where}")
    if arguments.watch:
        arguments.directory = where
        return cockpit.run(arguments)
    return wait.foreground(where) if arguments.wait else 0


def make_run(arguments: argparse.Namespace, *, start: bool = True) -> Path:
    """Return the run that is asked for, made and started; a dry run makes none. Raises UserError.

    One that is to `start` later, in a job, may ask for devices that are not here.
    """
    schema = Schema.load(arguments.python)
    words = take_hosts(arguments)
    config = read_config(arguments.config, schema, arguments.python)
    asked = ask({**config, **schema.parse_assignments(words)}, arguments, schema)
    train = asked.train
    told = [*in_phases(asked.phases, asked.own), *remarks(schema, asked.first)]
    elsewhere = {} if start else {"device": train.pop("device", None)}
    if arguments.nnodes > 1:
        refuse_alone(train, elsewhere)
    if arguments.dry_run:
        where = Path(str(check_arguments(train, python=arguments.python)["save_dir"]))
        unattended = [f"unattended, {line}" for line in each_remedy()] if arguments.auto else []
        common.say("\n".join([f"would train in {where}", *told, *unattended]))
        return where
    if start and not arguments.wait_gpu:
        ensure_gpu_memory(lambda: gpu_shortages(None, train.get("device")), wait_for_it=False)
    plan = partial(asked.plan, arguments.plan, schema) if asked.phases else None
    how: JsonObject = {"python": arguments.python, "auto": arguments.auto, "plan": plan}
    later = {"start": False, "nnodes": arguments.nnodes, "endpoint": arguments.endpoint}
    how |= {"options": following.given(arguments, "wait_gpu"), **hosts_of(arguments)} if start else later
    where = create_run(train, asked.ours, **how)
    if elsewhere.get("device") and (spec := read_spec(RunLayout(where).spec)):
        write_spec(RunLayout(where).spec, with_settings(spec, elsewhere))
    print(where)
    for line in told:
        common.say(line)
    return where


def remarks(schema: Schema, asked: Mapping[str, object]) -> list[str]:
    """Return what lint says of the settings asked for by name; defaults are nobody's mistake."""
    device = asked.get("device")
    known = Known(
        classes=classes_of(asked.get("data")),
        devices=device_count(device),
        on_gpu=False if uses_no_gpu(device) else None,
        bf16=has_bf16(gpus_of(device)) if "amp" in asked else None,
        stride=model_stride(asked.get("model")),
    )
    about = {*asked, *(("optimizer",) if {"lr0", "momentum"} & set(asked) else ())}
    found = lint({**schema.defaults(), **asked}, known)
    return [f"{finding.severity}: {finding.text}" for finding in found if finding.name in about]


def in_phases(phases: Sequence[PlanPhase], own: Mapping[str, object]) -> list[str]:
    """Return a line for each phase, and one for what was asked and every phase sets otherwise."""
    lines = []
    for number, phase in enumerate(phases, 1):
        settings = ", ".join(f"{name}={show_value(value)}" for name, value in phase.settings.items())
        lines.append(f"phase {number} of {len(phases)}: {phase.title or 'no title'} ({settings})")
    unused = [name for name in own if phases and all(name in phase.settings for phase in phases)]
    return [*lines, *([f"the plan sets {', '.join(unused)} in every phase"] if unused else [])]


def take_hosts(arguments: argparse.Namespace) -> list[str]:
    """Take `nnodes=` and `endpoint=` out of the words on the line, as they are no settings of a training.

    Returns the other words. Raises UserError for a number of hosts that is none.
    """
    rest = []
    for word in arguments.settings:
        name, _, value = word.partition("=")
        if name == "endpoint":
            arguments.endpoint = value
        elif name == "nnodes" and value.isdigit():
            arguments.nnodes = int(value)
        else:
            rest.append(word)
    if not 1 <= arguments.nnodes <= MOST_HOSTS:
        raise UserError(f"nnodes={arguments.nnodes}: expects a number of hosts from 1 to {MOST_HOSTS}")
    return rest


def refuse_alone(train: dict[str, object], elsewhere: Mapping[str, object]) -> None:
    """Raise UserError for what only one host can do; without a device, the first GPU or the CPU is meant."""
    batch = train.get("batch", 16)
    if not isinstance(batch, int) or batch < 1:
        raise UserError(f"batch={batch}: hosts cannot each find one; give that of all ranks together")
    if elsewhere and not elsewhere["device"]:
        raise UserError("several nodes: say device=, those of each node")
    if not (elsewhere or train.get("device")):
        train["device"] = "0" if Sampler().sample().gpus else "cpu"


def hosts_of(arguments: argparse.Namespace) -> JsonObject:
    """Return how many hosts train, and where they meet. Raises UserError where nothing can listen there."""
    if arguments.nnodes < 2:
        return {"nnodes": 1, "endpoint": ""}
    # Tried before anything is made; the supervisor opens it again when it waits.
    listener, _ = open_endpoint(arguments.endpoint)
    listener.close()
    return {"nnodes": arguments.nnodes, "endpoint": arguments.endpoint}


def read_config(path: Path | None, schema: Schema, python: str | None = None) -> dict[str, object]:
    """Return the settings of a YAML file, also of another run's args.yaml, which may be of an older release.

    Raises UserError for what is no mapping of known settings.
    """
    if path is None:
        return {}
    document = load_yaml(path, "--config wants a YAML file of settings")
    if not isinstance(document, dict):
        raise UserError(f"{path}: --config wants a YAML mapping, e.g. 'lr0: 0.003'")
    try:
        return schema.check(document)
    except UserError as refused:
        if all(name in schema.fields and value is not None for name, value in document.items()):
            raise refused
    settings, notes = settings_as_now(document, python=python)
    for note in notes:
        common.say(note)
    return schema.check(settings)


def load_yaml(path: Path, wanted: str) -> object:
    """Return what a YAML file holds. Raises UserError, with what is wanted, where it cannot be read."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}; {wanted}") from None


def with_presets(settings: dict[str, object], names: list[str], schema: Schema) -> dict[str, object]:
    """Return the settings with remedies applied: each is a bound on what the run would have otherwise."""
    changes = apply_all(find_presets(names, schema), {**schema.defaults(), **settings}, schema.fields)
    return {**settings, **changed(changes)}

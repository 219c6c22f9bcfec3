"""Settings that are legal and do not do what they seem to: said before the hours are spent.

Each rule is one function of the settings and what is known about the run; it returns findings with the
reason and, where there is one, what to set instead. `lr0` is not the rate in effect, and with
`optimizer=auto` it is not even the rate asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from nantui.run.documents import Settings
from nantui.settings.gpu_memory import Measured, largest_batch, least_gb
from nantui.settings.values import is_number, number, show_value
from nantui.words import count

WARNING, NOTE = "warning", "note"
AUTO_ITERATIONS = 10000
USUAL_GAIN = {"box": 7.5, "cls": 0.5, "dfl": 1.5}
SMALLEST_STRIDE = 32
"""`BaseTrainer._setup_train` takes no less."""


@dataclass(frozen=True)
class Known:
    """What is known about the run; None means not known, and rules that need it stay silent.

    `epoch` is the next one to train, from 0; `now` the settings that `measured` belongs to; `bf16` whether
    all GPUs support it.
    """

    epoch: int = 0
    classes: int | None = None
    images: int | None = None
    devices: int = 1
    on_gpu: bool | None = None
    bf16: bool | None = None
    measured: Measured | None = None
    now: Settings = field(default_factory=dict)
    stride: int | None = None


@dataclass(frozen=True)
class LintFinding:
    """One remark about the setting `name`; `instead` is what to set, if anything."""

    name: str
    severity: str
    text: str
    instead: Settings = field(default_factory=dict)


Rule = Callable[[Settings, Known], Iterator[LintFinding]]


def lint(settings: Settings, known: Known | None = None) -> list[LintFinding]:
    """Return what is worth saying about the complete `settings` (ours included), warnings first."""
    known = known or Known()
    found = [finding for rule in RULES for finding in rule(settings, known)]
    return sorted(found, key=lambda finding: finding.severity != WARNING)


def auto_optimizer(
    settings: Settings, classes: int | None = None, images: int | None = None
) -> tuple[str, float, str]:
    """Return name and rate, and both in words, of what Ultralytics builds for `optimizer=auto`; `images` and
    `classes` are those of the training set.

    It picks by the number of optimizer steps: above 10,000 MuSGD at 0.01, else AdamW at 0.002·5/(4+classes);
    `lr0` and `momentum` are ignored (`BaseTrainer.build_optimizer`). The rate is NaN where images or classes
    are not known.
    """
    batch = number(settings.get("batch"))
    if images is None or not batch >= 1:
        return "auto", math.nan, "auto chooses at the start; lr0 and momentum are ignored"
    epochs, nominal = number(settings.get("epochs", 100)), max(batch, number(settings.get("nbs", 64)))
    steps = math.ceil(images / nominal) * epochs
    if steps > AUTO_ITERATIONS:
        return "MuSGD", 0.01, f"auto: MuSGD at 0.01, for {steps:.0f} steps"
    rate = round(0.002 * 5 / (4 + classes), 6) if classes else math.nan
    return "AdamW", rate, f"auto: AdamW at {rate:g}, for {steps:.0f} steps, {classes} classes"


def schedule(args: Settings, epoch: int) -> float:
    """Return the scheduler's factor in `epoch`, counted from 0 (`BaseTrainer._setup_scheduler`)."""
    epochs, lrf = max(number(args.get("epochs", 100)), 1), number(args.get("lrf", 0.01))
    if args.get("cos_lr"):
        return max((1 - math.cos(epoch * math.pi / epochs)) / 2, 0) * (lrf - 1) + 1
    return max(1 - epoch / epochs, 0) * (1.0 - lrf) + lrf


def lr_at(args: Settings, epoch: int) -> float:
    """Return the learning rate in effect in `epoch`, counted from 0, after any warm-up."""
    return number(args.get("lr0")) * schedule(args, epoch)


def auto_ignores_lr0(settings: Settings, known: Known) -> Iterator[LintFinding]:
    if str(settings.get("optimizer")).lower() == "auto":
        *_, chosen = auto_optimizer(settings, known.classes, known.images)
        ignored = f"lr0={show_value(settings.get('lr0'))} and momentum"
        yield LintFinding("optimizer", WARNING, f"optimizer=auto ignores {ignored}; {chosen}")


def data_is_a_word(settings: Settings, known: Known) -> Iterator[LintFinding]:
    data = str(settings.get("data") or "")
    if data and not {"/", "."} & set(data) and settings.get("task") != "classify":
        text = f"data={data} names no YAML file: Ultralytics would look for a folder of that name"
        yield LintFinding("data", WARNING, f"{text} among its data sets; give the path of a data.yaml")


def usual_rate(optimizer: str) -> float:
    """Return the usual lr0 of an optimizer: of SGD that in default.yaml, of Adam and its kin PyTorch's."""
    return 0.01 if optimizer.lower() in ("sgd", "musgd") else 0.001


def rate_too_high(settings: Settings, known: Known) -> Iterator[LintFinding]:
    optimizer, rate = str(settings.get("optimizer") or "auto"), number(settings.get("lr0"))
    usual = usual_rate(optimizer)
    if optimizer.lower() != "auto" and rate > 10 * usual:
        text = f"lr0={show_value(rate)} is {rate / usual:.0f} times the usual of {optimizer}"
        yield LintFinding("lr0", WARNING, f"{text}: set lr0={usual:g}, or expect NaN", {"lr0": usual})


def gain_too_high(settings: Settings, known: Known) -> Iterator[LintFinding]:
    for name, usual in USUAL_GAIN.items():
        if (times := number(settings.get(name)) / usual) >= 100:
            text = f"{name}={show_value(settings[name])} is {times:.3g} times its default"
            yield LintFinding(name, WARNING, f"{text}: set {name}={usual:g}, or expect NaN", {name: usual})


def lrf_is_a_fraction(settings: Settings, known: Known) -> Iterator[LintFinding]:
    epochs = number(settings.get("epochs", 100))
    if 1 <= epochs < math.inf and (last := lr_at(settings, int(epochs) - 1)) < 1e-6:
        text = f"lrf is a fraction of lr0: the rate of the last epoch is {last:.0e}, which changes nothing"
        yield LintFinding("lrf", NOTE, text)


def rate_in_effect(settings: Settings, known: Known) -> Iterator[LintFinding]:
    if known.epoch > 0 and str(settings.get("optimizer")).lower() != "auto":
        where = f"{known.epoch + 1}/{settings.get('epochs')}"
        rate = f"{lr_at(settings, known.epoch):.3g}"
        yield LintFinding("lr0", NOTE, f"in epoch {where} the schedule has come down to a rate of {rate}")


def amp_off_is_expensive(settings: Settings, known: Known) -> Iterator[LintFinding]:
    if settings.get("amp") in (False, "fp32") and known.on_gpu:
        text = "amp=False costs about 70 % more time and twice the memory on a modern GPU"
        if known.bf16 is False:
            yield LintFinding("amp", WARNING, text)
        else:
            where = "" if known.bf16 else ", where the GPU supports it"
            text = f"{text}; bf16 has the same range at about 9 %{where}"
            yield LintFinding("amp", WARNING, text, {"amp": "bf16"})


def bf16_needs_a_gpu(settings: Settings, known: Known) -> Iterator[LintFinding]:
    if settings.get("amp") != "bf16":
        return
    if known.on_gpu is False or known.bf16 is False:
        where = "the CPU" if known.on_gpu is False else "this GPU (it takes compute capability 8.0)"
        yield LintFinding("amp", WARNING, f"amp=bf16 does not work on {where}; use amp=False", {"amp": False})
    elif known.bf16 is None:
        text = "whether the GPU supports bf16 is not known here: it takes compute capability 8.0 (Ampere)"
        yield LintFinding("amp", NOTE, text)


def batch_and_devices(settings: Settings, known: Known) -> Iterator[LintFinding]:
    batch, devices = settings.get("batch"), known.devices
    if not is_number(batch) or devices < 2:
        return
    if batch < 1:
        text = f"batch={show_value(batch)} (AutoBatch) does not work on {devices} GPUs; set a number"
        yield LintFinding("batch", WARNING, text)
    elif batch % devices:
        smaller = max(int(batch) // devices, 1) * devices
        text = f"batch={batch} is no multiple of {devices} GPUs"
        yield LintFinding("batch", WARNING, text, {"batch": smaller})


def close_mosaic_too_early(settings: Settings, known: Known) -> Iterator[LintFinding]:
    closing, left = number(settings.get("close_mosaic")), number(settings.get("epochs")) - known.epoch
    if closing >= left > 0 and number(settings.get("mosaic", 1.0)) > 0:
        left_over = count(int(left), "epoch")
        text = f"close_mosaic={closing:g} with {left_over} left: mosaic is off from the first of them"
        yield LintFinding("close_mosaic", NOTE, text)


def imgsz_and_stride(settings: Settings, known: Known) -> Iterator[LintFinding]:
    size, stride = settings.get("imgsz"), known.stride or SMALLEST_STRIDE
    if isinstance(size, (list, tuple)):
        text = f"imgsz={show_value(size)}: training takes one number, images are square"
        yield LintFinding("imgsz", WARNING, text, {"imgsz": max(size)})
    elif is_number(size) and size % stride:
        rounded = max(-(-int(size) // stride) * stride, stride)
        assumed = "" if known.stride else " (assumed: most models have it, P6 models have 64)"
        text = f"imgsz={size} is no multiple of the stride {stride}{assumed}; Ultralytics trains at {rounded}"
        yield LintFinding("imgsz", NOTE, text, {"imgsz": rounded})


def warmup_without_effect(settings: Settings, known: Known) -> Iterator[LintFinding]:
    if known.epoch > number(settings.get("warmup_epochs")) > 0 and not settings.get("rewarmup"):
        text = f"no warm-up after a resume at epoch {known.epoch + 1}, whatever warmup_epochs says"
        instead = {"rewarmup": 100}
        yield LintFinding("warmup_epochs", NOTE, f"{text}; rewarmup lets the rate climb again", instead)


def no_restore_points(settings: Settings, known: Known) -> Iterator[LintFinding]:
    if number(settings.get("save_period", -1)) < 1 and not settings.get("restore_every_minutes"):
        text = "save_period=-1 keeps no restore points but last.pt and best.pt"
        yield LintFinding("save_period", WARNING, text, {"save_period": 5})


def does_not_fit(settings: Settings, known: Known) -> Iterator[LintFinding]:
    measured = known.measured
    if measured is None or not known.now:
        return
    needed = least_gb(measured, known.now, settings)
    if needed > measured.usable_gb and needed > measured.peak_gb:
        differs = [name for name in ("imgsz", "batch", "amp") if settings.get(name) != known.now.get(name)]
        text = f"needs about {needed:.0f} GB a GPU (this run's own peak is {measured.peak_gb:.0f} GB)"
        text += f"; the GPU has {measured.total_gb:.0f} GB"
        fits = largest_batch(measured, known.now, settings)
        instead = {"batch": fits} if fits < number(settings.get("batch")) else {}
        yield LintFinding((differs or ["batch"])[0], WARNING, text, instead)


def already_finished(settings: Settings, known: Known) -> Iterator[LintFinding]:
    epochs = number(settings.get("epochs"))
    if 0 < epochs <= known.epoch:
        more = more_epochs(known.epoch)
        text = f"all {epochs:g} epochs are done: raise epochs, e.g. to {more}"
        yield LintFinding("epochs", WARNING, text, {"epochs": more})


def more_epochs(done: int) -> int:
    """Return an example of how many epochs a run that has trained `done` may go on to: half as many again."""
    return done + max(done // 20 * 10, 10)


RULES: tuple[Rule, ...] = (
    already_finished, data_is_a_word, auto_ignores_lr0, rate_too_high, gain_too_high, rate_in_effect,
    lrf_is_a_fraction, amp_off_is_expensive, bf16_needs_a_gpu, batch_and_devices,
    close_mosaic_too_early, imgsz_and_stride, warmup_without_effect, no_restore_points, does_not_fit,
)  # fmt: skip

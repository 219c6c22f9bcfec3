"""docs/healthy.md, made from the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from benchmarks.healthy.cases import every_case
from benchmarks.healthy.misses import COLUMNS, apart, counts, differs, misses
from benchmarks.healthy.records import Record

GROUPS = ("what", "optimizer", "rate", "warm-up", "data", "twist", "precision")
HEADS = ("trainings", "steps", *COLUMNS, "warnings per 10,000 steps")
HEAD = """Made by `make healthy`. Each training under the default guard stands beside the same one with
`guard=off` in the same environment (`off` still runs nantui's trainer, which reports steps and saves through
a rename); every fifth is trained by plain `YOLO(…).train()` as well. The columns after the steps should be 0:
trainings that were ended, alarms (incidents), steps skipped without a cause, a rollback that would go back
further than the newest epoch (at the end, or as results.csv stood after any epoch), results.csv unlike the
control's in any cell but the time.
""".splitlines()
POINTS = 12
MANY = 60
BROKEN = "broken"


def page(records: Sequence[Record]) -> str:
    """Return the whole page."""
    pairs = [record for record in records if record["part"] != BROKEN]
    broken = [record for record in records if record["part"] == BROKEN]
    parts = (_head(pairs), _table(pairs), _missed(pairs), _compared(pairs), _warned(pairs), _lost(pairs))
    lines = [line for part in (*parts, _broken(broken)) for line in part]
    return "\n".join(lines) + "\n"


def all_zero(records: Sequence[Record]) -> bool:
    """Tell whether every zero of the page is one, and every pair of the table is there."""
    pairs = [record for record in records if record["part"] != BROKEN]
    return not misses(pairs) and not missing(pairs)


def missing(pairs: Iterable[Record]) -> list[str]:
    """Return the names of the table's trainings that were not run yet."""
    there = {record["name"] for record in pairs}
    return [case.name for case in every_case() if case.name not in there]


def _head(pairs: Sequence[Record]) -> Iterator[str]:
    yield "# Healthy trainings\n"
    yield from (*HEAD, "")
    left = missing(pairs)
    yield f"{len(pairs)} of {len(pairs) + len(left)} pairs were run."
    for (part, *where), count in sorted(Counter(_where(record) for record in pairs).items()):
        yield f"- {part}: {count} pairs on commit {', '.join(where)}"
    yield ""


def _where(record: Record) -> tuple[str, ...]:
    where = record["where"]
    versions = (
        f"PyTorch {where['torch']}",
        f"Ultralytics {where['ultralytics']}",
        f"Python {where['python']}",
    )
    return record["part"].upper(), where["commit"], where["device"], *versions


def _table(pairs: Sequence[Record]) -> Iterator[str]:
    pairs = [record for record in pairs if counts(record)]
    for group in ("", *GROUPS):
        yield f"| {group} | {' | '.join(HEADS)} |"
        yield "|---|" + "--:|" * len(HEADS)
        names = sorted({record["values"].get(group, "") for record in pairs}) if group else ["all"]
        for name in names:
            rows = [record for record in pairs if not group or record["values"].get(group) == name]
            yield f"| {name} | {' | '.join(_cells(rows))} |"
        yield ""


def _cells(rows: Sequence[Record]) -> list[str]:
    steps = sum(record["steps"] for record in rows)
    found = Counter(column for _, column, _ in misses(rows))
    warned = sum(len(record["warnings"]) for record in rows)
    numbers = [f"{len(rows):,}", f"{steps:,}", *(str(found[column]) for column in COLUMNS)]
    return [*numbers, f"{warned / steps * 10_000:.1f}" if steps else ""]


def _missed(pairs: Sequence[Record]) -> Iterator[str]:
    found = misses(pairs)
    yield "## Misses\n"
    yield "None." if not found else "| training | what | |\n| --- | --- | --- |"
    settings = {record["name"]: _settings(record) for record in pairs}
    for name, column, text in found[:MANY]:
        yield f"| {name} ({settings[name]}) | {column} | {_cell(text)} |"
    if len(found) > MANY:
        yield f"\nAnd {len(found) - MANY} more."
    yield ""


def _settings(record: Record) -> str:
    values = record["values"]
    return ", ".join(str(values[name]) for name in GROUPS if name in values)


def _compared(pairs: Sequence[Record]) -> Iterator[str]:
    yield "## Compared with the control\n"
    yield "Trainings that may differ stand apart: where a step was skipped under fp16 (the loss scale was"
    yield "too high) or a validation repeated, where the clock decides (`time=`), where a kernel"
    yield "is not deterministic.\n"
    yield "| | trainings | of them unlike the control |\n|---|--:|--:|"
    groups = [(apart(record) or "to be alike", bool(differs(record))) for record in pairs if counts(record)]
    for name in sorted({name for name, _ in groups}):
        of = [unlike for group, unlike in groups if group == name]
        yield f"| {name} | {len(of)} | {sum(of)} |"
    plain = [record for record in pairs if "off_unlike_plain" in record]
    unlike = [record["name"] for record in plain if record["off_unlike_plain"]]
    yield f"\n`guard=off` beside plain Ultralytics: {len(plain)} compared, {len(unlike)} unlike{_few(unlike)}"
    yield ""


def _few(names: Sequence[str]) -> str:
    return f" ({', '.join(names[:5])}{' …' if len(names) > 5 else ''})." if names else "."


def _warned(pairs: Sequence[Record]) -> Iterator[str]:
    steps = sum(record["steps"] for record in pairs)
    kinds = Counter(warning[0] for record in pairs for warning in record["warnings"])
    trainings = Counter(kind for record in pairs for kind in {warning[0] for warning in record["warnings"]})
    yield "## Warnings\n"
    yield "A warning changes nothing; in a healthy training each is one too many.\n"
    yield "| kind | warnings | per 10,000 steps | in trainings |\n|---|--:|--:|--:|"
    for kind, count in kinds.most_common():
        yield f"| {kind} | {count} | {count / steps * 10_000:.1f} | {trainings[kind]} |"
    yield ""


def _lost(pairs: Sequence[Record]) -> Iterator[str]:
    found = [record for record in pairs if record["lost_by_control"]]
    yield "## Lost by the control itself\n"
    yield "Trainings that are no good without the guard either, with the control's metric over its epochs."
    yield "They count above where their numbers stay finite.\n"
    yield "| training | why | metric | what the guard said |\n| --- | --- | --- | --- |" if found else "None."
    for record in found:
        said = Counter(event[0] for event in (*record["incidents"], *record["warnings"]))
        words = ", ".join(f"{kind} {count}" for kind, count in said.items()) or "nothing"
        name = f"{record['name']} ({_settings(record)})"
        yield f"| {name} | {record['lost_by_control']} | {_curve(record['control_metric'])} | {words} |"
    yield ""


def _curve(values: Sequence[float]) -> str:
    step = max(len(values) / POINTS, 1)
    places = sorted(
        {min(int(number * step), len(values) - 1) for number in range(POINTS)} | {len(values) - 1}
    )
    return " ".join(f"{float(values[place]):.2g}" for place in places) if values else ""


def _broken(rows: Sequence[Record]) -> Iterator[str]:
    yield "## The other side: trainings that go wrong with finite numbers\n"
    yield "Broken on purpose from the start of an epoch on. How many epochs pass until something is said?"
    yield "0: in the first broken epoch.\n"
    yield "| broken by | in epoch | epochs until the warning | said first | said by results.csv | ended as |"
    yield "|---|--:|--:|---|---|---|"
    for record in sorted(rows, key=lambda one: str(one["name"])):
        first: list[Any] = record["said"][0] if record["said"] else []
        passed = first[0] - record["since"] if first else "never"
        signs = record["signs"][0] if record["signs"] else []
        by_table = f"{signs[1]}, after {signs[0] - record['since']}" if signs else "nothing"
        word = first[1] if first else "nothing"
        name = record["name"].removeprefix("broken ")
        yield f"| {name} | {record['since']} | {passed} | {word} | {by_table} | {record['outcome']} |"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")[:300]

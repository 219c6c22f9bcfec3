"""results.csv up to the restore point: what is trained again must not stand in it twice."""

from __future__ import annotations


def trimmed(text: str, work: int) -> str:
    """Return `text` with one line an epoch up to epoch `work` (from 1), byte for byte as they were.

    Ultralytics appends, so after an earlier rollback an epoch can stand there several times: the last one
    counts, and what it superseded goes. A torn last line goes too.
    """
    lines = text.splitlines(keepends=True)
    head = [line for line in lines[:1] if line.split(",", 1)[0].strip() == "epoch"]
    kept: list[tuple[int, str]] = []
    for line in lines[len(head) :]:
        epoch = _epoch(line)
        if epoch is None or not line.endswith("\n"):
            continue
        while kept and kept[-1][0] >= epoch:
            kept.pop()
        kept.append((epoch, line))
    return "".join([*head, *(line for epoch, line in kept if epoch <= work)])


def _epoch(line: str) -> int | None:
    try:
        return int(float(line.split(",", 1)[0]))
    except (ValueError, OverflowError):
        return None

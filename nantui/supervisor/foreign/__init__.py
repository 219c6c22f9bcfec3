"""Trainings that nantui did not start: find them, say how far they are, stop them when asked.

Files, in reading order:

find: Trainings that nantui did not start: find their processes, show whose they are, stop only their tree
log_progress: Ultralytics' progress lines from a log's end, without our telemetry
stop: Stop a training that nantui did not start: keep how it was started, end its tree, see if it returns
strays: Trainings whose run directory was renamed or deleted: found by the mark that their processes carry
"""

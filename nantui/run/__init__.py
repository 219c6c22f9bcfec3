"""A run on disk: names of files, readers of what Ultralytics and nantui wrote, the journal.

The run directory is the database and the only channel between the terminal, the supervisor and the
worker. Nothing here starts, stops or judges anything.

In reading order: layout, attempts, events, endings, incidents, journal, binding, spec, telemetry, points,
results, plan, commands, status, quarantine, documents, inside, atomic_files, growing_files, record.
"""

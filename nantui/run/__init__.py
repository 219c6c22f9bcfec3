"""A run on disk: names of files, readers of what Ultralytics and nantui wrote, the journal.

The run directory is the database and the only channel between the terminal, the supervisor and the
worker. Nothing here starts, stops or judges anything.

Files, in reading order:

layout: The names of every file of a run, as docs/file-formats.md describes them; finding runs
attempts: Attempts: what each was asked to do, what its ranks saw, how they ended, and which of them live
events: What the journal and the ranks' event files say, as typed events: the one place that knows their keys
endings: How an attempt ended: every kind in one table, and the rules that tell them apart
incidents: Every kind of incident, in one table: its title, whether it is proof, what may be done
journal: The journal: everything that was done to a run, on the disk first; held by whoever moves files
binding: Where a run was made: what is kept of it outside the run, so that no file in a run can claim it
spec: spec.yaml: what to train, as asked
telemetry: Per-step telemetry as rank 0 wrote it: steps.csv, read a bounded chunk at a time or whole
points: Step points: where a training can go on in the middle of an epoch, as their headers tell
results: results.csv as Ultralytics writes it, with what makes it awkward taken care of
plan: Where a run stands in its plan: phases one after another in one run directory, as spec.yaml keeps them
commands: The spool: commands as one-file messages, put there by rename, taken only from the same owner
status: The state of a run as everybody shows it: one frozen snapshot, one list of words, and Prometheus text
quarantine: A run's quarantine list: images left out of its training; the data set is not touched
documents: What files say: parsed within bounds, and each value as the type that a field has for it
inside: Paths that a file of a run names, checked where they are used: inside the run, across no link
atomic_files: Writes that survive a crash: beside, fsync, rename
growing_files: Files that another process appends to: followed a bounded chunk at a time, or their end alone
record: One reading of a run: what its files say, for everything that one operation asks of them
"""

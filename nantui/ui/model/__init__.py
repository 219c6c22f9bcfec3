"""What the screens show, read from disk in threads and handed over as frozen snapshots. No textual here.

Files, in reading order:

backend: What the screens ask of the other rooms, in one place: imported when first used, replaced in tests
snapshot: Everything the screens draw of a run, frozen, so that it can cross from thread to screen
run_reader: Reads a run again and again, and only what has changed
step_store: Per-step telemetry of a whole run on one axis, kept small whatever its length
epochs: The epochs of a run in one row: trimmed by rollbacks, of finished phases, and current
run_charts: From a snapshot to the charts: which there are, their curves, and what is marked on them
timeline: The journal and the events as sentences: what happened, when, who asked
reasons: Why something cannot be done to a run right now, and when to raise the alarm
checkpoint_rows: Files, verdicts and roles put together: one row per checkpoint
config_editor: The config editor without a terminal: rows, what is wrong, what is said of a setting
plan_text: What is about to be done to a run, as text: the plan of a recovery, a stop, an undo
diagnosis_text: Why it happened, as text: the diagnosis' verdict, the autopsies, what was recorded
command_progress: What became of a command, from the journal: stages, outcome, what is in effect now
comparison: Two runs or attempts overlaid: one picture per curve that both have, and a table of what differs
"""

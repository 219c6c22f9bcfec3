"""What the screens show, read from disk in threads and handed over as frozen snapshots. No textual here.

In reading order: backend, snapshot, run_reader, step_store, epochs, run_charts, timeline, reasons,
checkpoint_rows, config_editor, plan_text, diagnosis_text, command_progress, comparison.
"""

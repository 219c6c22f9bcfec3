"""The only package that imports torch and ultralytics: everything that runs beside the training.

Others start these modules as processes (`nantui/entry_points.py`) and read the files that they leave; nobody
imports them.

In reading order: __main__, waiting, trainer, session, telemetry, ultralytics_api, ultralytics_types,
incident, options, points/, guard/, autopsy/, checkpoints/, script/, distributed, torchrun_env, launch_ranks,
effective_settings, check_arguments, replay, faults, signals, process_end, validation_precision,
same_training.
"""

"""The only package that imports torch and ultralytics: everything that runs beside the training.

Others start these modules as processes (`nantui/entry_points.py`) and read the files that they leave; nobody
imports them.

Files, in reading order:

__main__: The worker: one rank of one attempt. `python -m nantui.worker RUN NNN`
trainer: The guarded trainer: a subclass of whatever trainer the task or the user brings
session: One rank's part in one attempt: what was asked, where it reports, and how its end is recorded
telemetry: What a rank reports, written by a thread: a disk that hangs costs rows, never a step
ultralytics_api: Where the worker leans on the insides of Ultralytics' trainer, data sets and loaders
ultralytics_types: What nantui uses of Ultralytics' trainer, validator and data sets, as types
incident: How a training ends other than by reaching its last epoch: stopped when asked, or diverged
options: nantui's own settings of a run, as the training uses them: defaults filled in, types checked once
points/: Step points: everything that a training is, kept every few minutes, to go on at the batch after it.
guard/: The guard of one step: probe the batch, decide on the incident, take the step back.
autopsy/: Why a batch went wrong: the batch is passed through the model again, layer by layer.
checkpoints/: What the training saves: at an epoch's end, when stopped, and with other settings.
script/: Trainings inside a script of the user's own: hooked, redirected, continued.
distributed: How ranks agree: one tiny all-reduce, the same on all; what Ultralytics assumes of them put right
torchrun_env: Who this process is among the ranks, from what torchrun put into the environment
launch_ranks: One host's ranks: `python -m nantui.worker.launch_ranks RUN NNN NODE DEVICES`
effective_settings: The settings really in effect, read from the live objects and not from the arguments
check_arguments: Ultralytics' own word on arguments, and the name of the new run, before anything is created
replay: Repeat epochs of a run under the guard, in a directory of its own, until the trouble happens again
faults: Faults on request, for tests and the demo; imported only when an attempt asks for one
signals: What a rank does at a signal: told to end it asks for the agreed stop, and one that hangs says where
process_end: How a rank's process ends: in good order without taking the interpreter down, or with its parent
validation_precision: Where fp16 overflows in the validation, the epoch is validated once more in fp32
same_training: Before its first epoch a resume is held against the run's own files
"""

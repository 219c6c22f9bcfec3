"""Trainings inside a script of the user's own: hooked, redirected, continued.

Files, in reading order:

attach: The guard in users' hands: under their own script, with their own trainer, callbacks and data set
train_calls: Which of a script's `train()` calls this is: counted over every process of one command, and …
script_run: The run that a script's `train()` makes: its attempt, its session, and how to run the script …
exec: An exec run's worker: the process becomes the user's own command, with the hook in its environment
ddp_spawn: Ultralytics' own DDP spawn, when a script asks for several devices: ranks that know which call …
"""

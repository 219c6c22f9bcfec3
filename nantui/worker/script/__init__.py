"""Trainings inside a script of the user's own: hooked, redirected, continued.

Files, in reading order:

attach: The guard in users' hands: under their own script, with their own trainer, callbacks and data set
train_calls: Which of a script's `train()` calls this is, counted over all processes of a command
script_run: The run of a script's `train()`: its attempt, its session, how to run the script again
exec: An exec run's worker: the process becomes the user's own command, with the hook in its environment
ddp_spawn: Ultralytics' own DDP spawn in a script: ranks that know which call they are
"""

"""Trainings inside a script of the user's own: hooked, redirected, continued.

Files, in reading order:

attach: The guard in users' hands: under their own script, with their own trainer, callbacks and data set
train_calls: Which of a script's `train()` calls this is, counted over all processes of a command; becoming it
script_run: The run of a script's `train()`: its attempt and session, how to run the script again, its ranks
"""

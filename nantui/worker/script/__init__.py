"""Trainings inside a script of the user's own: hooked, redirected, continued.

In reading order: attach, train_calls, script_run.
"""

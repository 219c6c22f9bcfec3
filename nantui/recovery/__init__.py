"""Decide and act on a run directory: restore points, rollback, undo, ladder. No torch here.

In reading order: trouble, restore_points, history, plan_inputs, resume_settings, remedies, ladder, plan,
agreement, rollback, transaction, undo, phase_change, unattended_policy, run_facts, comparison, __main__.
"""

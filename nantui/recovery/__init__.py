"""Decide and act on a run directory: restore points, rollback, undo, ladder. No torch here.

Files, in reading order:

trouble: The first sign of trouble since the last rollback
judgement: A judgement on finite numbers: where a network lost what it had learned, and where that is proven
restore_points: Which checkpoint to go back to: each one with its cost, and why the others are out
history: The recoveries of a run so far: what each restored and changed, and what became of it
plan_inputs: What a plan is made from and what it is for, gathered once: restore points, trouble, settings
resume_settings: Which settings a recovered run trains with: in effect, decided before, changed now
ladder: The escalation ladder: which remedy comes next, given what was tried and what is proven
plan: What `R` would do, before anything is touched: shared by dialog, command and policy
checkpoint_moves: Which checkpoints a rollback moves aside, and under which names
plan_warnings: What a person should know before saying yes to a plan, what is lost with it, when there is none
plan_text: A plan as text for `nantui rollback` and `recover --dry-run`
agreement: What going on with a run that was not made here would run: shown, and agreed to once
resume_point: The step point that a plain resume goes on from, where one is further than the newest checkpoint
rollback: The rollback itself: refuse where somebody writes, stage, then move as one transaction
transaction: A journaled transaction over a run directory: it is finished or taken back, whatever kills it
manifest: What lay in a run directory before a rollback, so that `undo` can give it back byte for byte
undo: Take the last rollback back: everything outside nantui/ as it was, byte for byte
phase_change: From one phase of a plan to the next, as a transaction: what it has left moves aside
branch: Recover into a new directory: the old run stays untouched, the new one goes on from its restore point
unattended_policy: Unattended: what is done after an attempt has ended, and about each kind of end
run_facts: What is known of the machine and the data of a run, for remarks and remedies
comparison: Two runs, or two attempts of one run, side by side: settings, curves over the same epochs, cost
__main__: One action of recovery in a process of its own: `python -m nantui.recovery REQUEST.json`
act: Kept for one release: the name before of `nantui.recovery`
"""

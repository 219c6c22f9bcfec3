"""Decide and act on a run directory: restore points, rollback, undo, ladder. No torch here.

Files, in reading order:

trouble: The first sign of trouble since the last rollback, and how far the training had come
restore_points: Which checkpoint to go back to: each one with its cost, and why the others are out
plan: What `R` would do, before anything is touched: shared by dialog, command and policy
plan_inputs: What the files of a run say, gathered once for a plan
rollback: The rollback itself: stage, then move as one transaction; also into a new directory
transaction: A journaled transaction over a run directory: it is finished or taken back, whatever kills it
undo: Take the last rollback back: everything outside nantui/ as it was, byte for byte
ladder: The escalation ladder: which remedy comes next, given what was tried and what is proven
unattended_policy: Unattended: what the supervisor does after an attempt has ended. Needs no terminal
phase_change: From one phase of a plan to the next, as a transaction: what it has left moves aside
branch: Recover into a new directory: the old run stays untouched, the new one goes on from its restore point
resume_settings: Which settings a recovered run trains with: in effect, decided before, changed now
run_facts: What is known of the machine and the data of a run, for remarks and remedies
history: The recoveries of a run so far: what each restored and changed, and what became of it
comparison: Two runs, or two attempts of one run, side by side: settings, curves over the same epochs, cost
plan_text: A plan as text for `nantui rollback` and `recover --dry-run`
lost_without_script: What is lost when nantui's own runner goes on instead of the script that began
__main__: One action of recovery in a process of its own: `python -m nantui.recovery REQUEST.json`
act: Kept for one release: the name before of `nantui.recovery`
reason: What a recovery is for, and the proposal below the first: a judgement is only ever a person's choice
ruin: The one judgement on finite numbers that an unattended recovery acts on: worse than before it learned
"""

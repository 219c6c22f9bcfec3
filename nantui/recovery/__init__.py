"""Decide and act on a run directory: restore points, rollback, undo, ladder. No torch here.

Files, in reading order:

trouble: The first sign of trouble since the last rollback, and a judgement on finite numbers
restore_points: Which checkpoint to go back to: each one with its cost, and why the others are out
history: The recoveries of a run so far: what each restored and changed, and what became of it
plan_inputs: What a plan is made from, gathered once: restore points, trouble, how far the run came, settings
resume_settings: Which settings a recovered run trains with: in effect, decided before, changed now
ladder: The escalation ladder: which remedy comes next, given what was tried and what is proven
plan: What `R` would do, before anything is touched, with its moves and warnings, and in words
agreement: What going on with a run that was not made here would run: shown, and agreed to once
rollback: The rollback itself: refuse where somebody writes, stage, then move; or into a new directory
transaction: A journaled transaction over a run directory: it is finished or taken back, whatever kills it
undo: Take the last rollback back: everything outside nantui/ as it was, byte for byte; what is kept for that
phase_change: From one phase of a plan to the next, as a transaction: what it has left moves aside
unattended_policy: Unattended: what is done after an attempt has ended, and about each kind of end
run_facts: What is known of the machine and the data of a run, for remarks and remedies
comparison: Two runs, or two attempts of one run, side by side: settings, curves over the same epochs, cost
__main__: One action of recovery in a process of its own: `python -m nantui.recovery REQUEST.json`
act: Kept for one release: the name before of `nantui.recovery`
"""

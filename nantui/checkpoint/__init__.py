"""What is inside a `.pt`, told without running it.

`scan(path)` judges one file, `Catalog(weights_dir)` all files of a run. The pickle is interpreted by our
own interpreter that calls nothing and imports nothing; the zip is read with bounded reads, never mapped, so
that a file which is rewritten meanwhile cannot kill its reader. Only numpy and the standard library are
used, and numpy only inside the functions that look at tensor bytes: importing this package is cheap.

What the badges mean, how laundered weights are told from healthy zeros, and where the limits are, is in
docs/checkpoints.md.

Files, in reading order:

scan: Tell what one `.pt` is worth, without running it
catalog: All checkpoints of a run: what there is at once, verdicts as they come, newest first
verdict: What is said about a checkpoint: frozen snapshots that travel between threads and processes
metadata: What a checkpoint says about itself: epoch, date, version, fitness, arguments, metrics, results
weight_findings: From counts to findings: how the file itself proves it, and an older one of the run
cache: Verdicts that are remembered: a second look at an unchanged file costs a `stat`
parallel_scan: Many files at once, in processes of their own, so that a screen stays alive
pickle/: The pickle inside a checkpoint, read by an interpreter that calls nothing and imports nothing.
tensors/: The bytes of a checkpoint's tensors: where they lie in the zip, and what their numbers are.
"""

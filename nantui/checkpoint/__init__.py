"""What is inside a `.pt`, told without running it.

`scan(path)` judges one file, `Catalog(weights_dir)` all files of a run. The pickle is interpreted by our
own interpreter that calls nothing and imports nothing; the zip is read with bounded reads, never mapped, so
that a file which is rewritten meanwhile cannot kill its reader. Only numpy and the standard library are
used, and numpy only inside the functions that look at tensor bytes: importing this package is cheap.

What the badges mean, how laundered weights are told from healthy zeros, and where the limits are, is in
docs/checkpoints.md.

In reading order: scan, catalog, verdict, metadata, weight_findings, cache, parallel_scan, pickle/, tensors/.
"""

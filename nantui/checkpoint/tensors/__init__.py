"""The bytes of a checkpoint's tensors: where they lie in the zip, and what their numbers are.

Files, in reading order:

zip_archive: The zip around a checkpoint, read with bounded reads and believed in nothing
tensor_tree: From the pickled objects to named tensors: weights, optimizer state, neither
segments: Where each tensor's values lie in its record, what a sweep is asked about them and what it counts
sweep: One pass over the bytes of a checkpoint: bounded reads, two maxima per row, nothing kept
forked_sweep: The sweep in a process of its own, while the pickle is still being described
"""

"""The bytes of a checkpoint's tensors: where they lie in the zip, and what their numbers are.

In reading order: zip_archive, tensor_tree, segments, sweep, forked_sweep.
"""

"""This machine: its GPUs, its processes, whose child a process is. Nothing here knows what a run is.

Files, in reading order:

gpus: One frozen sample of the GPUs (NVML) and of the host, for panels and for GPU admission
process_identity: Who a process is, for certain
process_tree: Find every process of an attempt, end them, prove that none is left; whose child one is
patient_output: Output that never raises: what a full disk refuses is dropped and counted, and said later
training_python: Which interpreter trains, where nantui's own environment has no torch
"""

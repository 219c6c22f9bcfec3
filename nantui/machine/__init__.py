"""This machine: its GPUs, its processes, whose child a process is. Nothing here knows what a run is.

In reading order: gpus, process_identity, process_tree, waiting_process, patient_output, training_python.
"""

"""Step points: everything that a training is, kept every few minutes, to go on at the batch after it.

In reading order: step_points, training_state, loader_order, host_copy, point_file, going_on, rewind.
"""

"""Step points: everything that a training is, kept every few minutes, to go on at the batch after it.

Files, in reading order:

step_points: When step points are taken, and of what: a trainer's own part of them, batch by batch
training_state: Everything that a training is between two batches: taken from a trainer, put back into one
loader_order: Which sample comes when, recorded as it is drawn; how it is augmented, whatever came before
host_copy: Copies of a training's tensors in host memory, in places that are made once and used again
point_file: A step point on its way to the disk, in the background
going_on: Into the middle of an epoch: a training goes on at the batch after a step point
rewind: Rewind in place: where the guard gives up, the training goes back in memory and on, without a restart.
"""

"""Processes: start a training, watch it, stop it, and prove that nothing of it is left."""

"""The guard of one step: probe the batch, decide on the incident, take the step back.

Files, in reading order:

step_guard: A training step as a transaction: what a bad batch touched is put back
batch_probe: What one batch shows: everything the host must know, in a single read
incident_policy: What a batch means: an incident, a warning, or the end. Reports it and says what to do
anomaly: When skipped steps or strange losses are no longer an accident: rules on plain numbers
tensor_copies: Copies of all that a batch may change, made in a few pieces, and the way back
"""

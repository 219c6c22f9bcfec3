"""The guard of one step: probe the batch, decide on the incident, take the step back.

Files, in reading order:

step_guard: A training step as a transaction: what a bad batch touched is put back, as if it had not been …
batch_probe: One look at a batch: everything the host must know, brought over in a single read
incident_policy: What a batch means: an incident, a warning, or the end. Reports it and says what to do
anomaly: When skipped steps or strange losses are no longer an accident: rules on plain numbers
batchnorm_stats: The running statistics of normalization layers: looked at and remembered with one copy a …
"""

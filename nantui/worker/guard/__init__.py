"""The guard of one step: probe the batch, decide on the incident, take the step back.

In reading order: step_guard, batch_probe, incident_policy, anomaly, tensor_copies.
"""

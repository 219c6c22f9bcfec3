"""Why a batch went wrong: the batch is passed through the model again, layer by layer.

Files, in reading order:

incident_report: The evidence of an incident: each rank's own batch, all reports put together
autopsy: Why a batch went wrong, found out while the guilty batch and weights are still in memory
passes: Passes repeated on one batch: which module's output, and which gradients, are first not finite
sample_files: Every sample carries the files it was made of, so that a bad batch can name its images
"""

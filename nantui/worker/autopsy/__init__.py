"""Why a batch went wrong: the batch is passed through the model again, layer by layer.

Files, in reading order:

incident_report: The evidence of an incident: each rank looks into its own batch, then all reports come …
autopsy: Why a batch, or a validation, went wrong, found out while its data and the weights are still …
passes: Passes repeated on one batch: which module's output, and which gradients, are first not finite
sample_files: Every sample carries the files it was made of, so that a bad batch can name its images
"""

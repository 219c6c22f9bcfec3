"""Why a batch went wrong: the batch is passed through the model again, layer by layer.

In reading order: incident_report, autopsy, passes, sample_files.
"""

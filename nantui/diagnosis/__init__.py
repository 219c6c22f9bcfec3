"""Why it happened: causes from evidence, each with its probability and what to do.

Files, in reading order:

trouble: What is known of a run's last trouble, read from its files: nothing here is a conclusion
evidence: From facts to evidence: each function reads one thing and gives a written likelihood ratio
file_evidence: Evidence from the run's other files: the checkpoint that was resumed, the labels
probabilities: The causes a run can fail from, how likely each is beforehand, how evidence moves them
causes: Why it happened: from a run's files to ranked causes, each with its evidence, and what helps
advice: What helps against each cause, and what it costs this run in time and memory
replay: The replay: for a run that nobody watched, see the trouble happen again with the guard looking
same: Kept for one release: the name before of `nantui.labels.data_set_digest`
"""

"""Why it happened: causes from evidence, each with its probability and what to do.

Files, in reading order:

facts: What is known of a run's last trouble, read from its files: nothing here is a conclusion
evidence: From facts to evidence with written likelihood ratios, and how it moves the causes' probabilities
causes: Why it happened: from a run's files to ranked causes, each with its evidence, and what helps
replay: The replay: for a run that nobody watched, see the trouble happen again with the guard looking
same: Kept for one release: the name before of `nantui.labels.data_set_digest`
"""

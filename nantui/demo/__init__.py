"""The demo: a small drawn data set, a real training on it, two planted faults, and somebody at the keys.

Files, in reading order:

story: The story of the demo: its data set, what is trained on it, two planted faults, and what is said
headless: Play the demo without a person: the same keys, a line per stage, and a verdict from the files
evidence: What the demo has to prove, each read from the files of the run and never from our own say-so
"""

"""The demo: a small drawn data set, a real training on it, two planted faults, and somebody at the keys.

Files, in reading order:

story: What the demo trains, and the two faults it plants
narration: What the demo says about itself: what will happen, what has happened, what to try next
dataset: Draw a small detection data set: circles, squares and triangles on noisy ground, the same for a seed
headless: Play the demo without a person: the same keys, a line per stage, and a verdict from the files
terminal: A person at a keyboard: the real cockpit in a pseudo-terminal of its own, and keys typed into it
evidence: What the demo has to prove, each read from the files of the run and never from our own say-so
"""

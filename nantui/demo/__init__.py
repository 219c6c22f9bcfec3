"""The demo: a small drawn data set, a real training on it, two planted faults, and somebody at the keys.

In reading order: story, headless, evidence.
"""

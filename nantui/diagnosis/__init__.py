"""Why it happened: causes from evidence, and the check of the labels."""

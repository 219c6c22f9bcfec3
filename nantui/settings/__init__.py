"""Training arguments as data: schema, presets, lint, effective values, differences. No torch anywhere.

In reading order: schema, values, presets, lint, gpu_memory, guard_requirements.
"""

"""Training arguments as data: schema, presets, lint, effective values, differences. No torch anywhere.

Files, in reading order:

schema: Which settings exist, what they accept, and a clear line for what they do not
values: From text to values, the way the `yolo` command reads them, and back to text for people
presets: Presets: named remedies as commented YAML, shipped, the user's own, the project's; files of plans
lint: Settings that are legal and do not do what they seem to: said before the hours are spent
gpu_memory: Will it fit? GPU memory of changed settings, predicted from this run's own peak
guard_requirements: Are the places the guard stands on there? From the source of Ultralytics' trainer
"""

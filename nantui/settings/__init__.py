"""Training arguments as data: schema, presets, lint, effective values, differences. No torch anywhere.

Files, in reading order:

schema: Which settings exist, what they accept, and a clear line for what they do not
values: From text to values, the way the `yolo` command reads them, and back to text for people
presets: Presets: named remedies as commented YAML, shipped, the user's own and the project's
lint: Settings that are legal and do not do what they seem to: said before the hours are spent
effective: What settings really amount to: the resolved optimizer, and the learning rate at a given epoch
gpu_memory: Will it fit? GPU memory of changed settings, predicted from this run's own peak
plan_files: Plans: several trainings one after another, each from the last one's weights, as one run
own_settings: nantui's own settings, described like Ultralytics' so that one form and one parser serve both
ultralytics_args: The arguments of the *installed* Ultralytics, read from its files without importing it
guard_requirements: Are the places the guard stands on there? From the source of Ultralytics' trainer
"""

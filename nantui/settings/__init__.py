"""Training arguments as data: schema, presets, lint, effective values, differences. No torch anywhere."""

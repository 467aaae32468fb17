"""An opened package: choose, load, fall back, tune, edit, compare."""

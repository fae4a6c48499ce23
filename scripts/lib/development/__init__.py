"""scripts/dev: what runs on one machine, and what is printed of it."""

"""What scripts/check-bicep does: see check.py."""

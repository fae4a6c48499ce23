"""scripts/check-pipelines."""
